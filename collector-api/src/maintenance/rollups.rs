//! One pass over the buckets that are due: moves the horizon, marks what it passed, computes what is
//! marked. What is new goes first, so that a backlog of late data does not keep readers waiting.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{
    MAINTENANCE_BUCKETS, MAINTENANCE_FAILURES, MAINTENANCE_MARKS, MAINTENANCE_ROLLUP_LAG,
};
use crate::store::failure::Failure;
use crate::store::maintenance::{MaintenanceConnection, MaintenanceError};
use crate::store::rollups::Width;

/// Longest a pass may take before other work gets its turn.
const BUDGET: Duration = Duration::from_secs(20);

/// Computes until nothing is marked or the time is up. `late`: also what was computed before.
/// Returns how many buckets.
pub(super) async fn run(
    connection: &mut MaintenanceConnection,
    late: bool,
) -> Result<u64, MaintenanceError> {
    let deadline = Instant::now() + BUDGET;
    match connection.advance_horizon().await {
        Err(MaintenanceError::Store(error)) if error.failure() == Failure::Contention => {
            // Ingest was busy; what is marked already can be computed all the same.
            metrics::counter!(MAINTENANCE_FAILURES).increment(1);
        }
        result => drop(result?),
    }
    let mut buckets = 0;
    while connection.expand().await? {
        buckets += drain(connection, false, deadline).await?;
    }
    buckets += drain(connection, false, deadline).await?;
    if late {
        buckets += drain(connection, true, deadline).await?;
    }
    let (lag, waiting) = connection.rollup_lag().await?;
    metrics::gauge!(MAINTENANCE_ROLLUP_LAG).set(lag);
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!(MAINTENANCE_MARKS).set(waiting as f64);
    Ok(buckets)
}

async fn drain(
    connection: &mut MaintenanceConnection,
    is_late: bool,
    deadline: Instant,
) -> Result<u64, MaintenanceError> {
    let mut buckets = 0;
    for (width, label) in [(Width::Fine, "5m"), (Width::Hour, "1h")] {
        while Instant::now() < deadline {
            let computed = match connection.roll_up(width, is_late).await {
                Err(MaintenanceError::Store(error))
                    if error.failure() == Failure::MissingPartition =>
                {
                    connection.ensure_rollups(width).await?;
                    connection.roll_up(width, is_late).await?
                }
                result => result?,
            };
            connection.renew().await?;
            metrics::counter!(MAINTENANCE_BUCKETS, "width" => label).increment(computed as u64);
            buckets += computed as u64;
            if computed == 0 {
                break;
            }
        }
    }
    Ok(buckets)
}
