//! Asks the servers where a stream stands, beside delivery: for people and scripts that wait for a report to be taken.

use std::time::Duration;

use shared_model::ReportsAnswer;
use uuid::Uuid;

use super::{Uplink, exchange, lock};

/// For all endpoints together.
const PATIENCE: Duration = Duration::from_secs(10);

impl Uplink {
    /// The stream's cursor, committed: how far a server has taken it. None: no server says.
    pub async fn cursor(&self, stream_id: Uuid) -> Option<u64> {
        tokio::time::timeout(PATIENCE, self.ask_cursor(stream_id)).await.ok().flatten()
    }

    async fn ask_cursor(&self, stream_id: Uuid) -> Option<u64> {
        let client = lock(&self.client).clone();
        for endpoint in &self.endpoints {
            let Ok(mut url) = endpoint.join("/v1/cursor") else { continue };
            url.query_pairs_mut().append_pair("stream_id", &stream_id.to_string());
            match exchange(client.get(url)).await {
                Ok(answer) if answer.status == 200 => {
                    let answer: ReportsAnswer = serde_json::from_slice(&answer.body).ok()?;
                    return Some(answer.acknowledged_sequence);
                }
                Ok(answer) => tracing::debug!(%endpoint, status = answer.status, "no cursor"),
                Err(error) => tracing::debug!(%endpoint, %error, "no cursor"),
            }
        }
        None
    }
}
