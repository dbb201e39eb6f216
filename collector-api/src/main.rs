//! The `procfleet-server` program.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use collector_api::cli::{Cli, exit_code};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr_or_stdout(&cli);
    // Variables that are not Unicode cannot be ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run(environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The server logs to stdout, JSON unless it is a terminal. The other commands keep stdout for what
/// they print.
fn log_to_stderr_or_stdout(cli: &Cli) {
    // After an outage thousands wait for a connection at once, and a line for each would help nobody.
    let usual = || EnvFilter::new("info,sqlx::pool::acquire=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    if !cli.serves() {
        let ansi = std::io::stderr().is_terminal();
        builder
            .with_writer(std::io::stderr)
            .with_ansi(ansi)
            .without_time()
            .with_target(false)
            .init();
    } else if std::io::stdout().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
