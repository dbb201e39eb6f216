//! Everything that goes wrong between agents and database, done to a running fleet, and the oracle's
//! verdict at the end: nothing lost, nothing twice.
//!
//! An [`Arena`] is a private PostgreSQL, two replicas behind a real HAProxy, and simulated agents that
//! never stop reporting while a fault is done to them and undone. After each fault the fleet must make
//! progress again; after the last one it drains and every host is judged. What is done to agents themselves is done to
//! real ones, whose spools say what must be stored ([`real`]). The suite runs a short
//! form ([`Scale::SHORT`]); `fleet-sim faults` the long one.
//!
//! A new fault is a file here and a line in [`FAULTS`].

use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use crate::address::free_address;
use crate::eventually::eventually;
use crate::fleet::check::{Checked, check};
use crate::fleet::command::now;
use crate::fleet::{Mishaps, Population, RunningFleet, enroll};
use crate::haproxy::HaproxyProcess;
use crate::network::Network;
use crate::postgres::PostgresCluster;
use crate::server::{Deployment, Doors, ServerProcess};
use crate::simulated::install_crypto;
use crate::simulated::plan::{ClockJump, Shape};

mod answers_lost;
mod clock_jumps;
pub mod command;
mod cut;
mod disk_full;
mod fail_over;
mod half_open;
mod kill_agents;
mod kill_database;
mod kill_replica;
mod kill_writer;
mod lossy;
pub mod real;
mod restart_balancer;
mod restart_database;
mod spool_full;
mod stop_replica;
mod stop_writers;
pub mod strangers;
mod upgrade;

/// All of them, in the order in which those that share an arena are done.
pub const FAULTS: [Fault; 18] = [
    Fault { name: "kill-replica", does: Does::ToTier(kill_replica::run) },
    Fault { name: "kill-database", does: Does::ToTier(kill_database::run) },
    Fault { name: "kill-writer", does: Does::ToTier(kill_writer::run) },
    Fault { name: "restart-database", does: Does::ToTier(restart_database::run) },
    Fault { name: "stop-replica", does: Does::ToTier(stop_replica::run) },
    Fault { name: "stop-writers", does: Does::ToTier(stop_writers::run) },
    Fault { name: "restart-balancer", does: Does::ToTier(restart_balancer::run) },
    Fault { name: "upgrade", does: Does::ToTier(upgrade::run) },
    Fault { name: "strangers", does: Does::ToTier(strangers::run) },
    Fault { name: "cut", does: Does::ToNetwork(cut::run) },
    Fault { name: "answers-lost", does: Does::ToNetwork(answers_lost::run) },
    Fault { name: "half-open", does: Does::ToNetwork(half_open::run) },
    Fault { name: "lossy", does: Does::ToNetwork(lossy::run) },
    Fault { name: "fail-over", does: Does::Alone(fail_over::run) },
    Fault { name: "disk-full", does: Does::Alone(disk_full::run) },
    Fault { name: "kill-agents", does: Does::Alone(kill_agents::run) },
    Fault { name: "clock-jumps", does: Does::Alone(clock_jumps::run) },
    Fault { name: "spool-full", does: Does::Alone(spool_full::run) },
];

/// What a fault returns: its future.
pub type Done<'a, T = ()> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// A fault, and what it is done to.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// As on the command line.
    pub name: &'static str,
    /// How.
    pub does: Does,
}

/// What a fault is done to.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// An arena on the loopback address, with others.
    ToTier(fn(&mut Arena) -> Done<'_>),
    /// An arena whose servers are in a [`Network`], with others.
    ToNetwork(fn(&mut Arena) -> Done<'_>),
    /// What it makes itself.
    Alone(fn(Scale) -> Done<'static, Verdict>),
}

/// How long a fleet may take to make progress after a fault: agents back off up to 10 s, the writers up to
/// 3 s, and a database may need to recover.
const PROGRESS_DEADLINE: Duration = Duration::from_mins(2);
/// Reports that a fleet has made before it is judged, for each agent.
const REPORTS_TO_JUDGE: u64 = 15;
/// How long the rest may take at the end.
const DRAIN_DEADLINE: Duration = Duration::from_mins(5);
/// Time an agent waits for an answer: shorter than the real agent's, so that dead connections are noticed
/// within a test.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Simulated agents.
    pub agents: u64,
    /// Between two reports of an agent.
    pub interval_ms: u32,
    /// How often each fault is done.
    pub repeats: u32,
    /// How long processes are stopped (SIGSTOP).
    pub stopped: Duration,
    /// How long things that end by themselves in real life are left broken.
    pub broken: Duration,
    /// Idle and slow connections.
    pub connections: usize,
    /// Hosts compared column by column.
    pub in_full: usize,
}

impl Scale {
    /// For the suite.
    pub const SHORT: Self = Self {
        agents: 20,
        interval_ms: 500,
        repeats: 1,
        stopped: Duration::from_secs(4),
        broken: Duration::from_secs(2),
        connections: 600,
        in_full: 4,
    };
    /// For a bench.
    pub const LONG: Self = Self {
        agents: 200,
        interval_ms: 2000,
        repeats: 3,
        stopped: Duration::from_secs(30),
        broken: Duration::from_secs(10),
        connections: 10_000,
        in_full: 20,
    };
}

/// What the whole of it was.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Each fault that was done, and the seconds until the fleet made progress after it was undone.
    pub recovered_after_s: Vec<(String, f64)>,
    /// What the agents counted.
    pub totals: serde_json::Value,
    /// What was compared: all of it equal, or there were no verdict.
    pub checked: Checked,
    /// Records that the database had acknowledged and lost, and that were sent again.
    pub refilled: u64,
}

