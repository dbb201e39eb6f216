//! The way of somebody who tries Procfleet for the first time: a token, an agent, and the name of the
//! process that eats the CPU.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::eventually::eventually;
use serde_json::Value;

use crate::fleet::{DEADLINE, Fleet, Workload, wait_for_deltas};

#[tokio::test]
async fn the_culprit_is_found_by_its_command_line() -> Result<()> {
    let fleet = Fleet::start("first-culprit").await?;
    // Every process is kept: beside the compilers of a busy machine the culprit may be no culprit.
    let mut agent = fleet.agent("agent", Duration::from_millis(500), true).await?;
    let mut connection = fleet.connect().await?;
    wait_for_deltas(&mut connection, &mut agent).await?;

    let words = ["--database=billing", "--password=hunter2"];
    let mut culprit = Workload::start("culprit", fleet.deployment.directory.path(), &words)?;
    culprit.tell("burn 1500")?;
    culprit.wait_done().await?;

    let key = fleet.deployment.create_api_key("viewer").await?;
    let host_id = agent.host_id()?;
    let path = format!("/v1/hosts/{host_id}/processes?from=-5m&sort=cpu&limit=500");
    let found = eventually(DEADLINE, "the culprit is shown", async || {
        let answer: Value = serde_json::from_str(&fleet.server.get(&path, &key).await?)?;
        let processes = answer["processes"].as_array().cloned().unwrap_or_default();
        let culprit = processes.into_iter().find(|process| process["pid"] == culprit.child.pid());
        let culprit = culprit.ok_or_else(|| anyhow::anyhow!("{answer:#}"))?;
        ensure!(culprit["cpu_us"].as_i64() > Some(1_200_000), "{culprit:#}");
        Ok(culprit)
    })
    .await?;
    let command_line = found["command_line"].as_str().unwrap_or_default();
    assert!(command_line.contains("workload --database=billing"), "{found:#}");
    assert!(!command_line.contains("hunter2"), "secrets stay on the host: {found:#}");

    let hosts: Value = serde_json::from_str(&fleet.server.get("/v1/hosts", &key).await?)?;
    assert!(hosts.to_string().contains(&host_id.to_string()), "{hosts:#}");
    culprit.finish().await?;
    agent.terminate().await
}
