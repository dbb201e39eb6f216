//! A process whose command line hangs whoever reads it, a mount that never answers, and what they cost the others.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use shared_model::{CollectorOutcome, FilesystemSample, Report, Tier};

use crate::program::valid_report;
use crate::support::{TestDir, compiled};

/// Killed with the test; its mount goes with its namespace.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A process that holds, and its pid.
fn hold(directory: &TestDir, mount: &Path) -> (Running, u32) {
    let mut command = Command::new("unshare");
    command.arg(if geteuid().is_root() { "-m" } else { "-rm" });
    command.arg("--").arg(compiled("hold_mm", &directory.0)).arg(mount);
    let mut target = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(target.0.stdout.take().unwrap()).lines();
    let pid: u32 = lines.next().unwrap().unwrap().parse().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "held");
    (target, pid)
}

/// What the agent reports on a tier while `target` hangs, seen from where its mount is seen (as root).
fn report_beside(target: Running, pid: u32, tier: &str) -> Report {
    let started = Instant::now();
    let mut command = Command::new("nsenter");
    command.env_clear().arg(format!("--mount=/proc/{pid}/ns/mnt"));
    command.arg(env!("CARGO_BIN_EXE_procfleet-agent"));
    if !geteuid().is_root() {
        command = crate::program::program();
    }
    command.args(["once", "--interval", "200ms", "--json"]).stdout(Stdio::piped());
    command.env("PROCFLEET_AGENT_PROFILE__KEEP_ALL", "true");
    command.env("PROCFLEET_AGENT_COLLECT__TIER", tier);
    let mut agent = Running(command.spawn().unwrap());
    let mut json = String::new();
    // One line: the program itself cannot end before the threads that hang.
    BufReader::new(agent.0.stdout.take().unwrap()).read_line(&mut json).unwrap();
    let took = started.elapsed();
    // Ends the file system, so that the page fault fails and everybody goes on.
    drop(target);
    // Far below the deadline of the collector; how loaded the machine is, nobody knows.
    assert!(took < Duration::from_secs(20), "{took:?}");
    valid_report(&json)
}

#[test]
fn a_process_whose_memory_is_locked_and_a_mount_that_hangs_delay_nobody() {
    for tier in ["auto", "proc"] {
        let directory = TestDir::new();
        let mount = directory.0.join("mount");
        std::fs::create_dir(&mount).unwrap();
        let (target, pid) = hold(&directory, &mount);
        let report = report_beside(target, pid, tier);

        let command_line_of = |pid: u32| {
            let instance = report.instance_definitions.iter().find(|row| row.pid == pid).unwrap();
            let is_it =
                |row: &&shared_model::ProcessDefinition| row.process_id == instance.process_id;
            let process = report.process_definitions.iter().find(is_it).unwrap();
            (instance.instance_id, process.command_line.clone())
        };
        let (instance_id, command_line) = command_line_of(pid);
        assert_eq!(command_line, "[hold_mm]", "the one field that is not known");
        let row = report.processes.iter().find(|row| row.instance_id == instance_id).unwrap();
        assert!(row.cpu_user_us.is_some() && row.memory_usage_bytes.is_some());
        let losses = &report.agent.losses;
        assert!(losses.contains_key("process_details_late"), "{losses:?}");
        for run in &report.agent.collectors {
            assert_ne!(run.outcome, CollectorOutcome::Late, "{run:?}");
        }
        let process = report.agent.collectors.iter().find(|run| run.collector == "process");
        let expected = if tier == "auto" { Tier::A } else { Tier::B };
        let has_bpf = geteuid().is_root();
        assert!(!has_bpf || process.unwrap().tier == expected, "{process:?}");
        let (_, own) = command_line_of(std::process::id());
        assert!(!own.starts_with('['), "the others' are read: {own}");
        if !geteuid().is_root() {
            continue;
        }
        let is_it = |row: &&FilesystemSample| Path::new(&row.mount_point) == mount;
        let row = report.filesystems.iter().find(is_it).unwrap();
        assert_eq!((row.total_bytes, row.available_bytes), (None, None), "what it did not say");
        assert!(losses.contains_key("filesystem_late"), "{losses:?}");
        assert!(report.filesystems.iter().any(|row| row.total_bytes.is_some()), "the others say");
    }
}
