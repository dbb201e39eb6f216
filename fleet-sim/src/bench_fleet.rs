//! `fleet-sim bench-fleet`: a fleet at its own pace, then a larger one that comes back all at once.
//!
//! One server, one database, the fleet, all on one machine. First `hosts` report every `interval_ms` for
//! `seconds`: nothing may be shed. Then `burst_hosts` have `backlog` reports each in their spools, because
//! the server was killed, and all come at the moment it is back, going on to sample meanwhile. At the end
//! every host's rows are judged ([`crate::fleet::check`]).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use sqlx::{Connection as _, PgConnection};

use crate::eventually::eventually;
use crate::faults::enrollment_without_limits;
use crate::fleet::command::{now, show_progress};
use crate::fleet::{Mishaps, Population, RunningFleet, check, enroll};
use crate::server::{Deployment, Doors, ServerProcess};
use crate::simulated::plan::Shape;
use crate::simulated::{SimulatedAgent, install_crypto};

/// Connections one replica holds for the larger fleet.
const MAX_CONNECTIONS: usize = 16_000;
/// Hosts compared column by column.
const IN_FULL: usize = 20;
/// How far in the past the first report lies, so that backlogs never reach into the future.
const HEAD_START: Duration = Duration::from_mins(20);

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// An empty database that the benchmark may migrate and fill.
    #[arg(long, env = "PROCFLEET_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Hosts at their own pace.
    #[arg(long, default_value_t = 2000)]
    hosts: u64,
    /// For so long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Between two reports of a host.
    #[arg(long, default_value_t = Shape::HOST.interval_ms)]
    interval_ms: u32,
    /// Hosts that come back at once, the first ones among them.
    #[arg(long, default_value_t = 10_000)]
    burst_hosts: u64,
    /// Reports each has kept meanwhile.
    #[arg(long, default_value_t = 10)]
    backlog: u64,
    /// Seconds the burst may take.
    #[arg(long, default_value_t = 240)]
    burst_seconds: u64,
}

/// Runs the benchmark and prints a table in markdown.
pub async fn run(arguments: Arguments) -> Result<()> {
    install_crypto();
    let doors = Doors::free()?;
    let endpoints = vec![doors.agent_endpoint()];
    let mut deployment =
        Deployment::create("bench-fleet", &arguments.database_url, endpoints).await?;
    deployment.environment = enrollment_without_limits();
    deployment
        .environment
        .push(("PROCFLEET_AGENT_DOOR__MAX_CONNECTIONS", MAX_CONNECTIONS.to_string()));
    let mut server = deployment.start("server", doors).await?;
    let api_key = deployment.create_api_key("admin").await?;
    let token = deployment.join_token("bench").await?;
    let shape = Shape { interval_ms: arguments.interval_ms.max(1), ..Shape::HOST };
    let population = Population::calm(arguments.burst_hosts, shape);

    println!("| measured | value |\n|---|---|");
    let started = Instant::now();
    let agents = enroll(&token, &population, 0..arguments.hosts, now() - HEAD_START).await?;
    row("enrolled, hosts/s", rate(agents.len() as u64, started.elapsed()));
    let agents = at_their_pace(agents, &server, &api_key, &arguments).await?;

    let numbers = arguments.hosts..arguments.burst_hosts.max(arguments.hosts);
    let mut all = enroll(&token, &population, numbers, now() - HEAD_START).await?;
    all.extend(agents);
    server.kill()?;
    server.restart(&deployment)?;
    server.wait_ready().await?;
    let all = all_at_once(all, &server, &api_key, &arguments).await?;

    let mut connection = PgConnection::connect(&arguments.database_url).await?;
    let checked = check::check(&mut connection, &all, IN_FULL).await?;
    row("oracle: nothing lost, nothing twice", format!("{checked:?}"));
    server.terminate().await
}

