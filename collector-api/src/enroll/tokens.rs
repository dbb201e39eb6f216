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
    digests: Mutex<HashMap<Uuid, Vec<u8>>>,
    /// When they were read last. Held while they are read: who asks meanwhile waits for the answer.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

impl KnownTokens {
    /// Whether `shown` is the secret of the live token `id`.
    pub async fn prove(&self, store: &Store, id: Uuid, shown: &str) -> bool {
        if let Some(proven) = self.look(id, shown) {
            return proven;
        }
        let mut read_at = self.read_at.lock().await;
        if read_at.is_none_or(|at| at.elapsed() >= REFRESH) {
            match store.live_token_digests(MAX_TOKENS).await {
                Ok(digests) => {
                    *self.digests.lock().unwrap_or_else(PoisonError::into_inner) =
                        digests.into_iter().collect();
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "the enrolment tokens cannot be read");
                }
            }
            *read_at = Some(Instant::now());
        }
        self.look(id, shown).unwrap_or(false)
    }

    fn look(&self, id: Uuid, shown: &str) -> Option<bool> {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(&id).map(|digest| secret::matches(shown, Some(digest)))
    }
}
