//! Servers say that they run, and that they end.

use std::time::Duration;

use fleet_sim::eventually::eventually;

use crate::fleet::Fleet;

async fn states(fleet: &Fleet) -> Vec<String> {
    fleet.store.replicas().await.unwrap().into_iter().map(|replica| replica.state).collect()
}

async fn wait_for(fleet: &Fleet, expected: &[&str]) {
    eventually(Duration::from_secs(30), "the servers' states", async || {
        let found = states(fleet).await;
        anyhow::ensure!(found == expected, "{found:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_seen_while_they_run_and_after() {
    let fleet = Fleet::create("replicas").await;
    let (first, second) = (fleet.serve(&fleet.config()).await, fleet.serve(&fleet.config()).await);
    wait_for(&fleet, &["up", "up"]).await;
    let listed = fleet.store.replicas().await.unwrap();
    let doors: Vec<String> = listed.into_iter().map(|replica| replica.operator_door).collect();
    for server in [&first, &second] {
        assert!(doors.contains(&server.addresses.operator.to_string()), "{doors:?}");
    }
    first.lifecycle.stop.cancel();
    wait_for(&fleet, &["up", "stopped"]).await;
    second.lifecycle.stop.cancel();
    wait_for(&fleet, &["stopped", "stopped"]).await;
    fleet
        .execute("update server_replicas set stopped_at = null, seen_at = now() - interval '61 s'")
        .await;
    assert_eq!(states(&fleet).await, ["silent", "silent"]);
}
