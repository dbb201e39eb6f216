//! Sweeps for silence, on every replica.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Chain;
use crate::metrics::{ALERTS_OPENED, ALERTS_RESOLVED, SWEEP_FAILURES, SWEEP_SECONDS};
use crate::store::Store;

/// Time from the begin of a round to that of the next: of "3 intervals and 20 s" it leaves one second.
const ROUND: Duration = Duration::from_secs(4);
/// Shortest pause between two, however long the first one took.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    loop {
        let begun = Instant::now();
        match store.sweep_silence().await {
            Ok(swept) => {
                if swept.ran {
                    metrics::histogram!(SWEEP_SECONDS).record(begun.elapsed().as_secs_f64());
                }
                metrics::counter!(ALERTS_OPENED).increment(swept.opened as u64);
                metrics::counter!(ALERTS_RESOLVED).increment(swept.resolved as u64);
                if swept.gap {
                    tracing::warn!(
                        "nobody swept for a while: the deadlines of all hosts were moved"
                    );
                }
            }
            Err(error) => {
                metrics::counter!(SWEEP_FAILURES).increment(1);
                tracing::warn!(error = %Chain(&error), "a sweep for silent hosts failed");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND.saturating_sub(begun.elapsed()).max(LEAST_PAUSE)) => {}
            () = stop.cancelled() => break,
        }
    }
}
