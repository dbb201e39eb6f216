//! The database is gone for a minute: nobody panics, nothing is lost, nothing needs a restart.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::AgentProcess;
use fleet_sim::eventually::eventually;
use fleet_sim::postgres::PostgresCluster;
use fleet_sim::server::{Deployment, Doors};
use fleet_sim::simulated::SimulatedAgent;
use shared_model::{Record, Report, Timestamp};

use crate::fleet::{
    DEADLINE, compare_all, connect, settle, simulated, start_agent, wait_for_reports,
};

const OUTAGE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(500);

/// The files of an identity with their contents: what an alarmed agent would throw away.
fn identity_files(agent: &AgentProcess) -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(agent.state_dir().join("identity"))? {
        let path = entry?.path();
        files.push((path.clone(), std::fs::read(path)?));
    }
    files.sort();
    Ok(files)
}

/// Every agent makes reports and tries to send them for as long as the outage lasts.
async fn send_through_outage(agents: &mut [SimulatedAgent]) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < OUTAGE {
        for agent in &mut *agents {
            agent.produce(1);
            agent.send(100).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Sampling went on: the intervals of the reports cover the outage without a hole, and ticks that a busy
/// machine did not get to are counted, so that every second is a report or a skipped tick.
fn check_sampling(records: &[Record], outage: Range<Timestamp>) {
    let reports: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Report(report) if outage.contains(&report.sampled_at) => Some(report),
            Record::Report(_) | Record::Gap(_) => None,
        })
        .collect();
    for pair in reports.windows(2) {
        let apart = (pair[1].sampled_at - pair[0].sampled_at).as_seconds_f64();
        let interval = f64::from(pair[1].interval_ms) / 1000.0;
        assert!((apart - interval).abs() < 0.5, "{apart} s apart, an interval of {interval} s");
    }
    let skipped = |report: &Report| report.agent.losses.get("ticks_skipped").map_or(0, |n| *n);
    let (first, last) = (reports.first().unwrap(), reports.last().unwrap());
    let ticks = reports.len() as u64 + skipped(last) - skipped(first);
    println!("{} reports, {ticks} ticks in the outage", reports.len());
    assert!(ticks >= OUTAGE.as_secs() - 3, "{ticks} ticks, {} reports", reports.len());
}

#[tokio::test]
async fn sixty_seconds_without_a_database_lose_nothing() -> Result<()> {
    let mut cluster = PostgresCluster::start_new().await?;
    let doors = Doors::free()?;
    let deployment =
        Deployment::create("outage", &cluster.url, vec![doors.agent_endpoint()]).await?;
    let mut server = deployment.start("server", doors).await?;
    let pid = server.pid();
    let mut agent = start_agent(&deployment, "agent", Duration::from_secs(1), false).await?;
    let mut simulated = simulated(&deployment, 2).await?;
    wait_for_reports(&mut connect(&deployment).await?, &mut agent, 1).await?;
    for agent in &mut simulated {
        agent.produce(20);
        agent.drain(DEADLINE).await?;
    }
    let identity = identity_files(&agent)?;

    let began = crate::fleet::now();
    cluster.stop().await?;
    send_through_outage(&mut simulated).await?;
    server.check_alive().context("the server during the outage")?;
    agent.check_alive().context("the agent during the outage")?;
    for agent in &simulated {
        let counts = &agent.counts;
        let refused: u64 = counts.problems.values().sum();
        assert!(refused > 0, "{counts:?}");
        assert_eq!(counts.retry_after, refused, "each refusal says when to come back: {counts:?}");
        let codes: BTreeSet<_> = counts.problems.keys().map(String::as_str).collect();
        let calm = BTreeSet::from(["database_unavailable", "overloaded"]);
        assert!(codes.is_subset(&calm), "{counts:?}");
    }

    let ended = crate::fleet::now();
    cluster.start().await?;
    for agent in &mut simulated {
        agent.drain(DEADLINE).await?;
    }
    let mut connection = connect(&deployment).await?;
    let host_id = agent.host_id()?;
    let recovered = eventually(DEADLINE * 2, "the real agent recovers", async || {
        let newest: Option<time::OffsetDateTime> =
            sqlx::query_scalar("select max(sampled_at) from host_samples where host_id = $1")
                .bind(host_id)
                .fetch_one(&mut connection)
                .await?;
        let age = newest.map(|newest| crate::fleet::now() - newest);
        ensure!(age.is_some_and(|age| age < Duration::from_secs(5)), "the newest is {age:?} old");
        Ok(())
    });
    recovered.await.with_context(|| agent.log())?;
    assert_eq!(server.pid(), pid);
    server.check_alive()?;
    agent.check_alive()?;
    assert_eq!(identity_files(&agent)?, identity, "an outage changes no identity");
    let dead = agent.state_dir().join("dead");
    assert_eq!(std::fs::read_dir(dead).map_or(0, Iterator::count), 0, "nothing is quarantined");

    let real = settle(&mut connection, &mut agent).await?;
    let compared = compare_all(&mut connection, &simulated, &real).await?;
    println!("{compared:?}");
    assert_eq!(compared.gaps, 0);
    check_sampling(&real, began..ended);
    server.terminate().await
}
