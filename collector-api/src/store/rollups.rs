//! Roll-ups: marking buckets, and computing marked buckets. Why they are equal to the samples:
//!
//! **Every bucket with samples is marked after they were committed.** Ingest holds [`FLOOR_LOCK`]
//! shared from before it reads the horizon until it commits; the horizon is moved under that lock held
//! exclusively. So a transaction either committed before the horizon passed its bucket, and then
//! the expansion, later, marks the bucket for that host; or it knows that the bucket is late, and
//! appends a mark in the same transaction as the samples.
//!
//! **A mark disappears only with a computation that saw what it stands for.** The worker deletes the
//! marks it can see and computes in one transaction, the computation in a later statement. At READ
//! COMMITTED that statement has a newer snapshot, so it sees the samples of every transaction whose
//! mark was deleted. A transaction that commits meanwhile appended a mark that the delete
//! could not see: it stays, and the bucket is computed again. Nobody waits for anybody. A worker
//! that dies rolls back both, and two workers exclude each other by the lease.
//!
//! **A bucket's samples are complete when it is computed.** Ingest refuses what is older than the
//! committed floor, and [`MaintenanceConnection::drop_older`](super::maintenance::MaintenanceConnection::drop_older)
//! drops only what is an hour older than the floor, than the oldest mark and than the expansion. Pieces
//! begin at whole hours, so no piece that holds a part of a marked bucket is gone.
//!
//! Hours are computed from the 5 minutes in the same way: whoever computes a bucket of 5 minutes
//! marks its hour in the same transaction, unless the hour is not over; then its last bucket does.

use std::collections::BTreeSet;

use shared_model::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::cursors::FLOOR_LOCK;
use super::dialect::Dialect;
use super::maintenance::{MaintenanceConnection, MaintenanceError, guard};
use super::series::Series;

/// Width of the finer buckets, seconds.
const FINE_S: i32 = 300;
/// Width of the coarser buckets, seconds.
const HOUR_S: i32 = 3600;
/// How long after the end of a bucket its reports are no longer "on time", seconds.
const LAG_S: i32 = 120;
/// Buckets that one expansion marks per host: an hour's.
const EXPAND_BUCKETS: i32 = 12;
/// Without it a transaction that changes more than 100,000 rows of the columnstore fails.
pub const UNLIMITED_DECOMPRESSION: &str = "/* store::rollups::prepare */
    set local timescaledb.max_tuples_decompressed_per_dml_transaction = 0";
/// Marks taken by one transaction.
const BATCH: i64 = 400;

macro_rules! rollup {
    ($name:literal, $columns:literal = $values:literal) => {
        Series {
            name: $name,
            copy: "",
            host_key: "host_id",
            sentinel: concat!(
                "/* store::dialect::ensure_chunk */ insert into ", $name,
                " (sampled_at, first_sampled_at, last_sampled_at, host_id, covered_ms, sample_count, ", $columns,
                ") values ($1, $1, $1, '00000000-0000-0000-0000-000000000000', 0, 0, ", $values, ")"
            ),
            remove_sentinel: concat!(
                "/* store::dialect::ensure_chunk */ delete from ", $name,
                " where sampled_at = $1 and host_id = '00000000-0000-0000-0000-000000000000'"
            ),
        }
    };
    (process $name:literal) => {
        rollup!(
            $name,
            "instance_id, memory_usage_samples, memory_swap_samples, thread_count_samples, \
            file_descriptor_samples, process_count_max" = "0, 0, 0, 0, 0, 0"
        )
    };
    (host $name:literal) => {
        rollup!(
            $name,
            "load_1m_samples, load_5m_samples, load_15m_samples, memory_total_samples, \
            memory_used_samples, memory_available_samples, memory_free_samples, \
            swap_total_samples, swap_used_samples, agent_memory_usage_samples, \
            agent_spool_reports_samples, agent_spool_bytes_samples, processes_running_samples, \
            processes_total_samples" = "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"
        )
    };
}

/// What is computed from the series, cut into pieces and kept like them.
pub const ROLLUPS: [Series; 4] = [
    rollup!(process "process_rollup_5m"),
    rollup!(host "host_rollup_5m"),
    rollup!(process "process_rollup_1h"),
    rollup!(host "host_rollup_1h"),
];

