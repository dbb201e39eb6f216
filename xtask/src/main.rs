//! Every developer command: `cargo xtask --help`.
//!
//! Light on purpose: it starts in seconds on a machine that has only Rust, and everything else it
//! needs it installs, builds or says. Everything it creates lives under `.procfleet/`.

use clap::Parser;

mod apt;
mod bench;
mod ci;
mod command;
mod db;
mod dist;
mod down;
mod fuzz;
mod grafana;
mod http;
mod logs;
mod openapi;
mod packages;
mod portable;
mod postgres;
mod process;
mod progress;
mod project;
mod run;
mod schemathesis;
mod sqlx;
mod state;
mod status;
mod test;
mod tidy;
mod up;
mod web;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Procfleet's developer commands", version)]
struct Arguments {
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let outcome = project::Project::locate().and_then(|project| arguments.command.run(&project));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
