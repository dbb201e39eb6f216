//! `cargo xtask db`: the test databases for an afternoon of running single tests by hand.

use std::process::ExitCode;

use anyhow::Result;

use crate::postgres::{self, TestClusters};
use crate::project::Project;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Start them unless they run, and print the variables (the default): eval "$(cargo xtask db)".
    Up,
    /// Stop and delete them.
    Down,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let _lock = project.lock()?;
    if matches!(arguments.action, Some(Action::Down)) {
        if !postgres::stop_released(project)? {
            eprintln!("No test databases were running.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let variables = if let Some(variables) = postgres::released(project)? {
        variables
    } else {
        postgres::stop_released(project)?;
        let clusters = TestClusters::start(project)?;
        let variables = clusters.variables();
        clusters.release(project)?;
        variables
    };
    for (name, value) in variables {
        println!("export {name}={value}");
    }
    Ok(ExitCode::SUCCESS)
}
