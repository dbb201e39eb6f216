//! The maintenance worker of every replica; one at a time holds the lease and works.
//!
//! Every round: buckets that ended are rolled up. Every minute: all [`steps`], in order. What fails is
//! logged, counted, noted for operators and tried again next round; a round that was cut short loses
//! nothing, each step stands alone.

mod rollups;
mod steps;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Chain;
use crate::metrics::{MAINTENANCE_FAILURES, MAINTENANCE_LEADER};
use crate::store::Store;
use crate::store::maintenance::{MaintenanceConnection, MaintenanceError};

use self::steps::STEPS;

/// Time between rounds. Shorter than the lease, so that its holder keeps it.
const ROUND: Duration = Duration::from_secs(10);
/// Every how many rounds all the work is done; in the others only the roll-ups of what is new.
const WORK_EVERY: u32 = 6;
/// Works until `stop`. Never fails: what goes wrong is logged, counted, and tried again.
pub async fn run(store: Store, stop: CancellationToken) {
    let holder = Uuid::new_v4();
    let mut connection: Option<MaintenanceConnection> = None;
    let (mut round, mut worked_at) = (0_u32, None);
    loop {
        match one_round(&store, holder, &mut connection, round, &mut worked_at).await {
            Ok(()) => round = round.wrapping_add(1),
            Err(error) => {
                metrics::counter!(MAINTENANCE_FAILURES).increment(1);
                tracing::warn!(error = %Chain(&error), "a maintenance round failed");
                metrics::gauge!(MAINTENANCE_LEADER).set(0.0);
                (connection, round, worked_at) = (None, 0, None);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = stop.cancelled() => break,
        }
    }
    if let Some(connection) = connection
        && let Err(error) = connection.release().await
    {
        tracing::debug!(error = %Chain(&error), "the maintenance lease expires by itself");
    }
}

async fn one_round(
    store: &Store,
    holder: Uuid,
    held: &mut Option<MaintenanceConnection>,
    round: u32,
    worked_at: &mut Option<Instant>,
) -> Result<(), MaintenanceError> {
    let connection = match held {
        Some(connection) => {
            connection.renew().await?;
            connection
        }
        None => match store.maintenance_connection(holder).await? {
            Some(connection) => {
                tracing::info!(
                    epoch = connection.lease().epoch,
                    "this replica maintains the database"
                );
                held.insert(connection)
            }
            None => return Ok(()),
        },
    };
    metrics::gauge!(MAINTENANCE_LEADER).set(1.0);
    if round.is_multiple_of(WORK_EVERY) {
        let now = Instant::now();
        let elapsed = worked_at.replace(now).map(|worked_at| now - worked_at);
        work(connection, elapsed.unwrap_or_default()).await
    } else {
        rollups::run(connection, false).await.map(drop)
    }
}

/// Every step, once. A step that fails does not keep the others from being done, unless the lease
/// is lost; the first error is returned. `elapsed`: since this worker's last call, zero the first
/// time; retention advances no faster, whatever the database's clock says.
pub async fn work(
    connection: &mut MaintenanceConnection,
    elapsed: Duration,
) -> Result<(), MaintenanceError> {
    let mut outcome = Ok(());
    for step in STEPS {
        let begun = Instant::now();
        let result = step.run(connection, elapsed).await;
        connection.note_step(step.name(), begun.elapsed(), &result).await?;
        match result {
            Err(MaintenanceError::LeaseLost) => return Err(MaintenanceError::LeaseLost),
            Err(error) if outcome.is_ok() => outcome = Err(error),
            Err(error) => tracing::warn!(error = %Chain(&error), "a maintenance step failed"),
            Ok(_) => {}
        }
        connection.renew().await?;
    }
    outcome
}
