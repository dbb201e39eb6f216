//! An endpoint that dies is told by the agents that report through another one.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::server::{Deployment, Doors};
use serde_json::Value;
use sqlx::Connection as _;

use crate::fleet::{DEADLINE, start_agent};

const AGENTS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_fail_over_tell_of_the_dead_endpoint_through_the_living_one() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let (first, second) = (Doors::free()?, Doors::free()?);
    let endpoints = vec![first.agent_endpoint(), second.agent_endpoint()];
    let deployment = Deployment::create("endpoints", &database.url, endpoints.clone()).await?;
    let mut dies = deployment.start("server-1", first).await?;
    let mut lives = deployment.start("server-2", second).await?;
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        let name = format!("endpoints-{n}");
        agents.push(start_agent(&deployment, &name, Duration::from_secs(1), false).await?);
    }
    let mut db = sqlx::PgConnection::connect(&database.url).await?;
    eventually(DEADLINE, "every agent reports", async || {
        let heard = "select count(*) from heartbeats where last_seen_at is not null";
        let heard: i64 = sqlx::query_scalar(heard).fetch_one(&mut db).await?;
        ensure!(usize::try_from(heard)? == AGENTS, "{heard} report");
        Ok(())
    })
    .await?;
    dies.kill()?;
    eventually(DEADLINE * 2, "one alert with every witness", async || {
        let open = "select detail from alerts where rule = 'endpoint_down' and resolved_at is null";
        let found: Vec<Value> = sqlx::query_scalar(open).fetch_all(&mut db).await?;
        ensure!(found.len() == 1, "{found:?}");
        ensure!(found[0]["witnesses"] == AGENTS, "{found:?}");
        ensure!(found[0]["object"] == endpoints[0].as_str(), "{found:?}");
        Ok(())
    })
    .await?;
    let others =
        "select count(*) from alerts where rule not in ('endpoint_down', 'observation_gap')";
    let others: i64 = sqlx::query_scalar(others).fetch_one(&mut db).await?;
    ensure!(others == 0, "nobody is silent: they report to the other server");
    for agent in &mut agents {
        agent.terminate().await?;
    }
    lives.terminate().await
}
