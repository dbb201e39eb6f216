//! What the maintenance worker did and how the series stand, for people.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::maintenance::{MaintenanceConnection, MaintenanceError};
use super::{Store, StoreError};

/// Maintenance as operators see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MaintenanceProgress {
    /// Whether a replica holds the lease.
    pub is_held: bool,
    /// Grows with every change of hands.
    pub epoch: i64,
    /// How far the roll-ups are.
    pub rollups: RollupProgress,
    /// What was done last.
    pub steps: Vec<MaintenanceStep>,
    /// The series, samples and roll-ups.
    pub tables: Vec<MaintenanceTable>,
}

/// How far the roll-ups are.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RollupProgress {
    /// Reports sampled up to then are late: they make their buckets be computed again.
    #[serde(with = "time::serde::rfc3339")]
    pub horizon_at: OffsetDateTime,
    /// Every bucket of 5 minutes up to then is computed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub fine_until: Option<OffsetDateTime>,
    /// Every bucket of an hour up to then is computed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub hour_until: Option<OffsetDateTime>,
    /// How far the 5 minutes are behind the database's clock; about 2 to 7 minutes is normal.
    pub lag_s: Option<f64>,
    /// Marks of buckets that wait to be computed.
    pub waiting: i64,
    /// Of these, of buckets that were computed before.
    pub waiting_late: i64,
}

/// One step of maintenance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MaintenanceStep {
    /// Its name.
    pub step: String,
    /// Its last success.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// What it took.
    pub duration_s: Option<f64>,
    /// What it counts (partitions, buckets, rows), then.
    pub items: i64,
    /// Failures since then.
    pub failures: i64,
    /// The last of them.
    #[serde(with = "time::serde::rfc3339::option")]
    pub failed_at: Option<OffsetDateTime>,
    /// The operation that failed.
    pub error: Option<String>,
}

/// One series.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MaintenanceTable {
    /// Its table.
    pub table: String,
    /// Computed from samples.
    pub is_rollup: bool,
    /// Width of the next partitions.
    pub partition_s: i64,
    /// How long rows are kept.
    pub retention_s: i64,
    /// Nothing older is accepted. Null: nothing was dropped yet.
    #[serde(with = "time::serde::rfc3339::option")]
    pub floor_at: Option<OffsetDateTime>,
    /// Null until the worker measured it, as are the next ones.
    pub partitions: Option<i32>,
    /// Of these, compressed.
    pub compressed_partitions: Option<i32>,
    /// On disk, indexes included.
    pub bytes: Option<i64>,
    /// Begin of the oldest partition.
    #[serde(with = "time::serde::rfc3339::option")]
    pub begins_at: Option<OffsetDateTime>,
    /// End of the newest partition.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ends_at: Option<OffsetDateTime>,
    /// When.
    #[serde(with = "time::serde::rfc3339::option")]
    pub measured_at: Option<OffsetDateTime>,
}

impl Store {
    /// What the worker did and how the series stand.
    pub async fn maintenance_progress(&self) -> Result<MaintenanceProgress, StoreError> {
        let row = sqlx::query!(
            r#"/* store::progress::maintenance_progress */
            select l.expires_at > now() as "is_held!", l.epoch, w.horizon,
                procfleet_rollup_until('5 minutes') as fine_until,
                procfleet_rollup_until('1 hour') as hour_until,
                extract(epoch from now() - procfleet_rollup_until('5 minutes'))::double precision as lag_s,
                (select count(*) from rollup_dirty) as "waiting!",
                (select count(*) from rollup_dirty where is_late) as "waiting_late!"
            from maintenance_lease l, rollup_watermark w"#
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::of("maintenance_progress"))?;
        let steps = sqlx::query_as!(
            MaintenanceStep,
            "/* store::progress::maintenance_progress */
            select step, finished_at, items, failures, failed_at, error,
                extract(epoch from finished_at - started_at)::double precision as duration_s
            from maintenance_steps order by step"
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("maintenance_progress.steps"))?;
        Ok(MaintenanceProgress {
            is_held: row.is_held,
            epoch: row.epoch,
            rollups: RollupProgress {
                horizon_at: row.horizon,
                fine_until: row.fine_until,
                hour_until: row.hour_until,
                lag_s: row.lag_s,
                waiting: row.waiting,
                waiting_late: row.waiting_late,
            },
            steps,
            tables: self.maintenance_tables().await?,
        })
    }

    /// The series as the worker measured them last.
    pub async fn maintenance_tables(&self) -> Result<Vec<MaintenanceTable>, StoreError> {
        sqlx::query_as!(
            MaintenanceTable,
            r#"/* store::progress::maintenance_tables */
            select s.series as "table", s.is_rollup,
                extract(epoch from s.chunk)::bigint as "partition_s!",
                extract(epoch from s.retention)::bigint as "retention_s!",
                nullif(s.raw_floor, '-infinity') as floor_at,
                t.partitions as "partitions?", t.compressed as "compressed_partitions?",
                t.bytes as "bytes?", t.begins_at, t.ends_at, t.measured_at as "measured_at?"
            from series s left join maintenance_tables t using (series)
            order by s.is_rollup, s.series"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("maintenance_tables"))
    }
}

impl MaintenanceConnection {
    /// Notes how a step ended that took `took` until now.
    pub async fn note_step(
        &mut self,
        step: &'static str,
        took: Duration,
        outcome: &Result<u64, MaintenanceError>,
    ) -> Result<(), MaintenanceError> {
        let (items, error) = match outcome {
            Ok(items) => (Some(i64::try_from(*items).unwrap_or(i64::MAX)), None),
            Err(MaintenanceError::LeaseLost) => return Ok(()),
            Err(MaintenanceError::Store(error)) => (None, Some(error.to_string())),
        };
        sqlx::query!(
            "/* store::progress::note_step */
            insert into maintenance_steps as known
                (step, started_at, finished_at, items, failures, failed_at, error)
            values ($1, now() - make_interval(secs => $2), case when $3::bigint is not null then now() end,
                coalesce($3, 0), case when $3 is null then 1 else 0 end, case when $3 is null then now() end, $4)
            on conflict (step) do update set
                started_at = case when $3 is null then known.started_at else excluded.started_at end,
                finished_at = coalesce(excluded.finished_at, known.finished_at),
                items = coalesce($3, known.items),
                failures = case when $3 is null then known.failures + 1 else 0 end,
                failed_at = excluded.failed_at, error = excluded.error",
            step,
            took.as_secs_f64(),
            items,
            error
        )
        .execute(&mut self.connection)
        .await
        .map_err(StoreError::of("note_step"))?;
        Ok(())
    }

    /// How far the roll-ups are behind the clock, seconds, and how many marks wait.
    pub async fn rollup_lag(&mut self) -> Result<(f64, i64), MaintenanceError> {
        let row = sqlx::query!(
            r#"/* store::progress::rollup_lag */
            select extract(epoch from now() - procfleet_rollup_until('5 minutes'))::double precision as "lag!",
                (select count(*) from rollup_dirty) as "waiting!""#
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("rollup_lag"))?;
        Ok((row.lag, row.waiting))
    }
}
