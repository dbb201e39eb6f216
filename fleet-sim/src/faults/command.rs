//! `fleet-sim faults`: the long form of the fault suite.

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{Scale, Verdict, database, disk, run_all};

/// Which faults, and how much of them.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Only these.
    #[arg(value_enum)]
    only: Vec<Scenario>,
    /// Simulated agents.
    #[arg(long, default_value_t = Scale::LONG.agents)]
    agents: u64,
    /// How often each fault is done.
    #[arg(long, default_value_t = Scale::LONG.repeats)]
    repeats: u32,
    /// As in the test suite: few agents, short stops.
    #[arg(long)]
    short: bool,
}

/// Faults that share a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// SIGKILL, SIGSTOP, restarts, an upgrade, strangers, clocks.
    Processes,
    /// The primary dies, a standby that lags behind is promoted.
    FailOver,
    /// The database's volume runs full.
    DiskFull,
}

/// Does them and prints each verdict as JSON; ends with the first that is not "all there, once".
pub async fn run(arguments: Arguments) -> Result<()> {
    let base = if arguments.short {
        Scale::SHORT
    } else {
        Scale { agents: arguments.agents, repeats: arguments.repeats, ..Scale::LONG }
    };
    for scenario in [Scenario::Processes, Scenario::FailOver, Scenario::DiskFull] {
        if !arguments.only.is_empty() && !arguments.only.contains(&scenario) {
            continue;
        }
        let verdict: Verdict = match scenario {
            Scenario::Processes => run_all(base).await?,
            Scenario::FailOver => database::fail_over(base).await?,
            Scenario::DiskFull => disk::full(base).await?,
        };
        println!("{scenario:?}: {}", serde_json::to_string_pretty(&verdict)?);
    }
    Ok(())
}
