//! Servers behind a real load balancer: all work, one dies, a new one gets its share, nothing is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::address::free_address;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::haproxy::HaproxyProcess;
use fleet_sim::server::{Deployment, Doors};

use crate::fleet::{
    DEADLINE, compare_all, connect, settle, simulated, start_agent, wait_for_reports,
};

#[tokio::test]
async fn one_of_two_servers_dies_and_nothing_is_lost() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let (listen, doors) = (free_address()?, [Doors::free()?, Doors::free()?]);
    let endpoint = format!("https://{listen}");
    let deployment = Deployment::create("load-balancer", &database.url, vec![endpoint]).await?;
    let mut first = deployment.start("server-0", doors[0]).await?;
    let mut second = deployment.start("server-1", doors[1]).await?;
    let mut haproxy = HaproxyProcess::start(listen, &doors).await?;
    let api_key = deployment.create_api_key("admin").await?;
    let mut agent = start_agent(&deployment, "agent", Duration::from_millis(500), false).await?;
    let mut simulated = simulated(&deployment, 4).await?;

    eventually(DEADLINE, "both servers store reports", async || {
        for agent in &mut simulated {
            agent.produce(2);
            agent.send(100).await?;
        }
        for server in [&first, &second] {
            let stored =
                server.metric(&api_key, "procfleet_ingest_reports_total", "accepted").await?;
            ensure!(stored > 0.0, "one server stored nothing: {:?}", server.doors());
        }
        Ok(())
    })
    .await?;

    for agent in &mut simulated {
        agent.produce(30);
        agent.send(5).await?;
    }
    first.kill()?;
    for agent in &mut simulated {
        agent.produce(10);
        agent.drain(DEADLINE).await?;
    }
    let mut connection = connect(&deployment).await?;
    let reports = crate::fleet::report_count(&mut connection, agent.host_id()?).await?;
    wait_for_reports(&mut connection, &mut agent, reports).await?;
    let real = settle(&mut connection, &mut agent).await?;
    let compared = compare_all(&mut connection, &simulated, &real).await?;
    assert_eq!(compared.gaps, 0);
    haproxy.check_alive()?;
    second.terminate().await
}

/// TCP balancers never move a connection: without an age, a new replica would wait for ever.
#[tokio::test]
async fn a_new_server_gets_load_without_any_restart() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let (listen, doors) = (free_address()?, [Doors::free()?, Doors::free()?]);
    let endpoint = format!("https://{listen}");
    let mut deployment = Deployment::create("scale-out", &database.url, vec![endpoint]).await?;
    deployment.environment = vec![("PROCFLEET_AGENT_DOOR__MAX_CONNECTION_AGE_S", "1".into())];
    let mut first = deployment.start("server-0", doors[0]).await?;
    let _haproxy = HaproxyProcess::start(listen, &doors).await?;
    let api_key = deployment.create_api_key("admin").await?;
    let mut simulated = simulated(&deployment, 4).await?;
    for agent in &mut simulated {
        agent.produce(2);
        agent.drain(DEADLINE).await?;
    }
    let mut second = deployment.start("server-1", doors[1]).await?;
    eventually(DEADLINE, "the new server stores reports", async || {
        for agent in &mut simulated {
            agent.produce(1);
            agent.drain(DEADLINE).await?;
        }
        let stored = second.metric(&api_key, "procfleet_ingest_reports_total", "accepted").await?;
        ensure!(stored > 0.0, "nothing");
        Ok(())
    })
    .await?;
    for agent in &simulated {
        assert_eq!(agent.counts.lost, 0, "an aged connection ends between two requests");
    }
    first.terminate().await?;
    second.terminate().await
}
