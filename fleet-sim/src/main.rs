//! `fleet-sim`: benchmarks, and the workload that the end-to-end tests measure.

use anyhow::Result;
use clap::{Parser, Subcommand};
use fleet_sim::workload;

/// Simulated agents and benchmarks for Procfleet.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A process that uses exactly known amounts of CPU and disk.
    Workload(workload::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Workload(arguments) => workload::run(&arguments),
    }
}
