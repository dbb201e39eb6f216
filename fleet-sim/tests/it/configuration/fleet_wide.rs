//! One change for five hundred hosts.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::eventually::eventually;
use fleet_sim::fleet::{Population, enroll};
use fleet_sim::simulated::SimulatedAgent;
use fleet_sim::simulated::plan::Shape;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Operator, quiet_agent};
use crate::fleet::{DEADLINE, Fleet, now};

const AGENTS: u64 = 500;
/// Agents that talk to the server at the same time.
const AT_ONCE: usize = 32;

/// Every agent makes one report and sends it, until it is stored.
async fn report(agents: Vec<SimulatedAgent>) -> Result<Vec<SimulatedAgent>> {
    each(agents, async |mut agent: SimulatedAgent| {
        agent.produce(1);
        let before = agent.counts.successes;
        agent.drain(DEADLINE).await?;
        ensure!(agent.counts.successes == before + 1, "{:?}", agent.counts);
        Ok(agent)
    })
    .await
}

async fn follow(agents: Vec<SimulatedAgent>) -> Result<Vec<SimulatedAgent>> {
    each(agents, async |mut agent: SimulatedAgent| {
        agent.follow().await?;
        Ok(agent)
    })
    .await
}

async fn each<F>(
    agents: Vec<SimulatedAgent>,
    work: impl Fn(SimulatedAgent) -> F,
) -> Result<Vec<SimulatedAgent>>
where
    F: Future<Output = Result<SimulatedAgent>> + Send + 'static,
{
    let (mut working, mut done) = (JoinSet::new(), Vec::new());
    for agent in agents {
        if working.len() >= AT_ONCE {
            done.push(working.join_next().await.context("nobody works")???);
        }
        working.spawn(work(agent));
    }
    while let Some(agent) = working.join_next().await {
        done.push(agent??);
    }
    Ok(done)
}

/// How many hosts say that they work by `hash`.
async fn applied(operator: &Operator<'_>, hash: &str) -> Result<usize> {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let path = format!("/v1/host-configurations?state=applied&limit=200{after}");
        let page = operator.get(&path).await?;
        let rows = page["items"].as_array().context("a page")?;
        count += rows.iter().filter(|row| row["applied"] == hash).count();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(count),
        }
    }
}

#[tokio::test]
async fn a_change_reaches_five_hundred_agents_with_their_next_report() -> Result<()> {
    let fleet = Fleet::start("configuration-fleet").await?;
    let operator = Operator::of(&fleet).await?;
    let token = fleet.deployment.join_token("simulated").await?;
    let population = Population::calm(AGENTS, Shape::SMALL);
    let started_at = now() - Duration::from_hours(1);
    let agents = enroll(&token, &population, 0..AGENTS, started_at).await?;
    let mut agents = follow(report(agents).await?).await?;
    let mut real =
        [quiet_agent(&fleet, "real-0", None).await?, quiet_agent(&fleet, "real-1", None).await?];
    let before = agents[0].followed.named.clone().context("no answer named a configuration")?;
    for agent in &mut real {
        operator.in_force(agent).await?;
    }
    assert_eq!(applied(&operator, &before).await?, agents.len() + real.len());

    let change = json!({ "interval_ms": 10_000, "profile": { "top": 5, "cpu_cores": 0.25 } });
    let everybody = json!({ "name": "all", "configuration": change });
    let (status, made) = operator.ask(Method::POST, "/v1/profiles", everybody).await?;
    assert_eq!(status, 201, "{made}");
    let told = operator.configuration(agents[0].host_id).await?;
    let hash = told["hash"].as_str().context("a hash")?.to_owned();
    assert_ne!(hash, before);
    // The server looks whether something changed once a second; from then on everybody is told.
    eventually(DEADLINE, "the change is visible", async || {
        agents[0].crash().await?;
        let named = agents[0].followed.named.as_ref();
        ensure!(named == Some(&hash), "{named:?}");
        Ok(())
    })
    .await?;
    let agents = report(agents).await?;
    let told = agents.iter().filter(|agent| agent.followed.named.as_ref() == Some(&hash)).count();
    assert_eq!(told as u64, AGENTS, "each heard of it in the answer to its next report");
    let agents = follow(agents).await?;
    assert!(agents.iter().all(|agent| agent.followed.configuration.interval_ms == Some(10_000)));
    for agent in &mut real {
        let shown = operator.in_force(agent).await?;
        assert_eq!(shown["hash"], *hash);
    }
    assert_eq!(applied(&operator, &hash).await?, agents.len() + real.len());

    let broken =
        json!({ "name": "broken", "configuration": { "redaction": { "patterns": ["("] } } });
    let (status, problem) = operator.ask(Method::POST, "/v1/profiles", broken).await?;
    assert_eq!(status, 422, "{problem}");
    assert!(problem.to_string().contains("redaction.patterns"), "{problem}");
    let agents = report(agents).await?;
    assert!(agents.iter().all(|agent| agent.followed.named.as_ref() == Some(&hash)));

    // One that its agent cannot apply, among five hundred that go on.
    let unable = &mut real[0];
    let own = json!({ "collect": { "disabled": ["gpu"] } });
    operator.set(unable.host_id()?, own).await?;
    let shown = operator
        .shows(unable, "the failure is told", |shown| shown["status"]["state"] == "failed")
        .await?;
    assert_eq!(shown["status"]["applied"], *hash, "it goes on with what it had: {shown}");
    assert_eq!(shown["status"]["failed"], shown["hash"]);
    assert_eq!(shown["in_force"], false);
    let error = shown["status"]["error"].as_str().context("an error")?;
    assert!(error.contains("collect.disabled") && error.contains("gpu"), "{error}");
    let list = operator.get("/v1/host-configurations?state=failed").await?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    operator
        .ask(Method::DELETE, &format!("/v1/hosts/{}/configuration", unable.host_id()?), Value::Null)
        .await?;
    let shown = operator.in_force(unable).await?;
    assert_eq!(shown["hash"], *hash);
    for agent in &mut real {
        agent.terminate().await?;
    }
    Ok(())
}
