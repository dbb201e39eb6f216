//! The real binary without privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use shared_model::{CollectorOutcome, Tier};

use crate::program::{output, valid_report};
use crate::run::{Running, bytes_below, enrolled};
use crate::support::{TestDir, wait_for};

/// Lines that a start without privileges may log, at most: what the agent does, and what it lacks.
const MOST_LINES: usize = 12;

/// `nobody`.
const UNPRIVILEGED: u32 = 65_534;

/// A command as a user without privileges, and a copy of the program that it may execute.
fn unprivileged(directory: &Path) -> Command {
    let copy = directory.join("procfleet-agent");
    fs::copy(env!("CARGO_BIN_EXE_procfleet-agent"), &copy).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(copy);
    command.env_clear();
    if geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

#[test]
fn without_privileges_fields_are_unknown_and_one_line_says_so() {
    let directory = TestDir::new();
    let mut command = unprivileged(&directory.0);
    command.env("RUST_LOG", "info");
    let (code, json, log) =
        output(command.args(["once", "--interval", "200ms", "--format", "json"]));
    assert_eq!(code, Some(0), "{log}");
    let report = valid_report(&json);
    let process = report.agent.collectors.iter().find(|run| run.collector == "process").unwrap();
    assert_eq!((process.tier, process.outcome), (Tier::C, CollectorOutcome::Ok));
    let others: Vec<_> = report
        .instance_definitions
        .iter()
        .filter(|instance| instance.user_id == Some(0))
        .map(|instance| instance.instance_id)
        .collect();
    let rows: Vec<_> =
        report.processes.iter().filter(|row| others.contains(&row.instance_id)).collect();
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!((row.disk_read_bytes, row.disk_write_bytes), (None, None), "{row:?}");
        assert_eq!(
            (row.network_receive_bytes, row.network_transmit_bytes),
            (None, None),
            "{row:?}"
        );
        assert!(row.cpu_user_us.is_some(), "{row:?}");
        // Of a process whose first thread ended before the others it is not known.
        assert!(row.memory_usage_bytes.is_some() || row.thread_count > Some(1), "{row:?}");
    }
    assert!(report.host.cpu_user_us.is_some());
    assert_eq!((report.connections.len(), report.host.socket_receive_bytes), (0, None));
    assert_eq!(log.lines().filter(|line| line.contains("network use")).count(), 1, "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("privileges")).count(), 1, "{log}");

    let mut command = unprivileged(&directory.0);
    let (code, table, _) = output(command.args(["once", "--interval", "200ms"]));
    assert_eq!(code, Some(0));
    assert!(table.contains("Not running as root"), "{table}");
}

/// Gives all of `path` to the user without privileges.
fn give_away(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
}

#[test]
fn many_ticks_without_privileges_say_everything_once() {
    let directory = TestDir::new();
    let state = directory.0.join("state");
    fs::create_dir(&state).unwrap();
    enrolled(&state);
    give_away(&state);
    let mut command = unprivileged(&directory.0);
    command.arg("run").stdout(Stdio::piped());
    command.env("PROCFLEET_AGENT_STATE_DIR", &state).env("PROCFLEET_AGENT_INTERVAL_MS", "200");
    command.env("PROCFLEET_AGENT_BUDGET__CPU_CORES", "100");
    let mut agent = Running(command.spawn().unwrap());
    let mut sizes = BTreeSet::new();
    wait_for("ten reports", || {
        assert!(agent.0.try_wait().unwrap().is_none(), "it ended by itself");
        sizes.insert(bytes_below(&state.join("spool")));
        (sizes.len() > 10).then_some(())
    });
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    wait_for("the agent's end", || agent.0.try_wait().unwrap());
    let mut log = String::new();
    agent.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        // That nobody answers it is said by the uplink, and what is late depends on the machine.
        let of = line["target"].as_str().unwrap_or_default();
        let what = line["message"].as_str().unwrap_or_default();
        if of.contains("uplink") || what.contains("late") || what.contains("delivers again") {
            continue;
        }
        assert_ne!(line["level"], "ERROR", "{log}");
        let key = format!("{what} {}", line["collector"]);
        *seen.entry(key).or_default() += 1;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:#?}\n{log}");
    assert!((1..=MOST_LINES).contains(&seen.len()), "{seen:#?}");
    assert!(log.contains("privileges"), "{log}");
}