async fn at_their_pace(
    agents: Vec<SimulatedAgent>,
    server: &ServerProcess,
    api_key: &str,
    arguments: &Arguments,
) -> Result<Vec<SimulatedAgent>> {
    let hosts = agents.len();
    let before = cpu_seconds(server.pid())?;
    let running = RunningFleet::start(agents, Mishaps::default());
    let time = Duration::from_secs(arguments.seconds);
    show_progress(&running, time).await;
    let cpu = cpu_seconds(server.pid())? - before;
    let totals = std::sync::Arc::clone(&running.totals);
    let agents = running.finish(Duration::from_mins(1)).await?;
    let shed = shed(server, api_key).await?;
    row("hosts at their own pace", format!("{hosts}, for {} s", arguments.seconds));
    row("reports", totals.produced.get());
    row("requests shed", format!("{} (server: {shed})", totals.shed.get()));
    row("requests lost", totals.lost.get());
    row("request to commit, ms", totals.summary()["answer_ms"].clone());
    row("server RSS, peak, MiB", format!("{:.0}", peak_mib(server.pid())?));
    row("server CPU, cores", format!("{:.3}", cpu / time.as_secs_f64()));
    row("load generator RSS, MiB", format!("{:.0}", rss_mib(std::process::id())?));
    Ok(agents)
}

async fn all_at_once(
    mut agents: Vec<SimulatedAgent>,
    server: &ServerProcess,
    api_key: &str,
    arguments: &Arguments,
) -> Result<Vec<SimulatedAgent>> {
    let hosts = agents.len();
    for agent in &mut agents {
        agent.produce(arguments.backlog);
    }
    let backlog = hosts as u64 * arguments.backlog;
    let limit = Duration::from_secs(arguments.burst_seconds);
    let started = Instant::now();
    let running = RunningFleet::start(agents, Mishaps::default());
    let totals = std::sync::Arc::clone(&running.totals);
    let drained = async {
        eventually(limit, "the backlogs are drained", async || {
            let (made, acknowledged) = (totals.produced.get(), totals.acknowledged.get());
            let outstanding = (backlog + made).saturating_sub(acknowledged);
            // Those sampled just now are always under way.
            ensure!(outstanding <= hosts as u64 / 20, "{outstanding} left: {}", totals.line());
            Ok(started.elapsed())
        })
        .await
    };
    // Longer than the limit, so that never it ends first.
    let progress = show_progress(&running, limit * 2);
    let elapsed = tokio::select! {
        elapsed = drained => elapsed.with_context(|| server.log_tail())?,
        () = progress => anyhow::bail!("not drained: {}", totals.line()),
    };
    let rss = peak_mib(server.pid())?;
    let acknowledged = totals.acknowledged.get();
    let agents = running.finish(limit).await?;
    row("hosts at once after an outage", format!("{hosts}, {} reports each", arguments.backlog));
    row("backlogs drained after, s", format!("{:.1}", elapsed.as_secs_f64()));
    row("reports/s meanwhile", rate(acknowledged, elapsed));
    let places = shed(server, api_key).await?;
    row("requests shed", format!("{} (server: {places})", totals.shed.get()));
    row("requests asked to pause", totals.paced.get());
    row("requests lost (connections shed, time-outs)", totals.lost.get());
    row("duplicates answered", totals.duplicates.get());
    row("request to commit, ms", totals.summary()["answer_ms"].clone());
    row("server RSS, peak, MiB", format!("{rss:.0}"));
    Ok(agents)
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("| {what} | {value} |");
}

fn rate(count: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / time.as_secs_f64();
    format!("{rate:.0}")
}

/// What the server counts as shed since its start: requests, and connections.
async fn shed(server: &ServerProcess, api_key: &str) -> Result<String> {
    let requests = server.metric(api_key, "procfleet_ingest_shed_total", "").await?;
    let connections = server.metric(api_key, "procfleet_server_connections_shed_total", "").await?;
    Ok(format!("{requests} requests, {connections} connections"))
}

fn rss_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

/// Since the process started.
fn peak_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, key: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("a number")?;
    Ok(kib / 1024.0)
}

/// User and system time of all threads, by clock ticks of 10 ms.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read stat")?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> {
        fields.get(index).context("a short stat")?.parse().context("ticks")
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
