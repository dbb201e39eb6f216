//! Process ids that are used again within an interval, by the kernel's own means (`clone3` with `set_tid`).

use std::io::Write as _;

use super::*;
use crate::support::TestDir;

/// Runs one child after another, all with the number of the first. A child ends with the next byte that comes.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int start(int wanted)
{
	struct clone_args arguments = { .exit_signal = SIGCHLD };
	if (wanted) {
		arguments.set_tid = (unsigned long)&wanted;
		arguments.set_tid_size = 1;
	}
	return syscall(SYS_clone3, &arguments, sizeof(arguments));
}

int main(int count, char **codes)
{
	int pid = 0;
	for (int at = 1; at < count; at++) {
		int ends[2];
		char byte;
		if (pipe(ends))
			return 1;
		int child = start(pid);
		if (child < 0) {
			perror("clone3");
			return 1;
		}
		if (!child) {
			close(ends[1]);
			read(ends[0], &byte, 1);
			_exit(atoi(codes[at]));
		}
		pid = child;
		close(ends[0]);
		printf("%d\n", pid);
		fflush(stdout);
		read(0, &byte, 1);
		close(ends[1]);
		waitpid(pid, 0, 0);
	}
	printf("done\n");
	fflush(stdout);
	read(0, &(char){0}, 1);
	return 0;
}
"#;

#[test]
fn a_number_used_again_within_an_interval_is_another_instance() {
    let directory = TestDir::new();
    let (source, program) = (directory.0.join("reuse.c"), directory.0.join("reuse"));
    fs::write(&source, PROGRAM).unwrap();
    let compiled = Command::new("cc").arg("-o").arg(&program).arg(&source).status();
    assert!(compiled.unwrap().success());
    for tier in TIERS {
        let mut sampler =
            Sampler::start(&format!("[collect]\ntier = \"{tier}\"\n[profile]\nkeep_all = true"));
        let mut command = Command::new(&program);
        command.args(["7", "8", "9"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut parent = Running(command.spawn().unwrap());
        let mut lines = BufReader::new(parent.0.stdout.take().unwrap()).lines();
        let mut input = parent.0.stdin.take().unwrap();
        let pid: u32 = lines.next().unwrap().unwrap().parse().unwrap();
        let row = |sampler: &mut Sampler| {
            let ids: Vec<_> = sampler.tick().processes.iter().map(|row| row.instance_id).collect();
            let definitions = sampler.reports.iter().rev().flat_map(|it| &it.instance_definitions);
            let mut of_pid = definitions.filter(|it| it.pid == pid).map(|it| it.instance_id);
            of_pid.find(|id| ids.contains(id))
        };
        let first = wait_for("the row of the first", || row(&mut sampler));
        // The first ends, the second has its number: no tick in between.
        input.write_all(b"x").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), pid.to_string());
        let second = wait_for("the row of the second", || {
            row(&mut sampler).filter(|second| *second != first)
        });
        // The second ends, the third lives and dies: seen by its exit only.
        input.write_all(b"x").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), pid.to_string());
        input.write_all(b"x").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "done");
        let exits = wait_for("three exits", || {
            sampler.tick();
            let exits = sampler.exits_of_pid(pid);
            (exits.len() >= 3).then(|| {
                exits.iter().map(|exit| (exit.instance_id, exit.exit_code)).collect::<Vec<_>>()
            })
        });
        let codes: Vec<_> = exits.iter().map(|(_, code)| code.unwrap()).collect();
        assert_eq!(codes, [7, 8, 9], "{tier}");
        let ids: Vec<_> = exits.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids[..2], [first, second], "{tier}");
        assert!(!ids[..2].contains(&ids[2]), "{tier}: the third is an instance of its own");
    }
}