/// The two widths of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 5 minutes, from samples.
    Fine,
    /// An hour, from 5 minutes.
    Hour,
}

impl Width {
    fn seconds(self) -> i32 {
        match self {
            Self::Fine => FINE_S,
            Self::Hour => HOUR_S,
        }
    }

    /// The roll-ups of this width.
    pub fn series(self) -> &'static [Series] {
        let (fine, hour) = ROLLUPS.split_at(2);
        match self {
            Self::Fine => fine,
            Self::Hour => hour,
        }
    }
}

/// Buckets that a transaction brings samples of although they may have been computed.
#[derive(Debug, Default)]
pub(super) struct LateBuckets(BTreeSet<(Uuid, Timestamp)>);

impl LateBuckets {
    pub(super) fn add(&mut self, host_id: Uuid, sampled_at: Timestamp) {
        self.0.insert((host_id, bucket_end(sampled_at)));
    }

    /// Marks them, in the transaction that stores the samples.
    pub(super) async fn mark(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (hosts, buckets): (Vec<_>, Vec<_>) = self.0.iter().copied().unzip();
        sqlx::query!(
            "/* store::rollups::mark */
            insert into rollup_dirty (host_id, sampled_at, width_s, is_late)
            select host_id, sampled_at, $3, true
            from unnest($1::uuid[], $2::timestamptz[]) as t (host_id, sampled_at)",
            &hosts,
            &buckets,
            FINE_S
        )
        .execute(connection)
        .await
        .map_err(StoreError::of("insert_reports.mark_late"))?;
        Ok(())
    }
}

/// End of the 5 minutes that hold `sampled_at`, as `procfleet_bucket` says in SQL.
fn bucket_end(sampled_at: Timestamp) -> Timestamp {
    let width = i128::from(FINE_S) * 1_000_000_000;
    // PostgreSQL keeps microseconds, so what is below one is no reason to be in the next bucket.
    let nanoseconds = sampled_at.unix_timestamp_nanos().div_euclid(1000) * 1000;
    let end = (nanoseconds + width - 1).div_euclid(width) * width;
    Timestamp::from_unix_timestamp_nanos(end).unwrap_or(sampled_at)
}

