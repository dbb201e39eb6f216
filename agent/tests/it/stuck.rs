//! A process whose command line hangs whoever reads it, and what it costs the others.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use shared_model::CollectorOutcome;

use crate::program::valid_report;
use crate::support::TestDir;

/// Killed with the test; its mount goes with its namespace.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The helper, compiled by what also compiles our dependencies.
fn helper(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hold_mm.c");
    let program = directory.join("hold_mm");
    let status = Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(source).status();
    assert!(status.unwrap().success(), "cc is needed");
    program
}

#[test]
fn a_process_whose_memory_is_locked_delays_nobody() {
    let directory = TestDir::new();
    let mount = directory.0.join("mount");
    std::fs::create_dir(&mount).unwrap();
    let mut command = Command::new("unshare");
    command.arg(if geteuid().is_root() { "-m" } else { "-rm" });
    command.arg("--").arg(helper(&directory.0)).arg(&mount);
    let mut target = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(target.0.stdout.take().unwrap()).lines();
    let pid: u32 = lines.next().unwrap().unwrap().parse().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "held");

    let started = Instant::now();
    let mut command = crate::program::program();
    command.args(["once", "--interval", "200ms", "--json"]).stdout(Stdio::piped());
    command.env("PROCFLEET_AGENT_PROFILE__KEEP_ALL", "true");
    let mut agent = Running(command.spawn().unwrap());
    let mut json = String::new();
    // One line: the program itself cannot end before the thread that hangs.
    BufReader::new(agent.0.stdout.take().unwrap()).read_line(&mut json).unwrap();
    let took = started.elapsed();
    let report = valid_report(&json);
    // Ends the file system, so that the page fault fails and everybody goes on.
    drop(target);

    let instance = report.instance_definitions.iter().find(|row| row.pid == pid).unwrap();
    let is_it = |row: &&shared_model::ProcessDefinition| row.process_id == instance.process_id;
    let process = report.process_definitions.iter().find(is_it).unwrap();
    assert_eq!(process.command_line, "[hold_mm]", "the one field that is not known");
    let row = report.processes.iter().find(|row| row.instance_id == instance.instance_id);
    assert!(row.unwrap().cpu_user_us.is_some() && row.unwrap().memory_usage_bytes.is_some());
    assert!(report.agent.losses.contains_key("process_details_late"), "{:?}", report.agent.losses);
    for run in &report.agent.collectors {
        assert_ne!(run.outcome, CollectorOutcome::Late, "{run:?}");
    }
    let own = report.instance_definitions.iter().find(|row| row.pid == std::process::id()).unwrap();
    let is_own = |row: &&shared_model::ProcessDefinition| row.process_id == own.process_id;
    let own = report.process_definitions.iter().find(is_own).unwrap();
    assert!(!own.command_line.starts_with('['), "the others' are read: {}", own.command_line);
    // Far below the deadline of the collector; how loaded the machine is, nobody knows.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
