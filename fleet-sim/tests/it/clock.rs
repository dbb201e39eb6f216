//! Hosts whose clock is ten years off: they report, renew and recover, and the data has the true time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::faketime::FakeClock;
use fleet_sim::server::{Deployment, Doors};
use shared_model::Timestamp;
use sqlx::{Connection as _, PgConnection};

use crate::certificates::{one, short_lived};
use crate::fleet::{DEADLINE, Fleet};

const TEN_YEARS: i64 = 10 * 365 * 86_400;
/// Reports awaited with each clock.
const REPORTS: i64 = 4;
const STORED: &str = "select count(*) from host_samples";

fn options(name: &str, clock: &FakeClock) -> Result<AgentOptions> {
    Ok(AgentOptions {
        name: name.into(),
        interval: Duration::from_secs(1),
        environment: clock.environment()?,
        ..AgentOptions::default()
    })
}

async fn now(database: &mut PgConnection) -> Result<Timestamp> {
    Ok(sqlx::query_scalar("select now()").fetch_one(database).await?)
}

/// Samples with a time at which no agent of this test ran.
async fn astray(database: &mut PgConnection, begun: Timestamp) -> Result<i64> {
    let query = "select count(*) from host_samples
        where sampled_at not between $1 - interval '1 minute' and now() + interval '1 minute'";
    Ok(sqlx::query_scalar(query).bind(begun).fetch_one(database).await?)
}

async fn progress(database: &mut PgConnection, agent: &mut AgentProcess) -> Result<()> {
    let before = one(database, STORED).await?;
    // A clock that is behind does not say that a certificate has ended: agents look into it once a minute.
    eventually(DEADLINE * 3, "reports are stored", async || {
        agent.check_alive()?;
        let stored = one(database, STORED).await? - before;
        ensure!(stored >= REPORTS, "{stored}");
        Ok(())
    })
    .await
    .with_context(|| agent.log())
}

#[tokio::test]
async fn a_clock_ten_years_off_stops_no_agent_that_is_enrolled() -> Result<()> {
    let fleet = Fleet::start("wrong-clock").await?;
    let mut database = fleet.connect().await?;
    let begun = now(&mut database).await?;
    let clock = FakeClock::create()?;
    let token = fleet.deployment.create_token("wrong-clock", &[]).await?;
    for wrong in [TEN_YEARS, -TEN_YEARS] {
        clock.set(wrong)?;
        let refused = AgentProcess::enroll(options("unenrolled", &clock)?, &token).await;
        let text = format!("{:#}", refused.err().context("a wrong clock enrolled")?);
        assert!(
            text.contains("but this host's clock says") && text.contains("set the clock"),
            "{text}"
        );
    }
    assert_eq!(one(&mut database, "select count(*) from hosts").await?, 0);

    clock.set(0)?;
    let mut agent = AgentProcess::start(options("wrong-clock", &clock)?, &token).await?;
    progress(&mut database, &mut agent).await?;
    for wrong in [TEN_YEARS, -TEN_YEARS] {
        clock.set(wrong)?;
        progress(&mut database, &mut agent).await?;
        let offset = "select coalesce(clock_offset_ms, 0) / 1000 from heartbeats";
        let offset = one(&mut database, offset).await?;
        assert!((offset + wrong).abs() <= 2, "{offset} is added to a clock {wrong} s ahead");
        assert_eq!(one(&mut database, "select count(*) from ingest_rejects").await?, 0);
    }
    assert!(agent.log().contains("set the clock"), "{}", agent.log());

    // A new process knows nothing but its certificate, and must make new connections.
    for wrong in [TEN_YEARS, -TEN_YEARS] {
        clock.set(wrong)?;
        agent.terminate().await?;
        agent.run()?;
        progress(&mut database, &mut agent).await?;
    }
    assert_eq!(astray(&mut database, begun).await?, 0);
    clock.set(0)?;
    progress(&mut database, &mut agent).await?;
    assert_eq!(one(&mut database, "select count(clock_offset_ms) from heartbeats").await?, 0);
    agent.terminate().await
}

/// As on the day when a host was switched off for long: the server lived then, too.
#[tokio::test]
async fn a_host_that_was_off_for_a_hundred_days_is_back_by_itself() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let doors = Doors::free()?;
    let endpoints = vec![doors.agent_endpoint()];
    let mut deployment = Deployment::create("long-off", &database.url, endpoints).await?;
    let mut connection = PgConnection::connect(&database.url).await?;
    let token = deployment.create_token("long-off", &[]).await?;
    let clock = FakeClock::create()?;
    clock.set(-100 * 86_400)?;
    deployment.environment = clock.environment()?;
    let mut then = deployment.start("then", doors).await?;
    let mut agent = AgentProcess::enroll(options("long-off", &clock)?, &token).await?;
    let host_id = agent.host_id()?;
    then.terminate().await?;
    let ended = "select count(*) from host_certificates
        where not_after between now() - interval '71 days' and now() - interval '69 days'";
    assert_eq!(one(&mut connection, ended).await?, 1, "thirty days from a hundred days ago");

    clock.set(0)?;
    deployment.environment.clear();
    let _server = deployment.start("now", doors).await?;
    agent.run()?;
    progress(&mut connection, &mut agent).await?;
    assert_eq!(agent.host_id()?, host_id);
    assert_eq!(one(&mut connection, "select count(*) from hosts").await?, 1);
    agent.terminate().await
}

#[tokio::test]
async fn an_expired_certificate_is_recovered_with_a_clock_ten_years_off() -> Result<()> {
    let (_database, deployment, doors, token) = short_lived("wrong-recovery", 15).await?;
    let server = deployment.start("server", doors).await?;
    let mut database = PgConnection::connect(&deployment.database_url).await?;
    let begun = now(&mut database).await?;
    let clock = FakeClock::create()?;
    let mut agent = AgentProcess::start(options("wrong-recovery", &clock)?, &token).await?;
    progress(&mut database, &mut agent).await?;
    for wrong in [TEN_YEARS, -TEN_YEARS] {
        agent.kill()?;
        eventually(DEADLINE, "every certificate has ended", async || {
            let good = "select count(*) from host_certificates where not_after > now()";
            ensure!(one(&mut database, good).await? == 0);
            Ok(())
        })
        .await?;
        clock.set(wrong)?;
        agent.run()?;
        progress(&mut database, &mut agent).await?;
    }
    assert!(server.log().contains("recovery"), "{}", server.log());
    assert_eq!(astray(&mut database, begun).await?, 0);
    assert_eq!(one(&mut database, "select count(*) from hosts").await?, 1);
    agent.kill()
}
