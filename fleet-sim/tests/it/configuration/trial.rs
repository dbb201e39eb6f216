//! An agent that dies while it tries what the centre told, and one that starts without a server.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::eventually::eventually;
use serde_json::json;

use super::{Operator, quiet_agent};
use crate::fleet::{DEADLINE, Fleet, report_count, wait_for_reports};

#[tokio::test]
async fn an_agent_that_is_killed_on_trial_twice_goes_back_and_says_so() -> Result<()> {
    let fleet = Fleet::start("configuration-trial").await?;
    let operator = Operator::of(&fleet).await?;
    let mut agent = quiet_agent(&fleet, "agent", None).await?;
    let (host_id, mut connection) = (agent.host_id()?, fleet.connect().await?);
    operator.set(host_id, json!({ "profile": { "top": 3 } })).await?;
    let good = operator.in_force(&mut agent).await?["hash"].clone();
    // Some reports make it the last known good.
    let reports = report_count(&mut connection, host_id).await?;
    wait_for_reports(&mut connection, &mut agent, reports + 4).await?;

    // Two reports made by it take minutes: it stays on trial.
    let slow = json!({ "interval_ms": 600_000, "profile": { "top": 4 } });
    operator.set(host_id, slow).await?;
    let bad = operator.in_force(&mut agent).await?["hash"].clone();
    agent.kill()?;
    agent.run()?;
    // Killed before it counted its start it would not have ended on trial.
    eventually(DEADLINE, "the agent runs again", async || {
        agent.check_alive()?;
        let starts = agent.log().matches("\"the agent runs\"").count();
        ensure!(starts == 2, "{starts} starts");
        Ok(())
    })
    .await?;
    let shown = operator.in_force(&mut agent).await?;
    assert_eq!((&shown["status"]["applied"], &shown["status"]["failed"]), (&bad, &json!(null)));
    agent.kill()?;
    agent.run()?;
    let shown = operator
        .shows(&mut agent, "it is given up", |shown| shown["status"]["state"] == "failed")
        .await?;
    assert_eq!((&shown["status"]["applied"], &shown["status"]["failed"]), (&good, &bad));
    let error = shown["status"]["error"].as_str().context("an error")?;
    assert!(error.contains("ended unexpectedly 2 times"), "{error}");
    // It reports twice a second again, and does not try it a third time.
    let reports = report_count(&mut connection, host_id).await?;
    wait_for_reports(&mut connection, &mut agent, reports + 4).await?;
    let shown = operator.configuration(host_id).await?;
    assert_eq!((&shown["status"]["applied"], &shown["hash"]), (&good, &bad));

    // Another one is tried, with whatever became of the one before.
    operator.set(host_id, json!({ "profile": { "top": 5 } })).await?;
    operator.in_force(&mut agent).await?;
    agent.terminate().await
}

fn bytes_in(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[tokio::test]
async fn without_a_server_an_agent_starts_with_the_last_known_good() -> Result<()> {
    let mut fleet = Fleet::start("configuration-offline").await?;
    let mut agent = quiet_agent(&fleet, "agent", None).await?;
    let (host_id, mut connection) = (agent.host_id()?, fleet.connect().await?);
    let operator = Operator::of(&fleet).await?;
    operator.set(host_id, json!({ "interval_ms": 300, "profile": { "keep_all": true } })).await?;
    let told = operator.in_force(&mut agent).await?["hash"].clone();
    drop(operator);
    let reports = report_count(&mut connection, host_id).await?;
    wait_for_reports(&mut connection, &mut agent, reports + 4).await?;
    agent.terminate().await?;
    fleet.server.kill()?;
    let reports = report_count(&mut connection, host_id).await?;
    agent.run()?;
    let spool = agent.state_dir().join("spool");
    let mut sizes = BTreeSet::new();
    eventually(DEADLINE, "reports wait in the spool", async || {
        agent.check_alive()?;
        sizes.insert(bytes_in(&spool)?);
        // Each append makes it grow.
        ensure!(sizes.len() > 4, "{sizes:?}");
        Ok(())
    })
    .await
    .with_context(|| agent.log())?;
    fleet.server.restart(&fleet.deployment)?;
    fleet.server.wait_ready().await?;
    wait_for_reports(&mut connection, &mut agent, reports + 4).await?;
    // By its own file it would have told of no process but the residual.
    let query = "select count(distinct instance_id) from procfleet_process_samples where host_id = $1
        and sampled_at = (select sampled_at from host_samples where host_id = $1 order by sampled_at offset $2 limit 1)";
    let kept: i64 = sqlx::query_scalar(query)
        .bind(host_id)
        .bind(reports + 1)
        .fetch_one(&mut connection)
        .await?;
    assert!(kept > 3, "{kept} processes");
    let operator = Operator::of(&fleet).await?;
    let shown = operator.in_force(&mut agent).await?;
    assert_eq!(shown["hash"], told);
    agent.terminate().await
}

#[tokio::test]
async fn a_shorter_interval_does_not_wait_for_the_end_of_the_longer_one() -> Result<()> {
    let fleet = Fleet::start("configuration-interval").await?;
    let operator = Operator::of(&fleet).await?;
    let token = fleet.deployment.create_token("agent-token", &[]).await?;
    let hour = Duration::from_hours(1);
    let options = AgentOptions { name: "agent".into(), interval: hour, ..AgentOptions::default() };
    let mut agent = AgentProcess::enroll(options, &token).await?;
    operator.set(agent.host_id()?, json!({ "interval_ms": 300 })).await?;
    agent.run()?;
    let mut connection = fleet.connect().await?;
    // By its own file it would make one report now and the next in an hour.
    wait_for_reports(&mut connection, &mut agent, 4).await?;
    operator.in_force(&mut agent).await?;
    agent.terminate().await
}
