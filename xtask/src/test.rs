//! `cargo xtask test`: builds everything, provides what tests need, runs them with nextest.
//!
//! The end is the runner's own summary and its exit code. In CI (`CI=true`) the `ci` profile of
//! nextest is used. Nothing is skipped anywhere: what is missing is installed or is an error.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};

use crate::postgres::{self, TestClusters};
use crate::project::Project;
use crate::run::{cargo, exists, shown};
use crate::{apt, progress::Step, schemathesis, web};

/// Programs that tests start, with their Debian packages.
pub(crate) const PROGRAMS: [(&str, &str); 14] = [
    ("busybox", "busybox-static"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("faketime", "faketime"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("lintian", "lintian"),
    ("mmdebstrap", "mmdebstrap"),
    ("nginx", "nginx"),
    ("pgbouncer", "pgbouncer"),
    ("rpmbuild", "rpm"),
    ("setpriv", "util-linux"),
    ("strace", "strace"),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed to `cargo nextest run`: filters, `--no-capture`, `-p CRATE`, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    require_nextest(project)?;
    apt::ensure(&PROGRAMS, "tests start it")?;
    apt::ensure_clang()?;
    web::ensure(project)?;
    schemathesis::ensure(project)?;
    build(project)?;
    with_databases(project, |variables| {
        let mut command = cargo(project);
        command.args(["nextest", "run", "--locked"]).envs(variables.iter().cloned());
        if !arguments.arguments.iter().any(|argument| is_package_choice(argument)) {
            command.arg("--workspace");
        }
        if is_ci() {
            command.arg("--profile=ci");
        }
        let status = shown(command.args(&arguments.arguments))?;
        Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from))
    })
}

/// Continuous integration.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

fn is_package_choice(argument: &str) -> bool {
    argument.starts_with("-p") || argument.starts_with("--package") || argument == "--workspace"
}

fn require_nextest(project: &Project) -> Result<()> {
    if exists("cargo-nextest")
        || cargo(project)
            .args(["nextest", "--version"])
            .output()
            .is_ok_and(|run| run.status.success())
    {
        return Ok(());
    }
    bail!(
        "cargo-nextest is missing: install it with `cargo install --locked cargo-nextest` (some minutes), or put a released binary into ~/.cargo/bin"
    );
}

/// The programs that end-to-end tests start, and the tests themselves, so that the runner starts at once.
fn build(project: &Project) -> Result<()> {
    for arguments in [&["build", "--bins"][..], &["test", "--no-run", "--quiet"]] {
        let step = Step::start(format!("cargo {} --workspace", arguments.join(" ")));
        let mut command = cargo(project);
        crate::run::captured(command.args(arguments).args(["--workspace", "--locked"]))?;
        step.done("");
    }
    Ok(())
}

/// Runs `work` with the variables that tests read: the caller's own, those of `cargo xtask db`, or
/// throw-away clusters that end with the work, also when it is interrupted.
pub(crate) fn with_databases<T>(
    project: &Project,
    work: impl FnOnce(&[(&'static str, String)]) -> Result<T>,
) -> Result<T> {
    let names = ["PROCFLEET_TEST_TIMESCALEDB_URL", "PROCFLEET_TEST_POSTGRESQL_URL"];
    if names.iter().all(|name| std::env::var_os(name).is_some()) {
        return work(&[]);
    }
    if let Some(variables) = postgres::released(project)? {
        return work(&variables);
    }
    outlive_interrupts()?;
    let clusters = TestClusters::start(project)?;
    work(&clusters.variables())
}

/// Ctrl-C reaches the runner, too; we wait for it and then clean up.
pub(crate) fn outlive_interrupts() -> Result<()> {
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// For `ci`: a step of its own that needs no arguments.
pub(crate) fn everything(project: &Project) -> Result<ExitCode> {
    run(project, &Arguments { arguments: Vec::new() })
}

/// Runs a program in the shell's way for callers outside: its name, shown, success demanded.
pub(crate) fn demand(command: &mut Command, what: &str) -> Result<()> {
    if shown(command)?.success() { Ok(()) } else { bail!("{what} failed") }
}
