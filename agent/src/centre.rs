//! The configuration from the centre: fetched, applied without a restart, proven or taken back.
//!
//! Every answer of the server names the hash of what is in force for this host. If it is not what was
//! received last, the agent sends its [`ConfigurationStatus`], is answered with what is in force, applies it
//! between two ticks and sends its status again. A status the server did not take is sent again at the
//! next contact: nothing is asked of a server that does not answer.
//!
//! What is applied is a *candidate* until [`TRIAL_REPORTS`](trial::TRIAL_REPORTS) reports made by it were
//! accepted; then it is the last known good ([`kept`]), which the agent goes back to, and starts with when
//! there is no server. A candidate is given up
//! - at once, if this agent cannot apply it (a collector it does not have, a pattern its engine does not know);
//! - when the first reports made by it are rejected although those before were not ([`trial`]);
//! - when the agent that tried it ended unexpectedly [`MAX_DEATHS`](desk::MAX_DEATHS) times: a candidate
//!   cannot hold an agent in a loop of crashes.
//!
//! What was given up is not fetched again until the server names another hash. What could not be applied is
//! tried once more by an agent that starts again (its file, its limits or the agent may be others); what
//! was tried and taken back, only by another version of the agent.
//!
//! Limits: reports and definitions that are in the spool already leave as they are, so a new redaction
//! pattern holds from the next report on. A disk that cannot be written keeps the agent from applying
//! anything, because a crash by it would not be counted.

pub mod desk;
pub mod kept;
pub mod trial;

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use shared_model::ConfigurationStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::desk::Desk;
use crate::causes::chain;
use crate::config::Config;
use crate::tls;
use crate::uplink::Uplink;

/// Shortest time between two conversations: replicas hear of a change at different times.
const PAUSE: Duration = Duration::from_secs(5);
/// Bound of the first wait after a failure, and of the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// What the sampler is to work by: what of it may change while the agent runs.
#[derive(Clone, Debug)]
pub struct Order {
    /// Grows with every order.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Config>,
}

/// A report that was appended, and by which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// [`Order::number`].
    pub number: u64,
    /// Of the report.
    pub stream_id: Uuid,
    /// Of the report.
    pub sequence: u64,
}

/// Follows the centre; see the module.
pub struct Follower {
    /// What it decides.
    pub desk: Desk,
    /// To the sampler.
    pub orders: watch::Sender<Order>,
    /// From the sampler.
    pub made: watch::Receiver<Option<Made>>,
    /// The sampler, to be woken.
    pub sampler: Thread,
}

/// What is remembered between two conversations.
struct Talk {
    /// The status that the server took.
    told: Option<ConfigurationStatus>,
    /// The next one is not earlier.
    next: Instant,
    failures: u32,
    /// [`crate::uplink::news::Contact::count`] when the last one failed: another contact comes first.
    failed_at: Option<u64>,
    /// The last one changed something and was not waited after.
    was_quick: bool,
}

impl Follower {
    /// Follows until `stop`.
    pub async fn run(&mut self, uplink: &Uplink, stop: &CancellationToken) {
        let (mut contact, mut delivered) = (uplink.contact(), uplink.delivered());
        let mut talk = Talk {
            told: None,
            next: Instant::now(),
            failures: 0,
            failed_at: None,
            was_quick: false,
        };
        loop {
            let made = *self.made.borrow_and_update();
            let verdict = self.desk.judge(made.as_ref(), &delivered.borrow_and_update());
            self.give(verdict);
            let heard = contact.borrow_and_update().clone();
            let is_news = heard.configuration.is_some()
                && (heard.configuration.as_deref() != self.desk.received()
                    || talk.told.as_ref() != Some(&self.desk.status()));
            let may_talk = is_news && talk.failed_at != Some(heard.count);
            let wait = talk.next.saturating_duration_since(Instant::now());
            if may_talk && wait.is_zero() {
                tokio::select! {
                    () = self.talk(uplink, &mut talk, heard.count) => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
            tokio::select! {
                Ok(()) = contact.changed() => {}
                Ok(()) = delivered.changed() => {}
                Ok(()) = self.made.changed() => {}
                () = tokio::time::sleep(wait), if may_talk => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One conversation.
    async fn talk(&mut self, uplink: &Uplink, talk: &mut Talk, contact: u64) {
        let status = self.desk.status();
        let taken = match uplink.tell_configuration(&status).await {
            Ok(answer) => {
                talk.told = Some(status);
                self.desk.take(answer).map_err(|error| chain(&error))
            }
            Err(error) => Err(chain(&error)),
        };
        match taken {
            Ok(order) => {
                (talk.failures, talk.failed_at) = (0, None);
                self.give(order);
                // What became of it is told at once.
                let is_changed = talk.told.as_ref() != Some(&self.desk.status());
                talk.was_quick = is_changed && !talk.was_quick;
                talk.next = Instant::now() + if talk.was_quick { Duration::ZERO } else { PAUSE };
            }
            Err(error) => {
                talk.failures += 1;
                talk.failed_at = Some(contact);
                let doubled = WAITS.0.saturating_mul(1 << talk.failures.min(16));
                let wait = doubled.min(WAITS.1).mul_f64(0.5 + tls::random_unit() / 2.0);
                talk.next = Instant::now() + wait;
                if talk.failures == 1 {
                    tracing::warn!(error, "the configuration of the centre is not known");
                }
            }
        }
    }

    fn give(&self, order: Option<Order>) {
        if let Some(order) = order {
            self.orders.send_replace(order);
            self.sampler.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
