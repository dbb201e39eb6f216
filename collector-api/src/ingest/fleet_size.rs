//! How many hosts the fleet has, counted now and then, told with every answer to reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use shared_model::FLEET_SIZE_HEADER;
use tokio_util::sync::CancellationToken;

use crate::error::Chain;
use crate::store::Store;

/// Between two counts.
const PAUSE: Duration = Duration::from_secs(15);

/// The last count; 0: there is none.
#[derive(Clone, Debug, Default)]
pub struct FleetSize(Arc<AtomicU32>);

impl FleetSize {
    /// For an answer; empty: unknown.
    pub fn headers(&self) -> HeaderMap {
        let hosts = self.0.load(Ordering::Relaxed);
        let value = (hosts > 0).then(|| HeaderValue::from(hosts));
        value.map(|value| (HeaderName::from_static(FLEET_SIZE_HEADER), value)).into_iter().collect()
    }

    /// Counts until `stop`.
    pub async fn run(&self, store: &Store, stop: &CancellationToken) {
        loop {
            match store.fleet_size().await {
                Ok(hosts) => self.0.store(hosts, Ordering::Relaxed),
                Err(error) => tracing::debug!(error = %Chain(&error), "the fleet is not counted"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }
}
