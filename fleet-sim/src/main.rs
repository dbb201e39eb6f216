//! `fleet-sim`: benchmarks, and the workload that the end-to-end tests measure.

use anyhow::Result;
use clap::{Parser, Subcommand};
use fleet_sim::{
    bench_agent, bench_alerts, bench_fleet, bench_ingest, bench_query, bench_storage, bench_web,
    faults, fleet, tier, workload,
};

/// Simulated agents and benchmarks for Procfleet.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulated hosts against a server that runs already.
    Run(fleet::command::Arguments),
    /// Silence among 100,000 hosts, rules over 10,000, and alerts told while replicas die.
    BenchAlerts(bench_alerts::Arguments),
    /// A fleet at its own pace, then a larger one that comes back all at once.
    BenchFleet(bench_fleet::Arguments),
    /// Kills, cuts and fills what a fleet depends on, and judges what is stored.
    Faults(faults::command::Arguments),
    /// Rows per second of the whole way into the database, against a raw COPY.
    BenchIngest(bench_ingest::Arguments),
    /// How long operators' questions take over a month of a fleet.
    BenchQuery(bench_query::Arguments),
    /// Bytes per kept process sample, and per row of its roll-ups.
    BenchStorage(bench_storage::Arguments),
    /// How long the web page takes on 1,000 hosts and 24 h.
    BenchWeb(bench_web::Arguments),
    /// Replicas behind a load balancer, to try things on.
    Tier(tier::Arguments),
    /// A process that uses exactly known amounts of CPU and disk.
    Workload(workload::Arguments),
    /// What one collection of the real agent costs, beside what else people use.
    BenchAgent(bench_agent::Arguments),
    /// Connects and says nothing, or very slowly, for the fault suite.
    Strangers(faults::strangers::Arguments),
    /// Holds TCP connections to itself, for `bench-agent`.
    HoldConnections(bench_agent::HoldArguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::BenchAlerts(arguments) => runtime()?.block_on(bench_alerts::run(arguments)),
        Command::BenchIngest(arguments) => runtime()?.block_on(bench_ingest::run(arguments)),
        Command::BenchQuery(arguments) => runtime()?.block_on(bench_query::run(arguments)),
        Command::BenchStorage(arguments) => runtime()?.block_on(bench_storage::run(arguments)),
        Command::BenchWeb(arguments) => runtime()?.block_on(bench_web::run(arguments)),
        Command::Run(arguments) => runtime()?.block_on(fleet::command::run(arguments)),
        Command::BenchFleet(arguments) => runtime()?.block_on(bench_fleet::run(arguments)),
        Command::Tier(arguments) => runtime()?.block_on(tier::run(arguments)),
        Command::Faults(arguments) => runtime()?.block_on(faults::command::run(arguments)),
        Command::Strangers(arguments) => runtime()?.block_on(faults::strangers::come(arguments)),
        Command::Workload(arguments) => workload::run(&arguments),
        Command::BenchAgent(arguments) => bench_agent::run(&arguments),
        Command::HoldConnections(arguments) => bench_agent::hold(&arguments),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
