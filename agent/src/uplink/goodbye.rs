//! The last word to the server: that the agent stops, and why.
//!
//! Best effort, within [`PATIENCE`]: a server that does not hear it merely takes the host for silent
//! after its deadline, as it would a crash.

use std::time::Duration;

use shared_model::{Goodbye, GoodbyeNote, PLACE_HEADER};

use super::{Uplink, exchange, lock};

/// For all endpoints together: a host that goes down does not wait for long.
const PATIENCE: Duration = Duration::from_secs(3);

impl Uplink {
    /// Tells the first endpoint that takes it. Whether one did.
    pub async fn say_goodbye(&self, reason: Goodbye) -> bool {
        let told = tokio::time::timeout(PATIENCE, self.tell(reason)).await.unwrap_or(false);
        if told {
            tracing::info!(reason = reason.as_str(), "said goodbye to the server");
        } else {
            tracing::info!(reason = reason.as_str(), "no server heard the goodbye");
        }
        told
    }

    async fn tell(&self, reason: Goodbye) -> bool {
        let client = lock(&self.client).clone();
        let last = lock(&self.status).endpoint.clone();
        let mut endpoints: Vec<_> = self.endpoints.iter().collect();
        // The one that answered last goes first.
        endpoints.sort_by_key(|endpoint| last.as_deref() != Some(endpoint.as_str()));
        for endpoint in endpoints {
            let Ok(url) = endpoint.join("/v1/goodbye") else { continue };
            match exchange(
                client.post(url).header(PLACE_HEADER, &self.place).json(&GoodbyeNote { reason }),
            )
            .await
            {
                Ok(answer) if answer.status == 204 => return true,
                Ok(answer) => tracing::debug!(%endpoint, status = answer.status, "goodbye refused"),
                Err(error) => tracing::debug!(%endpoint, %error, "goodbye not heard"),
            }
        }
        false
    }
}
