//! Says in the database that this server runs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Chain;
use crate::store::Store;
use crate::store::replicas::Myself;

/// Time between two notes: a minute without one is silence.
const NOTED_EVERY: Duration = Duration::from_secs(15);

/// Runs until `stop`, and says that, too.
pub(super) async fn run(store: Store, me: Myself, stop: CancellationToken) {
    loop {
        if let Err(error) = store.note_replica(&me).await {
            tracing::debug!(error = %Chain(&error), "not noted that this server lives");
        }
        if stop.run_until_cancelled(tokio::time::sleep(NOTED_EVERY)).await.is_none() {
            break;
        }
    }
    if let Err(error) = store.note_replica_stopped(me.replica_id).await {
        tracing::debug!(error = %Chain(&error), "not noted that this server ends");
    }
}
