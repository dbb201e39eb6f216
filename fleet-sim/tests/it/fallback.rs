//! When no server answers, the fallback channel is told; and told again when one does.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::child::Directory;
use fleet_sim::eventually::eventually;
use fleet_sim::provider::ProviderStandIn;

use crate::fleet::{DEADLINE, Fleet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_server_tells_the_fallback_channel_once_and_of_the_return() -> Result<()>
{
    let mut fleet = Fleet::start("fallback").await?;
    let robot = ProviderStandIn::start(7).await?;
    let directory = Directory::create("fallback-url")?;
    let url_file = directory.path().join("url");
    std::fs::write(&url_file, format!("http://{}/send?key=canary-key", robot.address))?;
    std::fs::set_permissions(&url_file, std::fs::Permissions::from_mode(0o600))?;
    let token = fleet.deployment.create_token("fallback", &[]).await?;
    let environment = vec![
        ("PROCFLEET_AGENT_FALLBACK__KIND", "wecom".to_owned()),
        ("PROCFLEET_AGENT_FALLBACK__URL_FILE", url_file.display().to_string()),
        ("PROCFLEET_AGENT_FALLBACK__AFTER_S", "5".to_owned()),
    ];
    let options = AgentOptions {
        name: "fallback".into(),
        interval: Duration::from_secs(1),
        environment,
        ..AgentOptions::default()
    };
    let mut agent = AgentProcess::start(options, &token).await?;
    // In a fleet of one it is the one who speaks.
    let size_file = agent.state_dir().join("fleet-size");
    eventually(DEADLINE, "the agent knows how large the fleet is", async || {
        let size = std::fs::read_to_string(&size_file)?;
        ensure!(size == "1", "{size}");
        Ok(())
    })
    .await?;
    ensure!(robot.messages().is_empty(), "a server answers");
    fleet.server.terminate().await?;
    let told = |count: usize| {
        let messages = robot.messages();
        ensure!(messages.len() == count, "{messages:?}");
        Ok(messages)
    };
    eventually(DEADLINE, "the channel is told", async || told(1)).await?;
    fleet.server.restart(&fleet.deployment)?;
    fleet.server.wait_ready().await?;
    let messages = eventually(DEADLINE, "the return is told", async || told(2)).await?;
    let text = |n: usize| messages[n]["text"]["content"].to_string();
    ensure!(
        text(0).contains("no server has answered") && text(0).contains("of 1 hosts"),
        "{}",
        text(0)
    );
    ensure!(text(1).contains("answers") && text(1).contains("again"), "{}", text(1));
    let log = agent.log();
    ensure!(!log.contains("canary"), "the address is a credential: {log}");
    agent.terminate().await?;
    fleet.server.terminate().await
}
