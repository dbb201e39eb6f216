//! The real binary where no system call is newer than Linux 3.10, the kernel of `CentOS` 7.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use shared_model::{CollectorOutcome, Tier};

use crate::program::{output, valid_report};
use crate::run::{Running, bytes_below, enrolled};
use crate::support::{TestDir, compiled, wait_for};

/// A command of the agent that runs so.
fn agent(directory: &Path) -> Command {
    let wrapper: PathBuf = compiled("old_kernel", directory);
    let mut command = Command::new(wrapper);
    command.env_clear().arg(env!("CARGO_BIN_EXE_procfleet-agent"));
    command
}

#[test]
fn one_look_has_everything_that_such_a_kernel_tells() {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let directory = TestDir::new();
    let mut command = agent(&directory.0);
    command.env("PROCFLEET_AGENT_PROFILE__KEEP_ALL", "true");
    let (code, json, errors) = output(command.args(["once", "--interval", "200ms", "--json"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let report = valid_report(&json);
    for run in &report.agent.collectors {
        let expected = [CollectorOutcome::Ok, CollectorOutcome::NoData];
        assert!(expected.contains(&run.outcome), "{run:?}");
        assert_ne!(run.tier, Tier::A, "{run:?}");
    }
    assert!(report.host.cpu_user_us.is_some() && report.host.processes_total > Some(1));
    let own = report.instance_definitions.iter().find(|row| row.pid == std::process::id()).unwrap();
    assert!(own.executable_path.is_some() && own.cgroup.is_some() && own.user_id.is_some());
    let row = report.processes.iter().find(|row| row.instance_id == own.instance_id).unwrap();
    assert!(row.cpu_user_us.is_some() && row.disk_read_bytes.is_some());
    assert!(!geteuid().is_root() || row.network_receive_bytes.is_some(), "{row:?}");
}

#[test]
fn reports_are_spooled_and_the_end_is_orderly() {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let directory = TestDir::new();
    let state = directory.0.join("state");
    std::fs::create_dir(&state).unwrap();
    enrolled(&state);
    let mut command = agent(&directory.0);
    command.arg("run").stdout(Stdio::null());
    command.env("PROCFLEET_AGENT_STATE_DIR", &state).env("PROCFLEET_AGENT_INTERVAL_MS", "200");
    let mut agent = Running(command.spawn().unwrap());
    let mut before = 0;
    wait_for("a report after the first", || {
        assert!(agent.0.try_wait().unwrap().is_none(), "it ended by itself");
        let now = bytes_below(&state.join("spool"));
        let has_grown = before > 0 && now > before;
        before = now;
        has_grown.then_some(())
    });
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    let status = wait_for("the agent's end", || agent.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}
