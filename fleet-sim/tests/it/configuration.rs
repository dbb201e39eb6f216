//! Configuration from the centre, from an operator's request to what agents do by it.

mod changes;
mod fleet_wide;
mod trial;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::eventually::eventually;
use fleet_sim::server::ServerProcess;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fleet::{DEADLINE, Fleet};

/// An operator with every right.
pub(crate) struct Operator<'a> {
    server: &'a ServerProcess,
    key: String,
    client: reqwest::Client,
}

impl<'a> Operator<'a> {
    pub(crate) async fn of(fleet: &'a Fleet) -> Result<Self> {
        let key = fleet.deployment.create_api_key("admin").await?;
        fleet_sim::simulated::install_crypto();
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build()?;
        Ok(Self { server: &fleet.server, key, client })
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<(u16, Value)> {
        let url = format!("http://{}{path}", self.server.doors().operator);
        let mut request = self.client.request(method, url).bearer_auth(&self.key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let (status, answer) = self.ask(Method::GET, path, Value::Null).await?;
        ensure!(status == 200, "GET {path} answered {status}: {answer}");
        Ok(answer)
    }

    /// Sets what one host alone is to use.
    async fn set(&self, host_id: Uuid, configuration: Value) -> Result<()> {
        let path = format!("/v1/hosts/{host_id}/configuration");
        let body = json!({ "configuration": configuration });
        let (status, answer) = self.ask(Method::PUT, &path, body).await?;
        ensure!(status == 204, "PUT {path} answered {status}: {answer}");
        Ok(())
    }

    async fn configuration(&self, host_id: Uuid) -> Result<Value> {
        self.get(&format!("/v1/hosts/{host_id}/configuration")).await
    }

    /// Waits until REST shows what `is_it` looks for.
    async fn shows(
        &self,
        agent: &mut AgentProcess,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let host_id = agent.host_id()?;
        let shown = eventually(DEADLINE, what, async || {
            agent.check_alive()?;
            let shown = self.configuration(host_id).await?;
            ensure!(is_it(&shown), "{shown}");
            Ok(shown)
        });
        shown.await.with_context(|| agent.log())
    }

    async fn in_force(&self, agent: &mut AgentProcess) -> Result<Value> {
        self.shows(agent, "the agent works by it", |shown| shown["in_force"] == true).await
    }
}

/// A real agent that reports every half second what crosses thresholds that nothing crosses.
async fn quiet_agent(fleet: &Fleet, name: &str, limits: Option<&Path>) -> Result<AgentProcess> {
    let token = fleet.deployment.create_token(&format!("{name}-token"), &[]).await?;
    let never = u64::MAX.to_string();
    let mut environment = vec![
        ("PROCFLEET_AGENT_PROFILE__TOP", "0".to_owned()),
        ("PROCFLEET_AGENT_PROFILE__CPU_CORES", "1000".to_owned()),
        ("PROCFLEET_AGENT_PROFILE__MEMORY_BYTES", never.clone()),
        ("PROCFLEET_AGENT_PROFILE__DISK_BYTES_PER_SECOND", never.clone()),
        ("PROCFLEET_AGENT_PROFILE__NETWORK_BYTES_PER_SECOND", never),
    ];
    environment
        .extend(limits.map(|path| ("PROCFLEET_AGENT_LIMITS_FILE", path.display().to_string())));
    let interval = Duration::from_millis(500);
    let options =
        AgentOptions { name: name.into(), interval, environment, ..AgentOptions::default() };
    AgentProcess::start(options, &token).await
}
