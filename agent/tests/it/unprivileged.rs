//! The real binary without privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;
use shared_model::{CollectorOutcome, Tier};

use crate::program::{output, valid_report};
use crate::support::TestDir;

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
        assert!(row.cpu_user_us.is_some() && row.memory_usage_bytes.is_some(), "{row:?}");
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
