//! Releases on their way to a fleet: real servers, real agents and their real installer; only systemd is played.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::installed::{InstalledAgent, damage};
use fleet_sim::releases::{Published, ReleaseMaker};
use fleet_sim::server::{Deployment, Doors, ServerProcess};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Steps of a roll-out are looked at every ten seconds, whatever its soak.
const DEADLINE: Duration = Duration::from_mins(5);
/// Canaries of a roll-out.
const CANARIES: usize = 5;

/// Two servers that mirror releases, and agents of the first one.
struct Fleet {
    agents: Vec<InstalledAgent>,
    servers: [ServerProcess; 2],
    api_key: String,
    database: TestDatabase,
    maker: ReleaseMaker,
    first: Published,
    deployment: Deployment,
}

impl Fleet {
    async fn start(name: &str, agents: usize) -> Result<Self> {
        let maker = ReleaseMaker::new()?;
        let first = maker.publish(1)?;
        let database = TestDatabase::create(Engine::TimescaleDb).await?;
        let doors = [Doors::free()?, Doors::free()?];
        let endpoints = doors.iter().map(Doors::agent_endpoint).collect();
        let mut deployment = Deployment::create(name, &database.url, endpoints).await?;
        let mirror = maker.mirror().display().to_string();
        deployment.environment.push(("PROCFLEET_ARTIFACTS__DIRECTORY", mirror));
        let [one, two] = doors;
        let servers =
            [deployment.start("server-1", one).await?, deployment.start("server-2", two).await?];
        let api_key = deployment.create_api_key("admin").await?;
        let mut fleet =
            Self { agents: Vec::new(), servers, api_key, database, maker, first, deployment };
        for n in 0..agents {
            let name = format!("{name}-{n}");
            let agent =
                InstalledAgent::start(&fleet.deployment, &name, &fleet.first, &fleet.maker.root);
            fleet.agents.push(agent.await?);
        }
        fleet.count("state = 'idle' and installed_seq = 1", agents).await?;
        Ok(fleet)
    }

