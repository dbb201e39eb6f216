//! Which hosts are to run another release of the agent, told with every answer to their reports.
//!
//! Read every few seconds, not with each report: it is few hosts at a time (those of a rollout that are under way), the
//! answer is to be had without the database, and a host that hears it ten seconds later loses nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use shared_model::RELEASE_HEADER;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Chain;
use crate::store::{Store, StoreError};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);

/// What was read last: at most an entry for each host.
#[derive(Clone, Debug, Default)]
pub struct DesiredReleases(Arc<RwLock<HashMap<Uuid, i64>>>);

impl DesiredReleases {
    /// Says it in an answer to this host; nothing: it stays what it is.
    pub(super) fn tell(&self, host_id: Uuid, headers: &mut HeaderMap) {
        let desired = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&host_id).copied();
        if let Some(seq) = desired {
            headers.insert(HeaderName::from_static(RELEASE_HEADER), HeaderValue::from(seq));
        }
    }

    /// Looks.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let wanted = store.wanted_releases().await?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = wanted;
        Ok(())
    }

    /// Looks until `stop`. What was read before an outage of the database is still said in it.
    pub async fn run(&self, store: &Store, stop: &CancellationToken) {
        loop {
            if let Err(error) = self.refresh(store).await {
                tracing::debug!(error = %Chain(&error), "which releases hosts are to run is not known anew");
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }
}