impl MaintenanceConnection {
    /// Moves the horizon to the last bucket that ended [`LAG_S`] ago. Returns whether it moved.
    pub async fn advance_horizon(&mut self) -> Result<bool, MaintenanceError> {
        let due = sqlx::query_scalar!(
            r#"/* store::rollups::advance_horizon */
            select horizon + make_interval(secs => $1) + make_interval(secs => $2) <= now() as "due!" from rollup_watermark"#,
            f64::from(LAG_S),
            f64::from(FINE_S)
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("advance_horizon.look"))?;
        if !due {
            return Ok(false);
        }
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("advance_horizon.begin"))?;
        guard(&mut transaction, self.lease).await?;
        sqlx::query!(
            "/* store::rollups::advance_horizon */ select pg_advisory_xact_lock($1)",
            FLOOR_LOCK
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("advance_horizon.lock"))?;
        sqlx::query!(
            "/* store::rollups::advance_horizon */
            update rollup_watermark set horizon = greatest(horizon,
                date_bin(make_interval(secs => $2), clock_timestamp() - make_interval(secs => $1),
                    '2000-01-01 00:00:00+00'))",
            f64::from(LAG_S),
            f64::from(FINE_S)
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("advance_horizon"))?;
        transaction.commit().await.map_err(StoreError::of("advance_horizon.commit"))?;
        Ok(true)
    }

    /// Marks the next buckets below the horizon for every host that may have samples in them. Does
    /// nothing while such marks are left, so that there are never more than an hour's. Returns
    /// whether the expansion moved.
    pub async fn expand(&mut self) -> Result<bool, MaintenanceError> {
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("expand.begin"))?;
        guard(&mut transaction, self.lease).await?;
        // A host that may have samples in a bucket committed some after the bucket began, less the
        // clocks' tolerance: a day is more than that.
        let moved = sqlx::query!(
            "/* store::rollups::expand */
            with step as (
                select expanded, least(horizon, expanded + $1 * make_interval(secs => $2)) as until
                from rollup_watermark
                where expanded < horizon
                    and not exists (select from rollup_dirty where width_s = 300 and not is_late)
            ), marked as (
                insert into rollup_dirty (host_id, sampled_at, width_s, is_late)
                select host_id, bucket, 300, false
                from step,
                    generate_series(expanded + make_interval(secs => $2), until, make_interval(secs => $2)) as bucket,
                    (select host_id, max(updated_at) as updated_at from ingest_cursors group by host_id) as hosts
                where updated_at > bucket - interval '1 day'
            )
            update rollup_watermark set expanded = until from step",
            f64::from(EXPAND_BUCKETS),
            f64::from(FINE_S)
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("expand"))?
        .rows_affected();
        transaction.commit().await.map_err(StoreError::of("expand.commit"))?;
        Ok(moved > 0)
    }

    /// Computes some marked buckets of `width`, those that are late or those that are not. Returns
    /// how many; 0 means that none are left.
    pub async fn roll_up(
        &mut self,
        width: Width,
        is_late: bool,
    ) -> Result<usize, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("roll_up.begin"))?;
        guard(&mut transaction, lease).await?;
        prepare(&mut transaction, self.dialect).await?;
        let buckets = Buckets::take(&mut transaction, width, is_late).await?;
        let Some(range) = buckets.range() else { return Ok(0) };
        buckets.remove(&mut transaction, width, range).await?;
        buckets.compute(&mut transaction, width, range).await?;
        if width == Width::Fine {
            buckets.mark_hours(&mut transaction, is_late).await?;
        }
        transaction.commit().await.map_err(StoreError::of("roll_up.commit"))?;
        Ok(buckets.hosts.len())
    }

    /// Makes the pieces that marked buckets of `width` go into: those of late data may be missing.
    pub async fn ensure_rollups(&mut self, width: Width) -> Result<(), MaintenanceError> {
        guard(&mut self.connection, self.lease).await?;
        let marked = sqlx::query_scalar!(
            r#"/* store::rollups::ensure_rollups */
            select distinct date_bin('1 hour', sampled_at, '2000-01-01 00:00:00+00') as "hour!"
            from rollup_dirty where width_s = $1"#,
            width.seconds()
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(StoreError::of("ensure_rollups"))?;
        for series in width.series() {
            self.dialect
                .ensure_series(&mut self.connection, series, marked.iter().copied())
                .await?;
        }
        Ok(())
    }
}

/// The plan must not depend on statistics of pieces that are minutes old: always by
/// `(host_id, sampled_at)`. What is lost in a crash is computed again, so nobody waits for the disk.
async fn prepare(transaction: &mut PgConnection, dialect: Dialect) -> Result<(), StoreError> {
    // A late bucket of a compressed piece, should there be one, is taken out of the columnstore whatever it takes.
    if dialect.capabilities().compression {
        sqlx::raw_sql(UNLIMITED_DECOMPRESSION)
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::of("roll_up.prepare"))?;
    }
    sqlx::raw_sql(
        "/* store::rollups::prepare */ set local synchronous_commit = off;
        set local enable_hashjoin = off; set local enable_mergejoin = off;
        set local enable_seqscan = off; set local jit = off",
    )
    .execute(transaction)
    .await
    .map_err(StoreError::of("roll_up.prepare"))?;
    Ok(())
}

/// Buckets whose marks were taken, distinct.
#[derive(Debug, Default)]
struct Buckets {
    hosts: Vec<Uuid>,
    ends: Vec<Timestamp>,
}

