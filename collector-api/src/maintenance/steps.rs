//! The steps of maintenance, in their order. Each stands alone: cut short anywhere it is done again
//! by whoever comes next, and what it committed it need not repeat.

use std::time::Duration;

use tokio::time::Instant;

use super::rollups;
use crate::metrics::{
    MAINTENANCE_CLOCK_HELD, MAINTENANCE_CLOCK_LAG, MAINTENANCE_PARTITIONS, MAINTENANCE_TABLE_BYTES,
    MAINTENANCE_TABLE_PARTITIONS,
};
use crate::store::failure::Failure;
use crate::store::maintenance::{MaintenanceConnection, MaintenanceError};
use crate::store::series::{self, Series};

/// How often a step that lost against ingest for a lock is tried in one round.
const MAX_ATTEMPTS: u32 = 3;
/// Batches of a step that removes rows, in one round.
const MAX_BATCHES: u32 = 20;

/// Longest that purges keep the other steps waiting, but for the piece that is under way.
const PURGE_BUDGET: Duration = Duration::from_secs(20);

/// Retention further behind the database's clock than this is told.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Pieces made before their first row.
    Ahead,
    /// Floors moved to the retention.
    Floors,
    /// Marked buckets computed.
    RollUps,
    /// Pieces below their floor dropped.
    Retention,
    /// Pieces that ended compressed, where the engine can.
    Compression,
    /// Tables measured, widths of their next pieces chosen.
    Sizes,
    /// Instances and processes removed that nothing needs.
    Dictionaries,
    /// Old rejects removed.
    Rejects,
    /// Alerts removed that were over long ago.
    Alerts,
    /// Ephemeral hosts that are gone decommissioned.
    Ephemeral,
    /// What operators want gone of hosts removed.
    Purges,
}

/// All of them. Roll-ups come before retention: what it drops must be rolled up.
pub(super) const STEPS: [Step; 11] = [
    Step::Ahead,
    Step::Floors,
    Step::RollUps,
    Step::Retention,
    Step::Compression,
    Step::Sizes,
    Step::Dictionaries,
    Step::Rejects,
    Step::Alerts,
    Step::Ephemeral,
    Step::Purges,
];

impl Step {
    /// As operators see it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ahead => "partitions_ahead",
            Self::Floors => "floors",
            Self::RollUps => "rollups",
            Self::Retention => "retention",
            Self::Compression => "compression",
            Self::Sizes => "sizes",
            Self::Dictionaries => "dictionaries",
            Self::Rejects => "rejects",
            Self::Alerts => "alerts",
            Self::Ephemeral => "ephemeral_hosts",
            Self::Purges => "purges",
        }
    }

    /// Does it. Returns what it counts.
    pub(super) async fn run(
        self,
        connection: &mut MaintenanceConnection,
        elapsed: Duration,
    ) -> Result<u64, MaintenanceError> {
        match self {
            Self::Floors => move_floors(connection, elapsed).await.map(|()| 0),
            Self::RollUps => rollups::run(connection, true).await,
            Self::Dictionaries => collect(connection).await,
            Self::Rejects => connection.purge_rejects().await,
            Self::Alerts => connection.purge_alerts().await,
            Self::Ephemeral => connection.retire_ephemeral().await,
            Self::Purges => purge(connection).await,
            Self::Ahead | Self::Retention | Self::Compression | Self::Sizes => {
                let (mut items, mut outcome) = (0, Ok(()));
                for series in series::all() {
                    match self.try_series(connection, series).await {
                        Ok(count) => items += count,
                        Err(MaintenanceError::LeaseLost) => {
                            return Err(MaintenanceError::LeaseLost);
                        }
                        Err(error) => outcome = Err(error),
                    }
                    connection.renew().await?;
                }
                outcome.map(|()| items)
            }
        }
    }

    /// Again, if it gave way to others for a lock.
    async fn try_series(
        self,
        connection: &mut MaintenanceConnection,
        series: &Series,
    ) -> Result<u64, MaintenanceError> {
        for _ in 1..MAX_ATTEMPTS {
            match self.run_series(connection, series).await {
                Err(MaintenanceError::Store(error)) if error.failure() == Failure::Contention => {
                    connection.renew().await?;
                }
                result => return result,
            }
        }
        self.run_series(connection, series).await
    }

    async fn run_series(
        self,
        connection: &mut MaintenanceConnection,
        series: &Series,
    ) -> Result<u64, MaintenanceError> {
        let count = match self {
            Self::Ahead => u64::from(connection.ensure_ahead(series).await?),
            Self::Retention => connection.drop_older(series).await?,
            Self::Compression => connection.compress_older(series).await?,
            _ => return measure(connection, series).await,
        };
        let change = match self {
            Self::Ahead => "made",
            Self::Retention => "dropped",
            _ => "compressed",
        };
        if count > 0 {
            tracing::info!(series = series.name, partitions = count, "{change} partitions");
        }
        metrics::counter!(MAINTENANCE_PARTITIONS, "change" => change, "table" => series.name)
            .increment(count);
        Ok(count)
    }
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

async fn measure(
    connection: &mut MaintenanceConnection,
    series: &Series,
) -> Result<u64, MaintenanceError> {
    let size = connection.measure(series).await?;
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!(MAINTENANCE_TABLE_BYTES, "table" => series.name).set(size.bytes as f64);
    metrics::gauge!(MAINTENANCE_TABLE_PARTITIONS, "table" => series.name)
        .set(f64::from(size.partitions));
    Ok(u64::from(size.partitions.unsigned_abs()))
}

/// Goes on with purges, oldest first, until none is left or the time is up.
async fn purge(connection: &mut MaintenanceConnection) -> Result<u64, MaintenanceError> {
    let deadline = Instant::now() + PURGE_BUDGET;
    let mut removed = 0;
    while let Some(purge) = connection.next_purge().await? {
        for piece in 0.. {
            let (rows, was_last) = connection.purge_piece(&purge, piece).await?;
            removed += rows;
            if was_last {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(removed);
            }
            connection.renew().await?;
        }
    }
    Ok(removed)
}

async fn collect(connection: &mut MaintenanceConnection) -> Result<u64, MaintenanceError> {
    let mut removed = 0;
    for _ in 0..MAX_BATCHES {
        let batch = connection.collect_instances().await?;
        connection.renew().await?;
        removed += batch;
        if batch == 0 {
            break;
        }
    }
    connection.mark_processes().await?;
    connection.renew().await?;
    Ok(removed + connection.collect_processes().await?)
}
