//! `fleet-sim run`: a fleet against a server that runs already.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use shared_model::{JoinToken, Timestamp};
use sqlx::{Connection as _, PgConnection};

use super::{Mishaps, Population, RunningFleet, check, enroll};
use crate::simulated::install_crypto;
use crate::simulated::plan::Shape;

/// Between two lines of progress on a terminal, and elsewhere.
const PROGRESS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// Who takes part, for how long, and what goes wrong.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// File with an enrolment token (`procfleet-server tokens create --secret-file FILE`).
    #[arg(long)]
    token_file: PathBuf,
    /// Simulated hosts.
    #[arg(long, default_value_t = 100)]
    agents: u64,
    /// The same seed makes the same hosts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds to run, after enrolment.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Between two reports of a host, milliseconds.
    #[arg(long, default_value_t = Shape::HOST.interval_ms)]
    interval_ms: u32,
    /// Processes kept per report.
    #[arg(long, default_value_t = Shape::HOST.processes)]
    processes: u32,
    /// Processes of a host.
    #[arg(long, default_value_t = Shape::HOST.processes_total)]
    processes_total: u32,
    /// Each kept process is replaced this often, in reports.
    #[arg(long, default_value_t = Shape::HOST.churn)]
    churn: u64,
    /// Each host restarts this often, in reports; 0: never.
    #[arg(long, default_value_t = Shape::HOST.restart_every)]
    restart_every: u64,
    /// Distinct command lines of the fleet.
    #[arg(long, default_value_t = Shape::HOST.command_lines)]
    command_lines: u64,
    /// Clocks are off by up to this much.
    #[arg(long, default_value_t = 0)]
    clock_skew_ms: u64,
    /// Reports each agent has in its spool at the start.
    #[arg(long, default_value_t = 0)]
    backlog: u64,
    /// Chance in a thousand per report to be cut off for five intervals.
    #[arg(long, default_value_t = 0)]
    late: u64,
    /// Chance in a thousand per report to send again what was acknowledged.
    #[arg(long, default_value_t = 0)]
    duplicate: u64,
    /// Chance in a thousand per report to die with a request on its way.
    #[arg(long, default_value_t = 0)]
    crash: u64,
    /// Seconds the fleet may take to send the rest.
    #[arg(long, default_value_t = 120)]
    drain_seconds: u64,
    /// Compare what the database holds with what was made; the database must have been empty.
    #[arg(long, env = "PROCFLEET_CHECK_DATABASE_URL", hide_env_values = true)]
    check_database_url: Option<String>,
    /// Hosts compared column by column; the others by counts and sums.
    #[arg(long, default_value_t = 10)]
    check_in_full: usize,
}

impl Arguments {
    fn population(&self) -> Population {
        let shape = Shape {
            processes: self.processes,
            processes_total: self.processes_total.max(self.processes + 1),
            interval_ms: self.interval_ms.max(1),
            churn: self.churn.max(1),
            restart_every: self.restart_every,
            command_lines: self.command_lines,
        };
        let mishaps = Mishaps { late: self.late, duplicate: self.duplicate, crash: self.crash };
        let calm = Population::calm(self.agents, shape);
        Population { seed: self.seed, clock_skew_ms: self.clock_skew_ms, mishaps, ..calm }
    }
}

/// Runs it and prints a summary as JSON, with the oracle's verdict where a database was named.
pub async fn run(arguments: Arguments) -> Result<()> {
    install_crypto();
    let token: JoinToken = std::fs::read_to_string(&arguments.token_file)
        .with_context(|| format!("read {}", arguments.token_file.display()))?
        .trim()
        .parse()
        .context("parse the token")?;
    let population = arguments.population();
    let interval = Duration::from_millis(u64::from(population.shape.interval_ms));
    let backlog = u32::try_from(arguments.backlog).context("so large a backlog")?;
    let started_at = now() - interval * (backlog + 1);
    let started = Instant::now();
    let mut agents = enroll(&token, &population, 0..arguments.agents, started_at).await?;
    let enrolled = started.elapsed();
    eprintln!("{} hosts enrolled in {:.1} s", agents.len(), enrolled.as_secs_f64());
    for agent in &mut agents {
        agent.produce(arguments.backlog);
    }
    let running = RunningFleet::start(agents, population.mishaps);
    show_progress(&running, Duration::from_secs(arguments.seconds)).await;
    let totals = std::sync::Arc::clone(&running.totals);
    let draining = Instant::now();
    let agents = running.finish(Duration::from_secs(arguments.drain_seconds)).await?;
    let drained = draining.elapsed();
    let made: u64 = agents.iter().map(super::SimulatedAgent::last_sequence).sum();
    let oracle = match &arguments.check_database_url {
        Some(url) => {
            let mut connection = PgConnection::connect(url).await?;
            Some(check::check(&mut connection, &agents, arguments.check_in_full).await?)
        }
        None => None,
    };
    let summary = json!({
        "agents": agents.len(),
        "seed": population.seed,
        "enrolled_in_s": enrolled.as_secs_f64(),
        "drained_in_s": drained.as_secs_f64(),
        "totals": totals.summary(),
        "must_be_stored": { "hosts": agents.len(), "reports": made },
        "checked": oracle,
    });
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}

/// A line now and then until the time is over.
pub async fn show_progress(running: &RunningFleet, time: Duration) {
    let is_terminal = std::io::stderr().is_terminal();
    let end = Instant::now() + time;
    let pause = PROGRESS[usize::from(!is_terminal)];
    while Instant::now() < end {
        tokio::time::sleep_until((Instant::now() + pause).min(end).into()).await;
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        let line = format!("{}, {left} s left", running.totals.line());
        if is_terminal {
            eprint!("\r\u{1b}[K{line}");
        } else {
            eprintln!("{line}");
        }
    }
    if is_terminal {
        eprintln!();
    }
}

/// The host's clock.
#[expect(clippy::disallowed_methods, reason = "the run owns the clock of its fleet")]
pub fn now() -> Timestamp {
    Timestamp::now_utc()
}
