//! What every end-to-end test starts with, and what they ask the database.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::child::{self, Child};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::oracle::{self, Compared};
use fleet_sim::server::{Deployment, Doors, ServerProcess};
use fleet_sim::simulated::SimulatedAgent;
pub(crate) use fleet_sim::spooled::{settle, spooled_records};
use shared_model::{Record, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

/// Generous: it is only ever waited for in full by a failing test.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// One server over a fresh database. Dropped in this order.
pub(crate) struct Fleet {
    pub(crate) server: ServerProcess,
    pub(crate) deployment: Deployment,
    _database: TestDatabase,
}

impl Fleet {
    /// Starts one on TimescaleDB; agents connect to it directly.
    pub(crate) async fn start(name: &str) -> Result<Self> {
        let doors = Doors::free()?;
        Self::start_behind(name, doors, doors.agent_endpoint()).await
    }

    /// Starts one whose tokens advertise `endpoint`.
    pub(crate) async fn start_behind(name: &str, doors: Doors, endpoint: String) -> Result<Self> {
        let database = TestDatabase::create(Engine::TimescaleDb).await?;
        let deployment = Deployment::create(name, &database.url, vec![endpoint]).await?;
        let server = deployment.start("server", doors).await?;
        Ok(Self { server, deployment, _database: database })
    }

    /// A real agent, enrolled and running.
    pub(crate) async fn agent(
        &self,
        name: &str,
        interval: Duration,
        keep_all: bool,
    ) -> Result<AgentProcess> {
        start_agent(&self.deployment, name, interval, keep_all).await
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        connect(&self.deployment).await
    }
}

/// A connection to the deployment's database.
pub(crate) async fn connect(deployment: &Deployment) -> Result<PgConnection> {
    PgConnection::connect(&deployment.database_url).await.context("connect to the test's database")
}

/// A real agent, enrolled and running.
pub(crate) async fn start_agent(
    deployment: &Deployment,
    name: &str,
    interval: Duration,
    keep_all: bool,
) -> Result<AgentProcess> {
    let token = deployment.create_token(&format!("{name}-token"), &[]).await?;
    let options = AgentOptions { name: name.into(), interval, keep_all, ..AgentOptions::default() };
    AgentProcess::start(options, &token).await
}

/// Simulated agents, each with its own token's blessing and seed.
pub(crate) async fn simulated(deployment: &Deployment, count: u64) -> Result<Vec<SimulatedAgent>> {
    let token = deployment.join_token("simulated").await?;
    let mut agents = Vec::new();
    for seed in 0..count {
        agents.push(SimulatedAgent::enroll(&token, &format!("sim-{seed}"), seed, now()).await?);
    }
    Ok(agents)
}

/// The host's clock.
#[expect(clippy::disallowed_methods, reason = "an end-to-end test owns the clock of its test")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now_utc()
}

/// One number from the database.
pub(crate) async fn number(
    connection: &mut PgConnection,
    query: &str,
    host_id: Uuid,
) -> Result<i64> {
    let value: Option<i64> = sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
        .bind(host_id)
        .fetch_one(connection)
        .await?;
    Ok(value.unwrap_or(0))
}

/// Reports of a host in the database.
pub(crate) async fn report_count(connection: &mut PgConnection, host_id: Uuid) -> Result<i64> {
    number(connection, "select count(*) from host_samples where host_id = $1", host_id).await
}

/// Waits until a host has more reports in the database than `count`.
pub(crate) async fn wait_for_reports(
    connection: &mut PgConnection,
    agent: &mut AgentProcess,
    count: i64,
) -> Result<()> {
    let host_id = agent.host_id()?;
    let waited = eventually(DEADLINE, "reports arrive", async || {
        agent.check_alive()?;
        let reports = report_count(connection, host_id).await?;
        ensure!(reports > count, "{reports} reports of {host_id}");
        Ok(())
    });
    waited.await.with_context(|| agent.log())
}

/// Waits until the agent has its baseline: what is born from here on is counted from its birth.
pub(crate) async fn wait_for_deltas(
    connection: &mut PgConnection,
    agent: &mut AgentProcess,
) -> Result<()> {
    let host_id = agent.host_id()?;
    let query = "select count(*) from procfleet_process_samples where host_id = $1 and cpu_user_us is not null";
    let waited = eventually(DEADLINE, "deltas of processes arrive", async || {
        agent.check_alive()?;
        let deltas = number(connection, query, host_id).await?;
        ensure!(deltas > 0, "no deltas of {host_id}");
        Ok(())
    });
    waited.await.with_context(|| agent.log())
}

/// A [`fleet_sim::workload`] under the test's command.
pub(crate) struct Workload {
    pub(crate) child: Child,
    stdin: Option<std::process::ChildStdin>,
    done: usize,
}

impl Workload {
    pub(crate) fn start(name: &str, directory: &Path, words: &[&str]) -> Result<Self> {
        let mut command = Command::new(child::binary("fleet-sim")?);
        command.arg("workload").args(words).stdin(Stdio::piped());
        let mut child = Child::spawn(name, directory, &mut command)?;
        let stdin = child.stdin();
        Ok(Self { child, stdin, done: 0 })
    }

    /// Begins `command`.
    pub(crate) fn tell(&mut self, command: &str) -> Result<()> {
        self.done += 1;
        writeln!(self.stdin.as_mut().context("the workload has ended")?, "{command}")?;
        Ok(())
    }

    /// Waits until all it was told is done.
    pub(crate) async fn wait_done(&mut self) -> Result<()> {
        eventually(DEADLINE, "the workload is done", async || {
            self.child.check_alive()?;
            let done = self.child.log().matches("done ").count();
            ensure!(done == self.done, "{done} of {} done", self.done);
            Ok(())
        })
        .await
    }

    /// Lets it end, and reaps it.
    pub(crate) async fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait(DEADLINE).await?;
        ensure!(status.success(), "the workload ended with {status}: {}", self.child.log_tail());
        Ok(())
    }
}

/// Compares everything the database holds of these agents with what they sent.
pub(crate) async fn compare_all(
    connection: &mut PgConnection,
    simulated: &[SimulatedAgent],
    real: &[Record],
) -> Result<Compared> {
    for agent in simulated {
        let records: Vec<_> = agent.records.values().cloned().collect();
        let compared = oracle::compare(connection, &records)
            .await
            .with_context(|| format!("simulated agent {}: {:?}", agent.host_id, agent.counts))?;
        ensure!(compared.reports == records.len(), "{compared:?}");
    }
    oracle::compare(connection, real).await.context("the real agent")
}
