//! Both authorities are replaced under a real agent that reports, by the program's own commands.

use std::time::Duration;

use agent::identity::Identity;
use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::AgentProcess;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::server::{Deployment, Doors};
use sqlx::PgConnection;

use crate::fleet::{DEADLINE, connect, start_agent};

async fn one(connection: &mut PgConnection, sql: &'static str) -> Result<i64> {
    sqlx::query_scalar(sql).fetch_one(connection).await.context(sql)
}

/// As if every replica had had its time to read the last step.
async fn settle(connection: &mut PgConnection) -> Result<()> {
    let sql = "update certificate_authorities set state_changed_at = now() - interval '2 min'";
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}

/// Takes a step as soon as it shuts nobody out, and never by force.
async fn step(
    deployment: &Deployment,
    connection: &mut PgConnection,
    which: &str,
    step: &str,
) -> Result<()> {
    settle(connection).await?;
    let what = format!("{step} the {which} authority");
    eventually(DEADLINE, &what, async || {
        deployment.run("authority-step", &["authority", "step", which, step]).await
    })
    .await
}

async fn still_reports(connection: &mut PgConnection, agent: &mut AgentProcess) -> Result<()> {
    let before = one(connection, "select count(*) from host_samples").await?;
    eventually(DEADLINE, "more reports", async || {
        agent.check_alive()?;
        let now = one(connection, "select count(*) from host_samples").await?;
        ensure!(now > before + 3, "{now}");
        Ok(())
    })
    .await
    .with_context(|| agent.log())
}

#[tokio::test]
async fn an_agent_reports_on_while_both_authorities_are_replaced() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let doors = Doors::free()?;
    let endpoints = vec![doors.agent_endpoint()];
    let mut deployment = Deployment::create("rotation", &database.url, endpoints).await?;
    deployment.environment = vec![
        // Every connection is a new handshake with what is trusted then.
        ("PROCFLEET_AGENT_DOOR__MAX_CONNECTION_AGE_S", "1".into()),
        ("PROCFLEET_CERTIFICATES__HOST_LIFE_S", "600".into()),
    ];
    let mut server = deployment.start("server", doors).await?;
    let mut agent = start_agent(&deployment, "agent", Duration::from_millis(500), false).await?;
    let host_id = agent.host_id()?;
    let mut connection = connect(&deployment).await?;
    still_reports(&mut connection, &mut agent).await?;

    for which in ["server", "client"] {
        deployment.run("authority-rotate", &["authority", "rotate", which]).await?;
        step(&deployment, &mut connection, which, "activate").await?;
        still_reports(&mut connection, &mut agent).await?;
        step(&deployment, &mut connection, which, "finish").await?;
        // Longer than the servers take to read that the old one is gone.
        let finished = "select extract(epoch from now() - max(state_changed_at))::bigint
            from certificate_authorities where state = 'removed'";
        eventually(DEADLINE, "the old authority is forgotten", async || {
            let age = one(&mut connection, finished).await?;
            ensure!(age > 12, "{age}");
            Ok(())
        })
        .await?;
        still_reports(&mut connection, &mut agent).await?;
    }
    assert_eq!(agent.host_id()?, host_id);
    assert_eq!(one(&mut connection, "select count(*) from hosts").await?, 1);
    let certificates = one(&mut connection, "select count(*) from host_certificates").await?;
    assert!(certificates >= 2, "it renewed because its authority signs no more");
    agent.terminate().await?;
    server.terminate().await
}

/// The server authorities that the agent trusts, PEM.
fn trusted(agent: &AgentProcess) -> Result<String> {
    Ok(Identity::load(&agent.state_dir().join("identity"))?.ca_bundle_pem)
}

#[tokio::test]
async fn a_host_that_was_off_for_two_rotations_comes_back_by_itself() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let doors = Doors::free()?;
    let endpoints = vec![doors.agent_endpoint()];
    let mut deployment = Deployment::create("bridge", &database.url, endpoints).await?;
    deployment.environment = vec![("PROCFLEET_AGENT_DOOR__MAX_CONNECTION_AGE_S", "1".into())];
    let mut server = deployment.start("server", doors).await?;
    let mut agent = start_agent(&deployment, "away", Duration::from_millis(500), false).await?;
    let host_id = agent.host_id()?;
    let mut connection = connect(&deployment).await?;
    still_reports(&mut connection, &mut agent).await?;
    agent.kill()?;
    let before = trusted(&agent)?;

    for which in ["server", "client", "server"] {
        deployment.run("authority-rotate", &["authority", "rotate", which]).await?;
        for step in ["activate", "finish"] {
            settle(&mut connection).await?;
            deployment.run("step", &["authority", "step", which, step, "--force"]).await?;
        }
    }
    // It reads them when it starts; what it knew is history.
    server.terminate().await?;
    server.restart(&deployment)?;
    server.wait_ready().await?;
    let had = one(&mut connection, "select count(*) from host_samples").await?;
    agent.run()?;
    // It looks once a minute whether its certificate is why nothing goes out.
    eventually(DEADLINE * 2, "it reports again", async || {
        agent.check_alive()?;
        let now = one(&mut connection, "select count(*) from host_samples").await?;
        ensure!(now > had + 3, "{now}");
        Ok(())
    })
    .await
    .with_context(|| agent.log())?;
    assert_eq!(agent.host_id()?, host_id);
    assert_eq!(one(&mut connection, "select count(*) from hosts").await?, 1);
    eventually(DEADLINE, "it trusts the authority of now alone", async || {
        let now: String = sqlx::query_scalar(
            "select certificate_pem from certificate_authorities where purpose = 'server' and state = 'active'",
        )
        .fetch_one(&mut connection)
        .await?;
        ensure!(!before.contains(now.trim()), "nothing was rotated");
        ensure!(trusted(&agent)?.trim() == now.trim(), "{}", trusted(&agent)?);
        Ok(())
    })
    .await?;
    agent.terminate().await?;
    server.terminate().await
}
