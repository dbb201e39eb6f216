//! Which tokens there are, in memory, to tell hosts from strangers before anybody is made to wait.
//!
//! Hosts behind one address share it with whoever else is there. So a request that shows the secret of a
//! live token is counted by its token, and only those that do not, by their address: a stranger uses up
//! what strangers have, and the hosts beside it still enrol. Memory decides over rates alone; whether the
//! token is good is asked of the database, later.
//!
//! An id that memory does not know makes it read all tokens again, at most once per [`REFRESH`]: so much
//! and no more do strangers make the database do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::secret;
use crate::error::Chain;
use crate::store::Store;

/// Shortest time between two readings.
const REFRESH: Duration = Duration::from_secs(1);
/// Most tokens kept: the newest. Hosts with others are strangers to the rates, and enrol as slowly.
const MAX_TOKENS: i64 = 10_000;

/// Digests of live tokens' secrets.
#[derive(Debug, Default)]
pub struct KnownTokens {
    known: Mutex<(Option<Instant>, HashMap<Uuid, Vec<u8>>)>,
}

impl KnownTokens {
    /// Whether `shown` is the secret of the live token `id`.
    pub async fn prove(&self, store: &Store, id: Uuid, shown: &str, now: Instant) -> bool {
        if let Some(proven) = self.look(id, shown) {
            return proven;
        }
        if !self.may_refresh(now) {
            return false;
        }
        match store.live_token_digests(MAX_TOKENS).await {
            Ok(digests) => {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).1 =
                    digests.into_iter().collect();
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "the enrolment tokens cannot be read");
            }
        }
        self.look(id, shown).unwrap_or(false)
    }

    fn look(&self, id: Uuid, shown: &str) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.1.get(&id).map(|digest| secret::matches(shown, Some(digest)))
    }

    fn may_refresh(&self, now: Instant) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let due = known.0.is_none_or(|at| now.saturating_duration_since(at) >= REFRESH);
        if due {
            known.0 = Some(now);
        }
        due
    }
}
