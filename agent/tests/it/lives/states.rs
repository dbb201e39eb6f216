//! Processes in states that readers of processes get wrong, on both tiers.

use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::TestDir;

fn keep_all(tier: &str) -> Sampler {
    Sampler::start(&format!("[collect]\ntier = \"{tier}\"\n[profile]\nkeep_all = true"))
}

impl Sampler {
    /// The row of `pid` in the newest report.
    fn row(&self, pid: u32) -> Option<&ProcessSample> {
        let definitions = self.reports.iter().rev().flat_map(|it| &it.instance_definitions);
        let id = definitions.into_iter().find(|it| it.pid == pid)?.instance_id;
        self.reports.last()?.processes.iter().find(|row| row.instance_id == id)
    }
}

fn pid_of(child: &Running) -> Pid {
    Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap()
}

#[test]
fn exec_without_fork_is_the_same_instance_with_another_command_line() {
    for tier in TIERS {
        let mut sampler = keep_all(tier);
        let mut command = Command::new("bash");
        command.args(["-c", "read; exec sleep 1000"]).stdin(Stdio::piped());
        let mut child = Running(command.spawn().unwrap());
        let pid = child.0.id();
        wait_for("the shell", || {
            sampler.tick();
            sampler.command_line(pid).filter(|line| line.starts_with("bash -c")).map(drop)
        });
        drop(child.0.stdin.take());
        wait_for("what it executed", || {
            sampler.tick();
            sampler.command_line(pid).filter(|line| *line == "sleep 1000").map(drop)
        });
        let definitions = sampler.reports.iter().flat_map(|it| &it.instance_definitions);
        let mut ids: Vec<_> =
            definitions.filter(|it| it.pid == pid).map(|it| it.instance_id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "one instance, {tier}");
    }
}

#[test]
fn a_process_whose_first_thread_ended_still_counts() {
    let directory = TestDir::new();
    let (source, program) = (directory.0.join("leader.c"), directory.0.join("leader"));
    // On one CPU both threads together cannot use more than the time that passes.
    let text = "#define _GNU_SOURCE\n#include <pthread.h>\n#include <sched.h>\n
        #include <stdlib.h>\n#include <string.h>\n
        static void *burn(void *memory) { for (;;) memset(memory, 1, 1 << 24); return 0; }\n
        int main(void) { cpu_set_t one; CPU_ZERO(&one); CPU_SET(sched_getcpu(), &one);\n
        if (sched_setaffinity(0, sizeof one, &one)) return 1;\n
        pthread_t thread; pthread_create(&thread, 0, burn, malloc(1 << 24));\n
        pthread_exit(0); }\n";
    fs::write(&source, text).unwrap();
    let compiled = Command::new("cc").arg("-pthread").arg("-o").arg(&program).arg(&source).status();
    assert!(compiled.unwrap().success());
    for tier in TIERS {
        let mut sampler = keep_all(tier);
        let before = Instant::now();
        let child = Running(Command::new(&program).spawn().unwrap());
        let row = wait_for("its row without a first thread", || {
            sampler.tick();
            let state = fs::read_to_string(format!("/proc/{}/stat", child.0.id())).unwrap();
            sampler.tick();
            let row = sampler.row(child.0.id())?;
            let used = row.cpu_user_us.unwrap_or(0) + row.cpu_system_us.unwrap_or(0);
            (state.contains(") Z ") && used > 0).then(|| row.clone())
        });
        assert_eq!(row.thread_count, Some(2), "{tier}: the ended one is not released yet");
        // /proc says 0 of memory that is there: unknown.
        let memory = if tier == "auto" { row.memory_usage_bytes } else { None };
        assert_eq!(row.memory_usage_bytes.is_some_and(|bytes| bytes > 1 << 24), memory.is_some());
        assert_eq!(row.memory_usage_bytes.is_some(), tier == "auto", "{tier}");
        assert_eq!(sampler.exits_of_pid(child.0.id()).len(), 0, "{tier}");
        let pid = child.0.id();
        drop(child);
        let there_us = u64::try_from(before.elapsed().as_micros()).unwrap();
        let exit = wait_for("its end", || {
            sampler.tick();
            sampler.exits_of_pid(pid).first().map(|exit| (*exit).clone())
        });
        assert_eq!(exit.exit_signal, Some(9), "{tier}");
        let used = exit.totals.cpu_user_us.unwrap() + exit.totals.cpu_system_us.unwrap();
        let lifetime = exit.lifetime_us.unwrap();
        // Tier A counts what the kernel does in its name after the signal, taking its memory apart, until
        // it can be waited for; its lifetime ends before. Tier B hears of the end before that.
        let most = if tier == "auto" { there_us } else { lifetime };
        assert!(used > 0 && used <= most, "{tier}: {there_us} µs, {exit:?}");
        // Tier B knows the start to a clock tick.
        let tick_us = if tier == "auto" { 0 } else { 10_000 };
        assert!(lifetime <= there_us + tick_us, "{tier}: {there_us} µs, {exit:?}");
    }
}

