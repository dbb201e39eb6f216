//! A simulated agent and the configuration from the centre: it applies whatever it is told, at once.

use anyhow::{Context as _, Result, ensure};
use reqwest::Response;
use shared_model::configuration::CONFIGURATION_HEADER;
use shared_model::{Configuration, ConfigurationAnswer, ConfigurationStatus};

use super::SimulatedAgent;

/// What it knows of it.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// The hash that the last answer named, if one did.
    pub named: Option<String>,
    /// What the server was told.
    pub status: ConfigurationStatus,
    /// What is applied.
    pub configuration: Configuration,
}

impl Followed {
    pub(super) fn note(&mut self, response: &Response) {
        let named = response.headers().get(CONFIGURATION_HEADER);
        if let Some(named) = named.and_then(|named| named.to_str().ok()) {
            self.named = Some(named.to_owned());
        }
    }
}

impl SimulatedAgent {
    /// Fetches what the last answer named, unless it has it, applies it and says so.
    pub async fn follow(&mut self) -> Result<()> {
        if self.followed.named == self.followed.status.received {
            return Ok(());
        }
        let answer = self.tell().await?;
        self.followed.named = Some(answer.hash.clone());
        self.followed.configuration = answer.configuration;
        self.followed.status.received = Some(answer.hash.clone());
        self.followed.status.applied = Some(answer.hash);
        self.tell().await?;
        Ok(())
    }

    async fn tell(&self) -> Result<ConfigurationAnswer> {
        let url = format!("{}/v1/configuration", self.endpoints[self.endpoint]);
        let request = self.client.put(url).json(&self.followed.status);
        let response = request.send().await.context("tell the configuration's status")?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "PUT /v1/configuration answered {status}: {body}");
        serde_json::from_str(&body).context("a configuration")
    }
}