impl Buckets {
    async fn take(
        transaction: &mut PgConnection,
        width: Width,
        is_late: bool,
    ) -> Result<Self, StoreError> {
        let marks = sqlx::query!(
            "/* store::rollups::take */
            with next as materialized (
                select distinct host_id, sampled_at from (
                    select host_id, sampled_at from rollup_dirty
                    where width_s = $1 and is_late = $2
                    order by sampled_at, host_id limit $3) as oldest
            )
            delete from rollup_dirty as mark using next
            where mark.width_s = $1 and mark.host_id = next.host_id and mark.sampled_at = next.sampled_at
            returning mark.host_id, mark.sampled_at",
            width.seconds(),
            is_late,
            BATCH
        )
        .fetch_all(transaction)
        .await
        .map_err(StoreError::of("roll_up.take"))?;
        let distinct: BTreeSet<_> =
            marks.into_iter().map(|mark| (mark.sampled_at, mark.host_id)).collect();
        let (ends, hosts) = distinct.into_iter().unzip();
        Ok(Self { hosts, ends })
    }

    /// The first and the last; sorted by end.
    fn range(&self) -> Option<(Timestamp, Timestamp)> {
        self.ends.first().copied().zip(self.ends.last().copied())
    }

    /// Removes what was computed of them before.
    async fn remove(
        &self,
        transaction: &mut PgConnection,
        width: Width,
        (from, until): (Timestamp, Timestamp),
    ) -> Result<(), StoreError> {
        for series in width.series() {
            // A name from the constant list of roll-ups.
            let statement = format!(
                "/* store::rollups::remove */
                delete from {} r using unnest($1::uuid[], $2::timestamptz[]) as d (host_id, sampled_at)
                where r.host_id = d.host_id and r.sampled_at = d.sampled_at
                    and r.sampled_at between $3 and $4",
                series.name
            );
            sqlx::query(AssertSqlSafe(statement))
                .bind(&self.hosts)
                .bind(&self.ends)
                .bind(from)
                .bind(until)
                .execute(&mut *transaction)
                .await
                .map_err(StoreError::of("roll_up.remove"))?;
        }
        Ok(())
    }

    async fn compute(
        &self,
        transaction: &mut PgConnection,
        width: Width,
        (from, until): (Timestamp, Timestamp),
    ) -> Result<(), StoreError> {
        let Self { hosts, ends } = self;
        let (processes, of_hosts) = match width {
            Width::Fine => (
                sqlx::query_file!("src/store/rollups/process_5m.sql", hosts, ends, from, until),
                sqlx::query_file!("src/store/rollups/host_5m.sql", hosts, ends, from, until),
            ),
            Width::Hour => (
                sqlx::query_file!("src/store/rollups/process_1h.sql", hosts, ends, from, until),
                sqlx::query_file!("src/store/rollups/host_1h.sql", hosts, ends, from, until),
            ),
        };
        for (query, operation) in
            [(processes, "roll_up.compute_processes"), (of_hosts, "roll_up.compute_hosts")]
        {
            query.execute(&mut *transaction).await.map_err(StoreError::of(operation))?;
        }
        Ok(())
    }

    /// Marks the hours of these buckets, those that are over. The last bucket of an hour is
    /// computed after the expansion reached the hour's end, so no hour is forgotten.
    async fn mark_hours(
        &self,
        transaction: &mut PgConnection,
        is_late: bool,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "/* store::rollups::mark_hours */
            insert into rollup_dirty (host_id, sampled_at, width_s, is_late)
            select distinct t.host_id, procfleet_bucket('1 hour', t.sampled_at), 3600, $3::boolean
            from unnest($1::uuid[], $2::timestamptz[]) as t (host_id, sampled_at)
            where procfleet_bucket('1 hour', t.sampled_at) <= (select expanded from rollup_watermark)",
            &self.hosts,
            &self.ends,
            is_late
        )
        .execute(transaction)
        .await
        .map_err(StoreError::of("roll_up.mark_hours"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_bucket_holds_its_end_and_not_its_beginning() {
        let at = datetime!(2026-11-22 10:00 UTC);
        assert_eq!(bucket_end(at), at);
        assert_eq!(bucket_end(at + Duration::nanoseconds(999)), at);
        assert_eq!(bucket_end(at + Duration::microseconds(1)), at + Duration::minutes(5));
        assert_eq!(bucket_end(at - Duration::microseconds(1)), at);
        assert_eq!(bucket_end(datetime!(1969-12-31 23:59:59 UTC)), datetime!(1970-01-01 0:00 UTC));
    }
}
