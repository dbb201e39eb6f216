//! `cargo xtask ci`: every check, each with its time; all of them run even if one fails.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::project::Project;
use crate::run::{cargo, shown};
use crate::{apt, test, tidy, web};

/// A check of ours; it prints what it finds.
type Check = fn(&Project) -> Result<()>;

/// In this order: cheap first, the page before what embeds it; clippy and doc share their dependencies' metadata, tidy and test
/// their build.
const CHECKS: [(&str, Check); 6] = [
    ("fmt", fmt),
    ("web", web::ensure),
    ("clippy", clippy),
    ("doc", doc),
    ("test", tests),
    ("tidy", tidy_all),
];

pub(crate) fn run(project: &Project) -> ExitCode {
    let mut times: Vec<(&str, Duration, bool)> = Vec::new();
    for (name, check) in CHECKS {
        eprintln!("── {name}");
        let started = Instant::now();
        let outcome = check(project);
        if let Err(error) = &outcome {
            eprintln!("{name}: {error:#}");
        }
        times.push((name, started.elapsed(), outcome.is_ok()));
    }
    eprintln!("──");
    for (name, time, good) in &times {
        eprintln!(
            "{:>6} {:>7.1} s  {name}",
            if *good { "ok" } else { "FAILED" },
            time.as_secs_f64()
        );
    }
    let good = times.iter().all(|(_, _, good)| *good);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fmt(project: &Project) -> Result<()> {
    demand(project, &["fmt", "--all", "--", "--check"])
}

fn clippy(project: &Project) -> Result<()> {
    apt::ensure_clang()?;
    demand(project, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

fn doc(project: &Project) -> Result<()> {
    let mut command = cargo(project);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    if shown(&mut command)?.success() { Ok(()) } else { bail!("see above") }
}

fn tidy_all(project: &Project) -> Result<()> {
    if tidy::everything(project)? { Ok(()) } else { bail!("see above") }
}

fn tests(project: &Project) -> Result<()> {
    if test::everything(project)? == ExitCode::SUCCESS { Ok(()) } else { bail!("see above") }
}

fn demand(project: &Project, arguments: &[&str]) -> Result<()> {
    if shown(cargo(project).args(arguments))?.success() { Ok(()) } else { bail!("see above") }
}
