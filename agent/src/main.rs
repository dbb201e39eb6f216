//! The `procfleet-agent` program.
//!
//! Exit codes: 0 done, or stopped by a signal after a clean end; 1 failed; 2 wrong usage; 3 the host is
//! not enrolled; 78 the configuration is not usable.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use agent::agent::run::{RunError, run, say_goodbye};
use agent::cli::{Cli, Command, ConfigCommand};
use agent::config::{Config, ConfigError};
use agent::enroll::{self, Enrolled};
use agent::identity::{Identity, IdentityError};
use agent::once::{Format, once};
use agent::procfs::Root;
use agent::top::top;
use clap::Parser;
use shared_model::Timestamp;
use tracing_subscriber::EnvFilter;

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
    let config = Config::load(cli.config.as_deref())?;
    match &cli.command {
        Command::Run => {
            log(io::stdout, io::stdout().is_terminal(), "info");
            run(&config)?;
        }
        Command::Enroll { token_file } => enroll_host(&config, token_file.as_deref())?,
        Command::Once { interval, format, json } => {
            log(io::stderr, true, "error");
            once(&config, *interval, if *json { Format::Json } else { *format })?;
        }
        // A line of a log would stand on the picture: what fails is in the report.
        Command::Top { interval } => top(&config, *interval)?,
        Command::Goodbye { reason } => {
            anyhow::ensure!(say_goodbye(&config, (*reason).into())?, "no server heard the goodbye");
        }
        Command::Config(ConfigCommand::Check) => say("the configuration is usable")?,
    }
    Ok(())
}

fn enroll_host(config: &Config, token_file: Option<&Path>) -> anyhow::Result<()> {
    log(io::stderr, true, "info");
    let directory = config.identity_dir();
    let token = match Identity::load(&directory) {
        Ok(identity) => return say(&format!("already enrolled as {}", identity.host_id)),
        Err(IdentityError::NotEnrolled(_)) => enroll::read_token(token_file)?,
        Err(error) => return Err(error.into()),
    };
    let facts = agent::facts::read(&Root::system());
    #[expect(clippy::disallowed_methods, reason = "enrolment happens once, now")]
    let now = Timestamp::now_utc();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let enrolled = runtime.block_on(enroll::enroll(&token, facts, &directory, now))?;
    token_file.map(enroll::remove_token).transpose()?;
    let (Enrolled::New(identity) | Enrolled::Already(identity)) = enrolled;
    say(&format!("enrolled as {}", identity.host_id))
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Text for people, JSON for a journal. `RUST_LOG` goes before `level`.
fn log<W>(writer: W, for_people: bool, level: &str)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if for_people {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        return ExitCode::from(78);
    }
    match error.downcast_ref::<RunError>() {
        Some(RunError::Identity(IdentityError::NotEnrolled(_))) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}