/// What faults are done to. Dropped in this order.
#[derive(Debug)]
pub struct Arena {
    /// At work.
    pub fleet: RunningFleet,
    /// Two replicas.
    pub servers: Vec<ServerProcess>,
    /// In front of them.
    pub balancer: HaproxyProcess,
    /// Where that listens.
    pub listen: std::net::SocketAddr,
    /// What they share.
    pub deployment: Deployment,
    /// Metrics of the replicas are read with it.
    pub api_key: String,
    /// The database.
    pub cluster: PostgresCluster,
    scale: Scale,
    recovered: Vec<(String, f64)>,
    network: Option<Network>,
}

impl Arena {
    /// Starts everything over `cluster`, reached by `url` if that is another way than its own; the fleet makes
    /// progress when this returns.
    pub async fn start(
        name: &str,
        cluster: PostgresCluster,
        url: Option<&str>,
        network: Option<Network>,
        scale: Scale,
    ) -> Result<Self> {
        install_crypto();
        let (listen, doors) = addresses(network.as_ref())?;
        let endpoint = format!("https://{listen}");
        let url = url.unwrap_or(&cluster.url);
        let mut deployment = Deployment::create(name, url, vec![endpoint]).await?;
        deployment.environment = enrollment_without_limits();
        if let Some(network) = &network {
            deployment.namespace = Some(network.name().to_owned());
            let names = network.inside.to_string();
            deployment.environment.push(("PROCFLEET_AGENT_DOOR__NAMES", names));
            // Its other end is ours.
            deployment.environment.push(("PROCFLEET_OPERATOR_DOOR__INSECURE", "true".into()));
        }
        let first = deployment.start("server-0", doors[0]).await?;
        let second = deployment.start("server-1", doors[1]).await?;
        let namespace = deployment.namespace.as_deref();
        let mut balancer = HaproxyProcess::start_in(namespace, listen, &doors)?;
        balancer.wait_until_it_listens(listen).await?;
        let api_key = deployment.create_api_key("admin").await?;
        let fleet = start_fleet(&deployment, scale).await?;
        let servers = vec![first, second];
        let recovered = Vec::new();
        let mut arena = Self {
            fleet,
            servers,
            balancer,
            listen,
            deployment,
            api_key,
            cluster,
            scale,
            recovered,
            network,
        };
        arena.progress("the start").await?;
        Ok(arena)
    }

    /// Waits until twice as many reports as there are agents were acknowledged from now on (answers of before may
    /// still be on their way), and notes how long that took after `fault`.
    pub async fn progress(&mut self, fault: &str) -> Result<()> {
        let (before, started) = (self.fleet.totals.acknowledged.get(), Instant::now());
        let what = format!("progress after {fault}");
        let waited = eventually(PROGRESS_DEADLINE, &what, async || {
            let progress = self.fleet.totals.acknowledged.get() - before;
            ensure!(progress >= 2 * self.scale.agents, "{progress}: {:?}", self.fleet.totals);
            Ok(())
        });
        waited.await.with_context(|| self.logs())?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{fault}: {seconds:.1} s; {}", self.fleet.totals.line());
        self.recovered.push((fault.to_owned(), seconds));
        Ok(())
    }

    /// SIGKILL of the load balancer, and a new one.
    pub fn restart_balancer(&mut self) -> Result<()> {
        self.balancer.kill()?;
        let doors: Vec<_> = self.servers.iter().map(ServerProcess::doors).collect();
        let namespace = self.deployment.namespace.as_deref();
        self.balancer = HaproxyProcess::start_in(namespace, self.listen, &doors)?;
        Ok(())
    }

    /// The backends of all replicas' writers, of this arena's own cluster.
    pub async fn writers(&self) -> Result<Vec<Pid>> {
        eventually(PROGRESS_DEADLINE, "writers are connected", async || {
            let mut connection = PgConnection::connect(&self.cluster.url).await?;
            let pids: Vec<i32> = sqlx::query_scalar(
                "select pid from pg_stat_activity where application_name = 'procfleet-writer'",
            )
            .fetch_all(&mut connection)
            .await?;
            ensure!(!pids.is_empty(), "none");
            Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
        })
        .await
    }

