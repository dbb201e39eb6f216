//! Simulated agents and one server on each engine: what was sent is what is stored.

use anyhow::Result;
use fleet_sim::address::free_address;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::oracle;
use fleet_sim::proxy::{Faults, FaultyProxy};
use fleet_sim::server::{Deployment, Doors};
use sqlx::{Connection as _, PgConnection};

use crate::fleet::{DEADLINE, simulated};

async fn deliver(engine: Engine) -> Result<()> {
    let database = TestDatabase::create(engine).await?;
    let (doors, listen) = (Doors::free()?, free_address()?);
    let faults = Faults { drop_every: 3, ..Faults::default() };
    let proxy = FaultyProxy::start(listen, doors.agent, faults).await?;
    let endpoint = format!("https://{listen}");
    let deployment = Deployment::create("delivery", &database.url, vec![endpoint]).await?;
    let mut server = deployment.start("server", doors).await?;
    let mut agents = simulated(&deployment, 2).await?;
    proxy.set_harmful(true);
    for agent in &mut agents {
        for _ in 0..20 {
            agent.produce(3);
            agent.send(100).await?;
        }
        agent.drain(DEADLINE).await?;
    }
    let mut connection = PgConnection::connect(&database.url).await?;
    let mut lost = 0;
    for agent in &agents {
        println!("{:?}", agent.counts);
        let records: Vec<_> = agent.records.values().cloned().collect();
        let compared = oracle::compare(&mut connection, &records).await?;
        assert_eq!((compared.reports, compared.gaps), (60, 0));
        assert!(agent.counts.duplicates > 0, "a dropped response is repeated: {:?}", agent.counts);
        lost += agent.counts.lost;
    }
    let counts = proxy.counts();
    println!("{counts:?}");
    assert!(counts.responses >= 40, "{counts:?}");
    assert_eq!(counts.requests, counts.responses, "{counts:?}");
    assert_eq!(counts.dropped_responses, counts.responses / 3, "{counts:?}");
    assert_eq!(lost, counts.dropped_responses, "what is lost here was dropped: {counts:?}");
    server.terminate().await
}

#[tokio::test]
async fn what_was_sent_is_stored_once_in_timescaledb() -> Result<()> {
    deliver(Engine::TimescaleDb).await
}

#[tokio::test]
async fn what_was_sent_is_stored_once_in_postgresql() -> Result<()> {
    deliver(Engine::PostgreSql).await
}
