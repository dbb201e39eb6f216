//! `cargo xtask bench`: release build, a durable TimescaleDB of its own (fsync on), and the
//! measurements of `fleet-sim`, whose tables go to stdout.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::project::Project;
use crate::{apt, postgres, test, up};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this one.
    which: Option<Which>,
    /// Passed to `fleet-sim`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Which {
    /// The agent's own cost at different numbers of processes.
    Agent,
    /// Silence among 100,000 hosts, rules over 10,000, and alerts told while replicas die.
    Alerts,
    /// Kills, stops and fills what 200 agents depend on; fails unless all is stored, once.
    Faults,
    /// 2,000 hosts for 10 minutes, then 10,000 at once.
    Fleet,
    /// Rows per second through the server against raw COPY.
    Ingest,
    /// How long operators' questions take over a month of a fleet.
    Query,
    /// Bytes per process sample on disk, and per row of its roll-ups.
    Storage,
    /// First paint and interactions of the web page on 1,000 hosts and 24 h.
    Web,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    anyhow::ensure!(
        arguments.which.is_some() || arguments.arguments.is_empty(),
        "arguments need the name of a benchmark before them: cargo xtask bench agent -- --ticks 5"
    );
    let _lock = project.lock()?;
    crate::web::ensure(project)?;
    up::build_shown(project, &["--workspace", "--bins"])?;
    let wanted = |which| arguments.which.is_none_or(|only| only == which);
    if wanted(Which::Agent) {
        test::demand(&mut fleet_sim(project, "bench-agent", arguments), "the agent's benchmark")?;
    }
    if wanted(Which::Alerts) {
        with_database(project, "bench-alerts", arguments)?;
    }
    if wanted(Which::Ingest) {
        with_database(project, "bench-ingest", arguments)?;
    }
    if wanted(Which::Query) {
        with_database(project, "bench-query", arguments)?;
    }
    if wanted(Which::Storage) {
        with_database(project, "bench-storage", arguments)?;
    }
    if wanted(Which::Web) {
        crate::apt::ensure(&[("chromium", "chromium")], "it shows the page")?;
        with_database(project, "bench-web", arguments)?;
    }
    if wanted(Which::Fleet) {
        with_database(project, "bench-fleet", arguments)?;
    }
    if wanted(Which::Faults) {
        apt::ensure(&test::PROGRAMS, "the fault suite uses it")?;
        test::demand(&mut fleet_sim(project, "faults", arguments), "the fault suite")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a benchmark with a durable database of its own.
fn with_database(project: &Project, benchmark: &str, arguments: &Arguments) -> Result<()> {
    test::outlive_interrupts()?;
    let cluster = postgres::durable(project, "bench", None)?;
    let mut command = fleet_sim(project, benchmark, arguments);
    let outcome = test::demand(
        command.env("PROCFLEET_BENCH_DATABASE_URL", cluster.url("procfleet")),
        benchmark,
    );
    cluster.destroy()?;
    outcome
}

fn fleet_sim(project: &Project, command: &str, arguments: &Arguments) -> Command {
    let mut fleet_sim = Command::new(project.target().join("release/fleet-sim"));
    fleet_sim.arg(command).args(&arguments.arguments).current_dir(&project.root);
    fleet_sim
}
