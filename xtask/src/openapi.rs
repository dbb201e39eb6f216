//! `cargo xtask openapi`: `openapi.yaml` is what the server's own routes say.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::project::Project;
use crate::run::{captured, cargo};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail if the file is not what it should be.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let path = project.root.join("openapi.yaml");
    let fresh = generate(project)?;
    if std::fs::read_to_string(&path).is_ok_and(|committed| committed == fresh) {
        println!("openapi.yaml is fresh");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        println!("openapi.yaml is outdated: run `cargo xtask openapi` and commit it");
        return Ok(ExitCode::FAILURE);
    }
    std::fs::write(&path, fresh).context("write openapi.yaml")?;
    println!("openapi.yaml written");
    Ok(ExitCode::SUCCESS)
}

/// For `tidy`.
pub(crate) fn is_fresh(project: &Project) -> Result<bool> {
    let fresh = generate(project)?;
    Ok(std::fs::read_to_string(project.root.join("openapi.yaml")).is_ok_and(|text| text == fresh))
}

fn generate(project: &Project) -> Result<String> {
    let mut command = cargo(project);
    command.args(["run", "--quiet", "--locked", "--package=collector-api", "--", "openapi"]);
    captured(&mut command).context("ask the server for its API description")
}
