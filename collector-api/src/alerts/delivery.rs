//! Delivers what the outbox holds: claim, send, mark.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::evidence;
use super::message::Message;
use super::provider::Verdict;
use super::sender::Sender;
use super::wording::Language;
use crate::error::Chain;
use crate::metrics::{NOTIFICATION_ATTEMPTS, NOTIFICATION_FAILURES};
use crate::store::notifications::{Claim, Outcome};
use crate::store::{Store, StoreError};

/// Pause while nothing is due.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause after the database did not answer.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// Runs until `stop`. A message under way is finished first.
pub async fn run(store: Store, sender: Sender, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match deliver_one(&store, &sender).await {
            Ok(true) => continue,
            Ok(false) => PAUSE,
            Err(error) => {
                metrics::counter!(NOTIFICATION_FAILURES).increment(1);
                tracing::warn!(error = %Chain(&error), "the outbox cannot be read or marked");
                FAILED_PAUSE
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Sends one message, if one is due.
pub async fn deliver_one(store: &Store, sender: &Sender) -> Result<bool, StoreError> {
    let Some(claim) = store.claim_notifications().await? else { return Ok(false) };
    let message = Message {
        language: Language::parse(&claim.channel.language),
        items: claim.notifications.clone(),
        now: claim.now,
        page: sender.page(),
        busiest: evidence::busiest(store, &claim.notifications, claim.now).await,
    };
    let verdict = sender.send(&claim.channel, &message).await;
    note(&claim, &verdict);
    store.finish_claim(&claim, &outcome(verdict)).await?;
    Ok(true)
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Delivered => Outcome::Sent,
        Verdict::Later(hold_s, why) => Outcome::Retry { why, hold_s },
        Verdict::TooLong(why) | Verdict::Refused(why) => Outcome::Dead { why },
    }
}

fn note(claim: &Claim, verdict: &Verdict) {
    let (name, why) = match verdict {
        Verdict::Delivered => ("delivered", None),
        Verdict::Later(_, why) => ("later", Some(why)),
        Verdict::TooLong(why) | Verdict::Refused(why) => ("refused", Some(why)),
    };
    let kind = claim.channel.kind.clone();
    metrics::counter!(NOTIFICATION_ATTEMPTS, "kind" => kind, "verdict" => name).increment(1);
    if let Some(why) = why {
        let told = claim.notifications.len();
        tracing::warn!(channel.id = %claim.channel.channel_id, told, verdict = name, %why, "a message was not delivered");
    }
}
