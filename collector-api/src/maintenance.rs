//! The maintenance worker of every replica; one at a time holds the lease and works.
//!
//! Every round: buckets that ended are rolled up. Every minute: pieces of the series made ahead, floors
//! moved, late buckets rolled up again, old pieces dropped (one series per transaction), old rejects
//! purged. What fails is logged, counted and tried again next round; a
//! round that was cut short loses nothing, each step stands alone.

mod rollups;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Chain;
use crate::metrics::{
    MAINTENANCE_CLOCK_HELD, MAINTENANCE_CLOCK_LAG, MAINTENANCE_FAILURES, MAINTENANCE_LEADER,
    MAINTENANCE_PARTITIONS,
};
use crate::store::Store;
use crate::store::failure::Failure;
use crate::store::maintenance::{MaintenanceConnection, MaintenanceError};
use crate::store::series;

/// Time between rounds. Shorter than the lease, so that its holder keeps it.
const ROUND: Duration = Duration::from_secs(10);
/// Every how many rounds all the work is done; in the others only the roll-ups of what is new.
const WORK_EVERY: u32 = 6;
/// How often a step that lost against ingest for a lock is tried in one round.
const MAX_ATTEMPTS: u32 = 3;

/// Retention further behind the database's clock than this is told.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

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
        rollups::run(connection, false).await
    }
}

/// Everything that keeps the series in shape, once. A step that fails does not keep the others from
/// being done, unless the lease is lost; the first error is returned. `elapsed`: since this worker's
/// last call, zero the first time; retention advances no faster, whatever the database's clock says.
pub async fn work(
    connection: &mut MaintenanceConnection,
    elapsed: Duration,
) -> Result<(), MaintenanceError> {
    let mut outcome = Ok(());
    for series in series::all() {
        for attempt in 1..=MAX_ATTEMPTS {
            let made = connection.ensure_ahead(series).await;
            if again(&made, attempt) {
                continue;
            }
            note(&mut outcome, made.map(|made| count("made", series.name, u64::from(made))))?;
            break;
        }
        connection.renew().await?;
    }
    note(&mut outcome, move_floors(connection, elapsed).await)?;
    note(&mut outcome, rollups::run(connection, true).await)?;
    for series in series::all() {
        for attempt in 1..=MAX_ATTEMPTS {
            let dropped = connection.drop_older(series).await;
            if again(&dropped, attempt) {
                continue;
            }
            note(&mut outcome, dropped.map(|dropped| count("dropped", series.name, dropped)))?;
            break;
        }
        connection.renew().await?;
    }
    note(&mut outcome, connection.purge_rejects().await.map(drop))?;
    outcome
}

async fn move_floors(
    connection: &mut MaintenanceConnection,
    elapsed: Duration,
) -> Result<(), MaintenanceError> {
    let now = connection.clock().await?;
    let lag = connection.move_floors(now, elapsed).await?;
    metrics::gauge!(MAINTENANCE_CLOCK_LAG).set(lag.as_seconds_f64());
    if lag > CLOCK_TOLERANCE {
        metrics::counter!(MAINTENANCE_CLOCK_HELD).increment(1);
        tracing::warn!(
            database_clock = %now,
            lag_seconds = lag.whole_seconds(),
            "the database's clock is ahead of the time that passed: retention follows slowly; set the clock if it is wrong"
        );
    }
    Ok(())
}

/// Whether a step gave way to others for a lock and is tried again now.
fn again<T>(result: &Result<T, MaintenanceError>, attempt: u32) -> bool {
    matches!(result, Err(MaintenanceError::Store(error)) if error.failure() == Failure::Contention)
        && attempt < MAX_ATTEMPTS
}

/// Keeps the first error; a lost lease ends the round.
fn note(
    outcome: &mut Result<(), MaintenanceError>,
    step: Result<(), MaintenanceError>,
) -> Result<(), MaintenanceError> {
    match step {
        Err(MaintenanceError::LeaseLost) => Err(MaintenanceError::LeaseLost),
        Err(error) if outcome.is_ok() => {
            *outcome = Err(error);
            Ok(())
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "a maintenance step failed");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn count(change: &'static str, series: &'static str, pieces: u64) {
    if pieces > 0 {
        tracing::info!(series, pieces, "{change} partitions");
    }
    metrics::counter!(MAINTENANCE_PARTITIONS, "change" => change, "table" => series)
        .increment(pieces);
}
