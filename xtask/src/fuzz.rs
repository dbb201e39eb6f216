//! `cargo xtask fuzz`: runs the targets of `fuzz/`, one after the other.
//!
//! cargo-fuzz is installed under `.procfleet/tools` when it is missing, in the version named here.
//! The stable toolchain builds the targets (`RUSTC_BOOTSTRAP=1` unlocks the coverage flags); without
//! sanitizers, because the parsers are safe Rust: what is looked for are panics, overflows and broken
//! promises. New inputs are kept under `.procfleet/fuzz/`; `fuzz/corpus/` only holds those that were
//! committed by hand.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::project::Project;
use crate::run::{captured, cargo, shown};

/// Of cargo-fuzz.
const VERSION: &str = "0.13.2";
/// Longest input tried, bytes: more than any interesting path through a parser needs.
const MAX_INPUT_BYTES: usize = 20_000;
/// Memory a target may take, MiB: what grows without bound is found by it.
const MEMORY_MIB: usize = 1024;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this target.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    project.prepare()?;
    install(project)?;
    let all = targets(project)?;
    let chosen: Vec<_> = match &arguments.target {
        Some(target) => {
            ensure!(all.contains(target), "no target {target}: there are {}", all.join(", "));
            vec![target.clone()]
        }
        None => all,
    };
    for target in chosen {
        eprintln!("── {target}, {} s", arguments.seconds);
        if !fuzz(project, &target, arguments.seconds)? {
            bail!("{target} failed: the input is named above");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every target, by the files of `fuzz/fuzz_targets`.
fn targets(project: &Project) -> Result<Vec<String>> {
    let directory = project.root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn install(project: &Project) -> Result<()> {
    let known = captured(tool(project).arg("--version")).unwrap_or_default();
    if known.trim().ends_with(VERSION) {
        return Ok(());
    }
    let mut command = cargo(project);
    command.args(["install", "cargo-fuzz", "--locked", "--version", VERSION, "--root"]);
    let status = shown(command.arg(project.private("tools")))?;
    ensure!(status.success(), "cargo-fuzz could not be installed");
    Ok(())
}

fn tool(project: &Project) -> Command {
    let mut command = Command::new(project.private("tools/bin/cargo-fuzz"));
    command.arg("fuzz").current_dir(&project.root).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Whether `target` survived.
fn fuzz(project: &Project, target: &str, seconds: u32) -> Result<bool> {
    let found = project.private("fuzz").join(target);
    fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
    let mut command = tool(project);
    command.args(["run", "--fuzz-dir", "fuzz", "--sanitizer", "none", "--target-dir"]);
    command.arg(project.target().join("fuzz")).arg(target).arg(found);
    command.arg(project.root.join("fuzz/corpus").join(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_INPUT_BYTES}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).args(["-timeout=5", "-print_final_stats=1"]);
    Ok(shown(&mut command)?.success())
}