#[test]
fn zombies_and_stopped_processes_have_rows_and_no_exit() {
    for tier in TIERS {
        let mut sampler = keep_all(tier);
        let mut command = Command::new("bash");
        // What the shell becomes never waits for its child.
        command.args(["-c", "sleep 2 & echo $!; exec sleep 1000"]).stdout(Stdio::piped());
        let mut parent = Running(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(parent.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let zombie: u32 = line.trim().parse().unwrap();
        wait_for("the zombie", || {
            let stat = fs::read_to_string(format!("/proc/{zombie}/stat")).unwrap();
            stat.contains(") Z ").then_some(())
        });
        kill_process(pid_of(&parent), Signal::STOP).unwrap();
        // The ends of what they did before may lie in the first intervals.
        wait_for("a quiet interval", || {
            sampler.tick();
            let rows = [sampler.row(zombie)?, sampler.row(parent.0.id())?];
            let quiet =
                |row: &&ProcessSample| (row.cpu_user_us, row.cpu_system_us) == (Some(0), Some(0));
            rows.iter().all(quiet).then_some(())
        });
        let row = sampler.row(zombie).unwrap();
        assert_eq!(row.memory_usage_bytes, Some(0), "{tier}");
        let stopped = sampler.row(parent.0.id()).unwrap();
        assert!(stopped.memory_usage_bytes.unwrap() > 0);
        let exits = |sampler: &Sampler| {
            let definitions = sampler.reports.iter().flat_map(|it| &it.instance_definitions);
            let ids: Vec<_> =
                definitions.filter(|it| it.pid == zombie).map(|it| it.instance_id).collect();
            let exits = sampler.reports.iter().flat_map(|it| &it.exits);
            exits.filter(|exit| ids.contains(&exit.instance_id)).count()
        };
        assert_eq!(exits(&sampler), 0, "a zombie was not waited for: {tier}");
        drop(parent);
        wait_for("its end", || {
            sampler.tick();
            (exits(&sampler) == 1).then_some(())
        });
    }
}

#[test]
fn kernel_threads_and_other_pid_namespaces_have_the_hosts_numbers() {
    for tier in TIERS {
        let mut sampler = keep_all(tier);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "sleep", "1001"]).process_group(0);
        let child = Running(command.spawn().unwrap());
        let inner = wait_for("the one in the namespace", || {
            let path = format!("/proc/{0}/task/{0}/children", child.0.id());
            let children = fs::read_to_string(path).unwrap();
            children.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok())
        });
        wait_for("its row", || {
            sampler.tick();
            sampler.row(inner)?;
            sampler.command_line(inner).filter(|line| *line == "sleep 1001").map(drop)
        });
        drop(child);
        let exit = wait_for("its end", || {
            sampler.tick();
            sampler.exits_of_pid(inner).first().map(|exit| (*exit).clone())
        });
        assert_eq!(exit.exit_signal, Some(9), "{tier}");
        assert_eq!(sampler.command_line(2), Some("[kthreadd]"), "{tier}");
        assert_eq!(sampler.row(2).unwrap().memory_usage_bytes, Some(0), "{tier}");
    }
}
