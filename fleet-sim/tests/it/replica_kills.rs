//! Replicas die by SIGKILL while they tell alerts: nothing is lost, and little is told twice.

use anyhow::Result;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::replica_kills::{Plan, run};
use fleet_sim::server::Deployment;

/// The long form, a minute and 1,000 transitions: `cargo xtask bench alerts`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_lose_nothing_and_repeat_at_most_what_they_held() -> Result<()> {
    let database = TestDatabase::create(Engine::PostgreSql).await?;
    let plan = Plan { kills: 15, alerts: 120, age_leases: true, seed: 6 };
    let mut deployment = Deployment::create("kills", &database.url, Vec::new()).await?;
    let outcome = run(&mut deployment, &plan).await?;
    println!("{outcome:?}");
    assert_eq!(outcome.transitions, 248);
    assert_eq!(outcome.lost, Vec::<String>::new());
    assert_eq!(outcome.disordered, Vec::<String>::new());
    assert!(outcome.repeated <= outcome.kills, "{outcome:?}");
    Ok(())
}
