//! `PUT /v1/configuration`: what became of what the centre told, for what it tells now.

use std::time::Duration;

use reqwest::Url;
use shared_model::{ConfigurationAnswer, ConfigurationStatus, Problem};

use super::news::is_hash;
use super::{Uplink, exchange, lock};

/// For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the server does not have the status, or there is nothing from it to use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// An endpoint that cannot be put before a path.
    #[error("{0} is no address")]
    Endpoint(Url),
    /// Nobody answers.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// Which server.
        endpoint: Url,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The server says no.
    #[error("{endpoint} refused: {words}")]
    Refused {
        /// Which server.
        endpoint: Url,
        /// Its words.
        words: String,
    },
    /// What it answered is not the protocol.
    #[error("{endpoint} answered what is no configuration")]
    BadAnswer {
        /// Which server.
        endpoint: Url,
        /// What is wrong with it; none: its hash is none.
        #[source]
        source: Option<serde_json::Error>,
    },
}

impl Uplink {
    /// Tells the server that answered last.
    pub async fn tell_configuration(
        &self,
        status: &ConfigurationStatus,
    ) -> Result<ConfigurationAnswer, ConfigurationError> {
        let client = lock(&self.client).clone();
        let last = lock(&self.status).endpoint.clone();
        let mut endpoints = self.endpoints.iter();
        let answered = endpoints.find(|endpoint| last.as_deref() == Some(endpoint.as_str()));
        let endpoint = answered.unwrap_or(&self.endpoints[0]).clone();
        let Ok(url) = endpoint.join("/v1/configuration") else {
            return Err(ConfigurationError::Endpoint(endpoint));
        };
        let answer = match exchange(client.put(url).timeout(PATIENCE).json(status)).await {
            Ok(answer) => answer,
            Err(source) => return Err(ConfigurationError::Unreachable { endpoint, source }),
        };
        if answer.status != 200 {
            let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
            let words = problem.map_or_else(
                || format!("HTTP {}", answer.status),
                |problem| format!("{}: {}", problem.code.as_str(), problem.detail),
            );
            return Err(ConfigurationError::Refused { endpoint, words });
        }
        match serde_json::from_slice::<ConfigurationAnswer>(&answer.body) {
            Ok(answer) if is_hash(&answer.hash) => Ok(answer),
            Ok(_) => Err(ConfigurationError::BadAnswer { endpoint, source: None }),
            Err(source) => Err(ConfigurationError::BadAnswer { endpoint, source: Some(source) }),
        }
    }
}
