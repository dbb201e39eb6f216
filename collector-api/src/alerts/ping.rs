//! A dead man's switch: an address elsewhere hears from every replica once a minute, as long as alerts
//! would be found and told. Whoever listens there tells when it falls quiet: nobody here could.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sender::Sender;
use crate::config::secret_url::SecretUrl;
use crate::error::Chain;
use crate::metrics::PINGS;
use crate::store::Store;

/// Time between pings.
const EVERY: Duration = Duration::from_mins(1);
/// Without a sweep for longer nobody would notice a silent host.
const MAX_SWEEP_AGE_S: f64 = 30.0;
/// A message that is due for longer is not being told.
const MAX_OUTBOX_LAG_S: f64 = 300.0;

/// What became of a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinged {
    /// Heard.
    Heard,
    /// Kept back: alerts do not work. Why.
    KeptBack(String),
    /// Sent, and not heard. Why, without the address.
    Failed(String),
}

/// Runs until `stop`.
pub async fn run(store: Store, sender: Sender, url: SecretUrl, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let outcome = match ping(&store, &sender, &url).await {
            Pinged::Heard => "heard",
            Pinged::KeptBack(why) => {
                tracing::warn!(%why, "the dead man's switch is not pinged");
                "kept_back"
            }
            Pinged::Failed(why) => {
                tracing::warn!(%why, "the dead man's switch did not hear the ping");
                "failed"
            }
        };
        metrics::counter!(PINGS, "outcome" => outcome).increment(1);
    }
}

/// Pings once, if alerts work.
pub async fn ping(store: &Store, sender: &Sender, url: &SecretUrl) -> Pinged {
    let health = match store.alerting_health().await {
        Ok(health) => health,
        Err(error) => return Pinged::KeptBack(Chain(&error).to_string()),
    };
    if health.sweep_age_s.is_none_or(|age_s| age_s > MAX_SWEEP_AGE_S) {
        return Pinged::KeptBack("nobody looks for silent hosts".into());
    }
    if health.outbox_lag_s > MAX_OUTBOX_LAG_S {
        return Pinged::KeptBack(format!("messages are late by {:.0} s", health.outbox_lag_s));
    }
    sender.ping(url.expose()).await.map_or_else(Pinged::Failed, |()| Pinged::Heard)
}
