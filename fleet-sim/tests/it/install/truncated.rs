//! A script that did not arrive whole runs nothing.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use fleet_sim::child::Directory;

use super::machine::said;

/// Runs the first `length` bytes where no program can be found: what is run says so.
fn run(shell: &[&str], directory: &Directory, script: &[u8]) -> Result<Output> {
    let file = directory.path().join("script");
    fs::write(&file, script)?;
    let empty = directory.path().join("empty");
    fs::create_dir_all(&empty)?;
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(&file).current_dir(&empty).env_clear().env("PATH", &empty);
    let output = command.output()?;
    ensure!(fs::read_dir(&empty)?.next().is_none(), "something was made");
    Ok(output)
}

#[tokio::test]
async fn a_script_that_was_cut_off_runs_nothing() -> Result<()> {
    let mirror = super::Mirror::start("install-truncated").await?;
    let script = mirror.script().await?.into_bytes();
    let directory = Directory::create("truncated")?;
    let last = script.len() - 100;
    for shell in [&["/bin/dash"][..], &["/bin/bash"], &["/bin/bash", "--posix"]] {
        let whole = said(&run(shell, &directory, &script)?);
        ensure!(whole.contains("not found"), "the whole script looks for programs: {whole}");
        for length in (0..last).step_by(100).chain(last..=script.len() - 2) {
            let output = run(shell, &directory, &script[..length])?;
            let told = said(&output);
            let ran = told.contains("not found") || told.contains("procfleet:");
            ensure!(!ran && output.stdout.is_empty(), "{shell:?}, {length} bytes: {told}");
        }
    }
    Ok(())
}
