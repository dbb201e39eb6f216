//! The real binary, as people and init systems start it.

use std::fs;
use std::process::{Command, Output, Stdio};

use rustix::process::geteuid;
use shared_model::{CollectorOutcome, Record, Report};
use uuid::Uuid;

use crate::support::TestDir;

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_procfleet-agent"));
    command.env_clear();
    command
}

pub(crate) fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// What `once --format json` printed, checked as the server would.
pub(crate) fn valid_report(json: &str) -> Report {
    let report: Report = serde_json::from_str(json).unwrap();
    let record = Record::Report(Box::new(report.clone()));
    record.validate().unwrap();
    assert_eq!(Record::decode(record.encode().trim_ascii_end()).unwrap(), record);
    report
}

#[test]
fn one_look_as_json_is_the_contract() {
    let (code, json, errors) = output(program().args(["once", "--interval", "200ms", "--json"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let report = valid_report(&json);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(report.host.memory_total_bytes, Some(total * 1024));
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(report.boot_id, boot_id.trim().parse::<Uuid>().unwrap());
    assert!(report.interval_ms >= 200);
    assert!(report.host.cpu_user_us.is_some() && report.host.context_switches.is_some());
    assert!(report.agent.cpu_us.is_some() && report.agent.memory_usage_bytes.is_some());
    assert!(report.network_interfaces.iter().any(|row| row.interface == "lo"));
    for run in &report.agent.collectors {
        let expected = [CollectorOutcome::Ok, CollectorOutcome::NoData];
        assert!(expected.contains(&run.outcome), "{run:?}");
    }
}

#[test]
fn one_look_as_a_table_names_this_host() {
    let (code, table, errors) = output(program().args(["once", "--interval", "200ms"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let uname = rustix::system::uname();
    for expected in [
        uname.nodename().to_str().unwrap(),
        uname.release().to_str().unwrap(),
        "MEMORY",
        "MOUNTED ON",
        "INTERFACE",
    ] {
        assert!(table.contains(expected), "{expected} is not in\n{table}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = program()
        .args(["once", "--interval", "200ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_configuration_that_is_wrong_names_the_key() {
    let directory = TestDir::new();
    let file = directory.0.join("agent.toml");
    let check = |text: &str, variable: (&str, &str), expected: &str| {
        fs::write(&file, text).unwrap();
        let mut command = program();
        command.arg("--config").arg(&file).args(["config", "check"]);
        command.env(variable.0, variable.1);
        let (code, _, errors) = output(&mut command);
        assert_eq!(code, Some(78), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    };
    check("[profile]\ntopp = 3\n", ("UNUSED", ""), "`topp`");
    check("interval_ms = \n", ("UNUSED", ""), "agent.toml");
    check("", ("PROCFLEET_AGENT_INTERVALL_MS", "3"), "`intervall_ms`");
    check("", ("PROCFLEET_AGENT_INTERVAL_MS", "3"), "interval_ms");
    check("", ("PROCFLEET_AGENT_SPOOL__MAX_BYTES", "3"), "spool.max_bytes");
}

#[test]
fn a_configuration_that_was_asked_for_must_exist() {
    let (code, _, errors) =
        output(program().args(["--config", "/nonexistent/agent.toml", "config", "check"]));
    assert_eq!(code, Some(78));
    assert!(errors.contains("/nonexistent/agent.toml does not exist"), "{errors}");
}

#[test]
fn the_environment_goes_before_the_file() {
    let directory = TestDir::new();
    let file = directory.0.join("agent.toml");
    fs::write(&file, "interval_ms = 3\nendpoints = [\"https://a:1\"]\n").unwrap();
    let mut command = program();
    command.arg("--config").arg(&file).args(["config", "check"]);
    command.env("PROCFLEET_AGENT_INTERVAL_MS", "1000");
    command.env("PROCFLEET_AGENT_ENDPOINTS", "https://b:1,https://c:1");
    let (code, text, errors) = output(&mut command);
    assert_eq!((code, text.as_str()), (Some(0), "the configuration is usable\n"), "{errors}");
}

#[test]
fn every_value_says_where_it_comes_from() {
    let directory = TestDir::new();
    let (file, limits) = (directory.0.join("agent.toml"), directory.0.join("limits.toml"));
    let text =
        format!("limits_file = {limits:?}\nstate_dir = {:?}\n[profile]\ntop = 3", directory.0);
    fs::write(&file, text).unwrap();
    fs::write(&limits, "min_interval_ms = 5000").unwrap();
    let told =
        r#"{"hash": "", "configuration": {"interval_ms": 1000, "redaction": {"patterns": ["x"]}}}"#;
    let kept = format!(r#"{{"last_good": {told}}}"#);
    fs::write(directory.0.join("configuration.json"), kept).unwrap();
    let show = |arguments: &[&str]| {
        let mut command = program();
        command.arg("--config").arg(&file).args(["config", "show"]).args(arguments);
        command.env("PROCFLEET_AGENT_COLLECT__DISABLED", "load,pressure");
        let (code, text, errors) = output(&mut command);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>()
    };
    let has = |lines: &[String], line: &str| {
        assert!(lines.iter().any(|it| it == line), "{line} is not in {lines:#?}");
    };
    let own = show(&[]);
    has(&own, "interval_ms default 30000");
    has(&own, "profile.top file 3");
    has(&own, r#"collect.disabled variable ["load","pressure"]"#);
    let effective = show(&["--effective"]);
    has(&effective, "interval_ms limit 5000");
    has(&effective, r#"redaction.patterns centre ["x"]"#);
    has(&effective, "profile.top file 3");

    fs::write(&limits, "min_interval = 5000").unwrap();
    let mut command = program();
    let (code, _, errors) = output(command.arg("--config").arg(&file).args(["config", "check"]));
    assert_eq!(code, Some(78));
    assert!(errors.contains("limits.toml") && errors.contains("`min_interval`"), "{errors}");
}

#[test]
fn a_host_that_is_not_enrolled_is_told_how() {
    let directory = TestDir::new();
    let (code, _, errors) =
        output(program().arg("run").env("PROCFLEET_AGENT_STATE_DIR", &directory.0));
    assert_eq!(code, Some(3));
    assert!(errors.contains("procfleet-agent enroll"), "{errors}");
}

#[test]
fn wrong_usage_is_said_before_anything_runs() {
    let (code, _, errors) = output(program().args(["once", "--interval", "fast"]));
    assert_eq!(code, Some(2));
    assert!(errors.contains("--interval"), "{errors}");
}

/// A FUSE file system whose daemon never answers, in a mount namespace of the test's own.
#[test]
fn a_dead_mount_is_a_row_of_nulls_and_nothing_else() {
    let directory = TestDir::new();
    let script = r#"exec 3<>/dev/fuse &&
        mount -i -t fuse.dead -o fd=3,rootmode=40000,user_id=0,group_id=0 dead "$1" &&
        exec "$2" once --interval 200ms --format json"#;
    let mut command = Command::new("unshare");
    command.arg(if geteuid().is_root() { "-m" } else { "-rm" });
    command.args(["sh", "-c", script, "sh"]).arg(&directory.0);
    command.arg(env!("CARGO_BIN_EXE_procfleet-agent"));
    let (code, json, errors) = output(&mut command);
    assert_eq!(code, Some(0), "{errors}");
    let report = valid_report(&json);
    let path = directory.0.to_str().unwrap();
    let dead = report.filesystems.iter().find(|row| row.mount_point == path).unwrap();
    assert_eq!((dead.total_bytes, dead.inodes_total), (None, None));
    assert!(report.filesystems.iter().any(|row| row.total_bytes.is_some()), "the others are there");
    assert_eq!(report.agent.losses.get("filesystem_late"), Some(&2), "once at the baseline");
    assert!(report.agent.collectors.iter().all(|run| run.outcome != CollectorOutcome::Late));
}

#[test]
fn shells_complete_its_words_whatever_the_configuration() {
    let dir = TestDir::new();
    let broken = dir.0.join("agent.toml");
    fs::write(&broken, "no such key = 1").unwrap();
    let (code, script, errors) =
        output(program().args(["completions", "bash", "--config"]).arg(&broken));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let words = "COMP_WORDS=(procfleet-agent conf) COMP_CWORD=1
        completer=$(complete -p procfleet-agent); completer=${completer#*-F }
        ${completer%% *} procfleet-agent conf procfleet-agent; echo ${COMPREPLY[@]}";
    let (code, offered, errors) =
        output(Command::new("bash").args(["--norc", "-c", &format!("{script}\n{words}")]));
    assert_eq!((code, offered.trim(), errors.as_str()), (Some(0), "config", ""));
    for (shell, sign) in
        [("zsh", "#compdef procfleet-agent"), ("fish", "complete -c procfleet-agent")]
    {
        assert!(output(program().args(["completions", shell])).1.contains(sign), "{shell}");
    }
}
