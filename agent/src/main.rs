//! The `procfleet-agent` program.
//!
//! Exit codes: 0 done, or stopped by a signal after a clean end; 1 failed; 2 wrong usage; 3 the host is
//! not enrolled, or with the identity of another machine; 78 the configuration is not usable.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use agent::agent::delivered::delivered;
use agent::agent::run::{RunError, run, say_goodbye};
use agent::agent::start;
use agent::cli::{Cli, Command, ConfigCommand};
use agent::config::layers::Local;
use agent::config::{Config, ConfigError};
use agent::enroll::Enrolled;
use agent::logs::log;
use agent::once::{Format, once};
use agent::show::show;
use agent::top::top;
use agent::updates;
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With a closed standard error there is nobody left to tell.
            drop(writeln!(io::stderr(), "procfleet-agent: {error:#}"));
            exit_code(&error)
        }
    }
}

fn execute(cli: &Cli) -> anyhow::Result<()> {
    if let Some(text) = cli.command.document() {
        return say(text?.trim_end());
    }
    let local = Local::load(cli.config.as_deref())?;
    let config = local.with(None)?.config;
    match &cli.command {
        Command::Run => {
            log(io::stdout, io::stdout().is_terminal(), "info");
            run(local)?;
        }
        Command::Enroll { token_file } => enroll_host(&config, token_file.as_deref())?,
        Command::Rebind => {
            let identity = start::rebind(&config)?;
            say(&format!("this machine is {} from now on", identity.host_id))?;
        }
        Command::Once { interval, format, json } => {
            log(io::stderr, true, "error");
            once(&config, *interval, if *json { Format::Json } else { *format })?;
        }
        // A line of a log would stand on the picture: what fails is in the report.
        Command::Top { interval } => top(&config, *interval)?,
        Command::Goodbye { reason } => {
            anyhow::ensure!(say_goodbye(&config, (*reason).into())?, "no server heard the goodbye");
        }
        Command::Delivered { more_than, wait } => {
            say(&delivered(&config, *more_than, wait.unwrap_or_default())?.to_string())?;
        }
        Command::Config(ConfigCommand::Check) => say("the configuration is usable")?,
        Command::Config(ConfigCommand::Show { effective, format }) => {
            say(show(&local, *effective, *format)?.trim_end())?;
        }
        Command::Update(command) => {
            log(io::stderr, io::stderr().is_terminal(), "info");
            if let Some(said) = updates::execute(command, &config, cli.config.clone())? {
                say(&said)?;
            }
        }
        // Need no configuration: printed above.
        Command::Completions { .. } | Command::Man { .. } => {}
    }
    Ok(())
}

fn enroll_host(config: &Config, token_file: Option<&Path>) -> anyhow::Result<()> {
    log(io::stderr, true, "info");
    match start::enroll_by_hand(config, token_file)? {
        Enrolled::Already(identity) => say(&format!("already enrolled as {}", identity.host_id)),
        Enrolled::New(identity) => say(&format!("enrolled as {}", identity.host_id)),
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        return ExitCode::from(78);
    }
    let run = error.downcast_ref::<RunError>();
    run.map_or(ExitCode::FAILURE, |error| ExitCode::from(error.exit_code()))
}
