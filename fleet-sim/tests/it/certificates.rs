//! A host's identity for life: real agents whose certificates end, killed at every step.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::certificate::Keeper;
use agent::identity::{Identity, next};
use agent::server_clock::ServerClock;
use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::random::Random;
use fleet_sim::server::{Deployment, Doors};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::fleet::{DEADLINE, Fleet};

/// The whole directory after a renewal that is done.
const DONE: [&str; 2] = ["identity.json", "machine.json"];

fn keeper(dir: &Path) -> Result<Keeper> {
    let identity = Identity::load(dir)?;
    let clock = ServerClock::default();
    Ok(Keeper { dir: dir.into(), endpoints: Vec::new(), identity, clock })
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Makes it time to renew.
fn make_due(dir: &Path) -> Result<()> {
    let path = dir.join("identity.json");
    let mut identity: Value = serde_json::from_slice(&fs::read(&path)?)?;
    identity["renew_after"] = "2020-01-01T00:00:00Z".into();
    Ok(fs::write(&path, serde_json::to_vec(&identity)?)?)
}

pub(crate) async fn one(connection: &mut PgConnection, sql: &'static str) -> Result<i64> {
    sqlx::query_scalar(sql).fetch_one(connection).await.context(sql)
}

/// Does the first `steps` steps of a renewal as the agent does them, and then no more.
async fn crash_after(steps: u32, dir: &Path, endpoint: &str) -> Result<()> {
    make_due(dir)?;
    let keeper = keeper(dir)?;
    let next_json = dir.join("next.json");
    next::key(dir, &keeper.identity)?;
    if steps == 0 {
        return Ok(());
    }
    let staged = keeper.obtain(endpoint).await?;
    match steps {
        // The server stored it, and its answer was lost.
        1 => fs::remove_file(next_json)?,
        2 => {}
        3 => keeper.in_force(endpoint, &staged).await?,
        _ => {
            keeper.in_force(endpoint, &staged).await?;
            fs::rename(next_json, dir.join("identity.json"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_renewal_goes_on() -> Result<()> {
    let fleet = Fleet::start("renewal-steps").await?;
    let endpoint = fleet.server.doors().agent_endpoint();
    let token = fleet.deployment.create_token("steps", &[]).await?;
    let options = AgentOptions {
        name: "steps".into(),
        interval: Duration::from_secs(1),
        keep_all: false,
        endpoints: Vec::new(),
        environment: Vec::new(),
        state_dir: None,
    };
    let mut agent = AgentProcess::enroll(options, &token).await?;
    let dir = agent.state_dir().join("identity");
    let host_id = agent.host_id()?;
    let mut database = fleet.connect().await?;
    for steps in 0..=4 {
        crash_after(steps, &dir, &endpoint).await?;
        let before = one(&mut database, "select count(*) from host_samples").await?;
        agent.run()?;
        eventually(DEADLINE, "the renewal is finished and reports arrive", async || {
            agent.check_alive()?;
            ensure!(names(&dir)? == DONE || steps == 4, "{:?}", names(&dir)?);
            let pending = "select count(*) from host_certificates where status = 'pending'";
            ensure!(one(&mut database, pending).await? == 0, "still pending");
            let now = one(&mut database, "select count(*) from host_samples").await?;
            ensure!(now > before, "no report yet");
            Ok(())
        })
        .await
        .with_context(|| format!("after step {steps}:\n{}", agent.log()))?;
        agent.terminate().await?;
        assert_eq!(agent.host_id()?, host_id);
    }
    // One renewal each: none was lost, and none was asked for twice.
    assert_eq!(one(&mut database, "select count(*) from host_certificates").await?, 6);
    let active = "select count(*) from host_certificates where status = 'active'";
    assert_eq!(one(&mut database, active).await?, 1);
    assert_eq!(one(&mut database, "select count(*) from hosts").await?, 1);
    Ok(())
}

/// A deployment whose certificates live for `host_life_s`.
pub(crate) async fn short_lived(
    name: &str,
    host_life_s: u32,
) -> Result<(TestDatabase, Deployment, Doors, PathBuf)> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let doors = Doors::free()?;
    let endpoints = vec![doors.agent_endpoint()];
    let mut deployment = Deployment::create(name, &database.url, endpoints).await?;
    let life = ("PROCFLEET_CERTIFICATES__HOST_LIFE_S", host_life_s.to_string());
    deployment.environment.push(life);
    let token = deployment.create_token("short", &[]).await?;
    Ok((database, deployment, doors, token))
}

#[tokio::test]
async fn an_agent_lives_on_through_kills_and_through_its_certificates_end() -> Result<()> {
    let (_database, deployment, doors, token) = short_lived("short-lives", 6).await?;
    let server = deployment.start("server", doors).await?;
    let options = AgentOptions {
        name: "short-lived".into(),
        interval: Duration::from_secs(1),
        keep_all: false,
        endpoints: Vec::new(),
        environment: Vec::new(),
        state_dir: None,
    };
    let mut agent = AgentProcess::start(options, &token).await?;
    let host_id = agent.host_id()?;
    let mut database = PgConnection::connect(&deployment.database_url).await?;
    let mut random = Random::new(5);
    for kill in 0..8 {
        let certificates = one(&mut database, "select count(*) from host_certificates").await?;
        // Certificates come every few seconds; some kills hit the middle of it.
        let more = i64::from(kill % 2 == 0);
        eventually(DEADLINE, "another certificate", async || {
            agent.check_alive()?;
            let now = one(&mut database, "select count(*) from host_certificates").await?;
            ensure!(now >= certificates + more, "{now}");
            Ok(())
        })
        .await
        .with_context(|| agent.log())?;
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        agent.kill()?;
        agent.run()?;
    }
    agent.kill()?;
    eventually(DEADLINE, "every certificate has ended", async || {
        let good = "select count(*) from host_certificates where not_after > now()";
        ensure!(one(&mut database, good).await? == 0);
        Ok(())
    })
    .await?;
    let before = one(&mut database, "select count(*) from host_samples").await?;
    agent.run()?;
    eventually(DEADLINE, "the host is back by its old key", async || {
        agent.check_alive()?;
        ensure!(one(&mut database, "select count(*) from host_samples").await? > before + 1);
        Ok(())
    })
    .await
    .with_context(|| agent.log())?;
    assert!(server.log().contains("recovery"), "{}", server.log());
    assert_eq!(agent.host_id()?, host_id);
    assert_eq!(one(&mut database, "select count(*) from hosts").await?, 1);
    agent.kill()
}