    async fn query(&self, query: &str) -> Result<i64> {
        let mut db = PgConnection::connect(&self.database.url).await?;
        Ok(sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut db).await?)
    }

    /// Waits until so many hosts say this of their release.
    async fn count(&self, condition: &str, hosts: usize) -> Result<()> {
        let query = format!("select count(*) from host_releases where {condition}");
        let waited = eventually(DEADLINE, condition, async || {
            let found = self.query(&query).await?;
            ensure!(usize::try_from(found)? == hosts, "{found} of {hosts}");
            Ok(())
        });
        waited.await.map_err(|error| error.context(self.logs()))
    }

    fn logs(&self) -> String {
        self.agents.iter().take(2).map(InstalledAgent::log).collect()
    }

    async fn roll_out(&self, seq: u64) -> Result<String> {
        let body = json!({ "target_seq": seq, "soak_s": 0 });
        let made = self.servers[0].post("/v1/rollouts", &self.api_key, &body).await?;
        let made: Value = serde_json::from_str(&made)?;
        Ok(made["rollout_id"].as_str().unwrap_or_default().to_owned())
    }

    async fn rollout(&self, id: &str) -> Result<Value> {
        let path = format!("/v1/rollouts/{id}");
        Ok(serde_json::from_str(&self.servers[1].get(&path, &self.api_key).await?)?)
    }

    async fn wait_for(&self, id: &str, state: &str) -> Result<Value> {
        let waited = eventually(DEADLINE, state, async || {
            let rollout = self.rollout(id).await?;
            ensure!(rollout["state"] == state, "{rollout}");
            Ok(rollout)
        });
        waited.await.map_err(|error| error.context(self.logs()))
    }

    /// What every agent runs, and what proved itself there.
    fn links(&self) -> Result<Vec<(String, String)>> {
        self.agents
            .iter()
            .map(|agent| Ok((agent.linked("current")?, agent.linked("confirmed")?)))
            .collect()
    }

    async fn stop(self) -> Result<()> {
        for agent in self.agents {
            agent.stop()?;
        }
        for mut server in self.servers {
            server.terminate().await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_agents_become_the_release_that_is_rolled_out() -> Result<()> {
    let fleet = Fleet::start("upgrade", 20).await?;
    let second = fleet.maker.publish(2)?;
    let id = fleet.roll_out(2).await?;
    fleet.wait_for(&id, "done").await?;
    fleet.count("state = 'confirmed' and installed_seq = 2", 20).await?;
    let on_it = (second.id.clone(), second.id);
    ensure!(fleet.links()?.iter().all(|links| *links == on_it), "{:?}", fleet.links()?);
    let starts: Vec<u32> = fleet.agents.iter().map(InstalledAgent::starts).collect();
    ensure!(starts.iter().all(|starts| *starts == 2), "once each, and once anew: {starts:?}");
    let goodbyes = "select count(*) from heartbeats where goodbye is not null";
    ensure!(fleet.query(goodbyes).await? == 0, "all are back");
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_crashes_halts_at_the_canaries_which_go_back() -> Result<()> {
    halts_at_the_canaries("crashes", "exit 101").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_hangs_halts_at_the_canaries_which_go_back() -> Result<()> {
    halts_at_the_canaries("hangs", "exec sleep 600").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_reaches_no_server_halts_at_the_canaries_which_go_back() -> Result<()> {
    halts_at_the_canaries("lost", "export PROCFLEET_AGENT_ENDPOINTS=https://127.0.0.1:1").await
}

async fn halts_at_the_canaries(name: &str, misdeed: &str) -> Result<()> {
    let fleet = Fleet::start(name, CANARIES + 3).await?;
    fleet.maker.publish_bad(2, misdeed)?;
    let id = fleet.roll_out(2).await?;
    fleet.wait_for(&id, "halted").await?;
    let started = format!("select count(*) from rollout_hosts where rollout_id = '{id}'");
    let started = fleet.query(&started).await?;
    ensure!(usize::try_from(started)? <= CANARIES, "{started} were started");
    fleet.count("state = 'rolled_back'", usize::try_from(started)?).await?;
    fleet.count("state in ('requested', 'downloading', 'staged', 'probation')", 0).await?;
    fleet.count("installed_seq = 1", CANARIES + 3).await?;
    let before = (fleet.first.id.clone(), fleet.first.id.clone());
    ensure!(fleet.links()?.iter().all(|links| *links == before), "{:?}", fleet.links()?);
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_take_nothing_for_a_while_take_nothing_back() -> Result<()> {
    let fleet = Fleet::start("away", 1).await?;
    let second = fleet.maker.publish(2)?;
    fleet.roll_out(2).await?;
    let agent = &fleet.agents[0];
    // From the moment at which the release runs the servers have no database: 503.
    eventually(DEADLINE, "the release runs", async || {
        ensure!(agent.linked("current")? == second.id);
        Ok(())
    })
    .await?;
    fleet.database.admin().allow_connections(false).await?;
    let refused = || async {
        let answer = fleet.servers[0].get("/v1/hosts", &fleet.api_key).await;
        ensure!(answer.is_err(), "the server still answers");
        Ok(())
    };
    eventually(DEADLINE, "the servers refuse", refused).await?;
    // Past deadline and grace of this host, 20 s each.
    let began = agent.ledger()?["since"]["up_s"].as_u64().unwrap_or(u64::MAX);
    eventually(DEADLINE, "a long probation", async || {
        let ledger = agent.ledger()?;
        ensure!(ledger["state"] == "probation", "{ledger}");
        let up = std::fs::read_to_string("/proc/uptime")?;
        let up: u64 = up.split('.').next().unwrap_or_default().parse()?;
        ensure!(up > began.saturating_add(60), "{up}");
        Ok(())
    })
    .await?;
    ensure!(agent.linked("current")? == second.id, "{}", agent.log());
    fleet.database.admin().allow_connections(true).await?;
    fleet.count("state = 'confirmed' and installed_seq = 2", 1).await?;
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_mirror_installs_nothing_until_it_is_mended() -> Result<()> {
    let fleet = Fleet::start("damaged", 1).await?;
    let second = fleet.maker.publish(2)?;
    damage(&second.binary)?;
    fleet.roll_out(2).await?;
    fleet.count("state = 'failed' and target_seq = 2 and installed_seq = 1", 1).await?;
    ensure!(fleet.agents[0].linked("current")? == fleet.first.id);
    damage(&second.binary)?;
    fleet.count("state = 'confirmed' and installed_seq = 2", 1).await?;
    fleet.stop().await
}
