//! Everything that goes wrong between agents and database, done to a running fleet, and the oracle's
//! verdict at the end: nothing lost, nothing twice.
//!
//! An [`Arena`] is a private PostgreSQL, two replicas behind a real HAProxy, and simulated agents that
//! never stop reporting while a fault is done to them and undone. After each fault the fleet must make
//! progress again; after the last one it drains and every host is judged. The suite runs a short
//! form ([`Scale::SHORT`]); `fleet-sim faults` the long one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use crate::address::free_address;
use crate::eventually::eventually;
use crate::fleet::check::{Checked, check};
use crate::fleet::command::now;
use crate::fleet::{Mishaps, Population, RunningFleet, enroll};
use crate::haproxy::HaproxyProcess;
use crate::postgres::PostgresCluster;
use crate::server::{Deployment, Doors, ServerProcess};
use crate::simulated::install_crypto;
use crate::simulated::plan::{ClockJump, Shape};

pub mod command;
pub mod crowds;
pub mod database;
pub mod disk;
pub mod replicas;

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
    scale: Scale,
    recovered: Vec<(String, f64)>,
}

impl Arena {
    /// Starts everything over the database at `url`; the fleet makes progress when this returns.
    pub async fn start(name: &str, url: &str, scale: Scale) -> Result<Self> {
        install_crypto();
        let (listen, doors) = (free_address()?, [Doors::free()?, Doors::free()?]);
        let mut deployment =
            Deployment::create(name, url, vec![format!("https://{listen}")]).await?;
        deployment.environment = enrollment_without_limits();
        let first = deployment.start("server-0", doors[0]).await?;
        let second = deployment.start("server-1", doors[1]).await?;
        let balancer = HaproxyProcess::start(listen, &doors).await?;
        let api_key = deployment.create_api_key("admin").await?;
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
        let servers = vec![first, second];
        let fleet = RunningFleet::start(agents, mishaps);
        let recovered = Vec::new();
        let mut arena =
            Self { fleet, servers, balancer, listen, deployment, api_key, scale, recovered };
        arena.progress("the start").await?;
        Ok(arena)
    }

    /// Waits until as many reports as there are agents were acknowledged from now on, and notes how long
    /// that took after `fault`.
    pub async fn progress(&mut self, fault: &str) -> Result<()> {
        let (before, started) = (self.fleet.totals.acknowledged.get(), Instant::now());
        let what = format!("progress after {fault}");
        let waited = eventually(PROGRESS_DEADLINE, &what, async || {
            let progress = self.fleet.totals.acknowledged.get() - before;
            ensure!(progress >= self.scale.agents, "{progress}: {:?}", self.fleet.totals);
            Ok(())
        });
        waited.await.with_context(|| self.logs())?;
        self.recovered.push((fault.to_owned(), started.elapsed().as_secs_f64()));
        Ok(())
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

/// A fleet enrols at once, and from one address.
pub fn enrollment_without_limits() -> Vec<(&'static str, String)> {
    ["SOURCE_PER_SECOND", "SOURCE_BURST", "TOTAL_PER_SECOND", "TOTAL_BURST"]
        .map(|key| match key {
            "SOURCE_PER_SECOND" => "PROCFLEET_ENROLLMENT__SOURCE_PER_SECOND",
            "SOURCE_BURST" => "PROCFLEET_ENROLLMENT__SOURCE_BURST",
            "TOTAL_PER_SECOND" => "PROCFLEET_ENROLLMENT__TOTAL_PER_SECOND",
            _ => "PROCFLEET_ENROLLMENT__TOTAL_BURST",
        })
        .map(|key| (key, "100000".to_owned()))
        .to_vec()
}

/// A private database and an arena over it, all faults but those that need a database of another kind.
pub async fn run_all(scale: Scale) -> Result<Verdict> {
    let mut cluster = PostgresCluster::start_new().await?;
    let mut arena = Arena::start("faults", &cluster.url.clone(), scale).await?;
    for _ in 0..scale.repeats {
        replicas::kill(&mut arena).await?;
        database::kill(&mut arena, &mut cluster).await?;
        database::kill_writer(&mut arena, &cluster).await?;
        database::restart(&mut arena, &mut cluster).await?;
        replicas::stop(&mut arena, scale.stopped).await?;
        database::stop_writers(&mut arena, &cluster, scale.stopped).await?;
        replicas::restart_balancer(&mut arena).await?;
        replicas::upgrade(&mut arena).await?;
        crowds::idle_and_slow(&mut arena, scale.connections, scale.broken).await?;
    }
    arena.finish().await
}