    /// Where the servers are.
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("this arena has no network of its own")
    }

    /// Drains the fleet, once it made enough reports, and judges it.
    pub async fn finish(mut self) -> Result<Verdict> {
        let totals = std::sync::Arc::clone(&self.fleet.totals);
        let enough = REPORTS_TO_JUDGE * self.scale.agents;
        eventually(PROGRESS_DEADLINE, "enough reports to judge", async || {
            ensure!(totals.produced.get() >= enough, "{} of {enough}", totals.produced.get());
            Ok(())
        })
        .await?;
        let logs = self.logs();
        let agents = self.fleet.finish(DRAIN_DEADLINE).await.context(logs)?;
        let mut connection = PgConnection::connect(&self.deployment.database_url).await?;
        let checked = check(&mut connection, &agents, self.scale.in_full).await?;
        for server in &mut self.servers {
            server.terminate().await?;
        }
        Ok(Verdict {
            recovered_after_s: self.recovered,
            refilled: totals.refilled.get(),
            totals: totals.summary(),
            checked,
        })
    }

    fn logs(&self) -> String {
        let tail = |log: String| log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
        self.servers.iter().map(|server| tail(server.log())).collect::<Vec<_>>().join("\n--\n")
    }
}

/// Of the load balancer, and of two replicas. In a namespace every port is free.
fn addresses(network: Option<&Network>) -> Result<(std::net::SocketAddr, [Doors; 2])> {
    let Some(network) = network else {
        return Ok((free_address()?, [Doors::free()?, Doors::free()?]));
    };
    let at = |port| std::net::SocketAddr::new(network.inside, port);
    let doors = [0, 1].map(|index| Doors { agent: at(7443 + index), operator: at(7080 + index) });
    Ok((at(8443), doors))
}

/// Agents with small mishaps all the time, every fifth with a clock that jumps by an hour and back.
async fn start_fleet(deployment: &Deployment, scale: Scale) -> Result<RunningFleet> {
    let token = deployment.join_token("fleet").await?;
    let shape = Shape { interval_ms: scale.interval_ms, restart_every: 50, ..Shape::SMALL };
    let mishaps = Mishaps { late: 5, duplicate: 20, crash: 20 };
    let population = Population {
        mishaps,
        clock_skew_ms: 60_000,
        timeout: REQUEST_TIMEOUT,
        ..Population::calm(scale.agents, shape)
    };
    let mut agents = enroll(&token, &population, 0..scale.agents, now()).await?;
    for (number, agent) in agents.iter_mut().enumerate().step_by(5) {
        let hours = if number.is_multiple_of(2) { 1 } else { -1 };
        let offset_ms = hours * 3_600_000;
        let jump = ClockJump { first_sequence: 6, sequence: 12, offset_ms };
        agent.generator().set_clock_jump(jump);
    }
    Ok(RunningFleet::start(agents, mishaps))
}

/// A fleet enrols at once, and from one address.
pub fn enrollment_without_limits() -> Vec<(&'static str, String)> {
    [
        "PROCFLEET_ENROLLMENT__SOURCE_PER_SECOND",
        "PROCFLEET_ENROLLMENT__SOURCE_BURST",
        "PROCFLEET_ENROLLMENT__TOTAL_PER_SECOND",
        "PROCFLEET_ENROLLMENT__TOTAL_BURST",
        "PROCFLEET_ENROLLMENT__TOKEN_PER_SECOND",
        "PROCFLEET_ENROLLMENT__TOKEN_BURST",
    ]
    .map(|key| (key, "100000".to_owned()))
    .to_vec()
}

/// Does those of the faults that are done to an arena on the loopback address, or to one in a network, `repeats` times.
/// None: there are none.
pub async fn run_together(
    faults: &[Fault],
    in_network: bool,
    scale: Scale,
) -> Result<Option<Verdict>> {
    let faults: Vec<_> = faults
        .iter()
        .filter_map(|fault| match (fault.does, in_network) {
            (Does::ToTier(run), false) | (Does::ToNetwork(run), true) => Some((fault.name, run)),
            _ => None,
        })
        .collect();
    if faults.is_empty() {
        return Ok(None);
    }
    let network = if in_network { Some(Network::create()?) } else { None };
    let cluster = match &network {
        Some(network) => PostgresCluster::start_at(network.outside).await?,
        None => PostgresCluster::start_new().await?,
    };
    let mut arena = Arena::start("faults", cluster, None, network, scale).await?;
    for _ in 0..scale.repeats {
        for (name, run) in &faults {
            run(&mut arena).await.with_context(|| format!("fault {name}"))?;
        }
    }
    arena.finish().await.map(Some)
}

/// One that is not done to an arena.
pub async fn run_alone(name: &str, scale: Scale) -> Result<Verdict> {
    let found = FAULTS.iter().find_map(|fault| match fault.does {
        Does::Alone(run) if fault.name == name => Some(run),
        _ => None,
    });
    found.with_context(|| format!("there is no {name}"))?(scale).await
}
