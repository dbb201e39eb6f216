//! The lease behind which one replica maintains the database, and the transactions it guards.
//!
//! Every guarded transaction first reads the lease `FOR SHARE` under its own epoch. Whoever takes
//! the lease over must update that row, so it waits for the transaction, or the transaction finds
//! another epoch and does nothing: a worker that lost its lease while it slept cannot commit.

use std::time::Duration;

use shared_model::Timestamp;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::cursors::FLOOR_LOCK;
use super::dialect::Dialect;
use super::series::Series;
use super::{Store, StoreError};

/// How long a lease lasts without renewal, seconds.
pub const LEASE_SECONDS: i32 = 30;
/// Rejects older than this are removed, days.
const REJECT_RETENTION_DAYS: i32 = 30;
/// How long alerts that are over are kept, and silences that ended.
const ALERT_RETENTION_DAYS: i32 = 90;
/// How much faster than real time retention's clock may catch up with the database's.
const CATCH_UP: u32 = 24;
/// Rejects removed in one transaction.
const PURGE_BATCH: i64 = 10_000;

/// The right to maintain, as long as nobody took it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it: random per process.
    pub holder: Uuid,
    /// Grows with every change of hands.
    pub epoch: i64,
}

/// Why maintenance stopped.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// Another worker holds the lease now.
    #[error("the maintenance lease was lost")]
    LeaseLost,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A connection that maintains the database under a lease.
#[derive(Debug)]
pub struct MaintenanceConnection {
    pub(super) connection: PgConnection,
    pub(super) dialect: Dialect,
    pub(super) lease: Lease,
}

impl Store {
    /// Takes the lease if it is free or already ours, and connects. `None`: another holds it.
    pub async fn maintenance_connection(
        &self,
        holder: Uuid,
    ) -> Result<Option<MaintenanceConnection>, StoreError> {
        let options = self
            .pool
            .connect_options()
            .as_ref()
            .clone()
            .application_name("procfleet-maintenance")
            .options([
                ("statement_timeout", "60s"),
                ("lock_timeout", "2s"),
                // Times decide which pieces are touched: a generic plan would not see them.
                ("plan_cache_mode", "force_custom_plan"),
            ]);
        let mut connection = PgConnection::connect_with(&options)
            .await
            .map_err(StoreError::of("maintenance.connect"))?;
        let Some(epoch) = take_lease(&mut connection, holder).await? else { return Ok(None) };
        let dialect = Dialect::detect(&mut connection).await?;
        Ok(Some(MaintenanceConnection { connection, dialect, lease: Lease { holder, epoch } }))
    }
}

async fn take_lease(
    connection: &mut PgConnection,
    holder: Uuid,
) -> Result<Option<i64>, StoreError> {
    sqlx::query_scalar!(
        "/* store::maintenance::take_lease */
        update maintenance_lease
        set holder = $1,
            epoch = case when holder = $1 and expires_at > now() then epoch else epoch + 1 end,
            expires_at = now() + make_interval(secs => $2::integer)
        where holder = $1 or expires_at <= now()
        returning epoch",
        holder,
        LEASE_SECONDS
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::of("take_lease"))
}

impl MaintenanceConnection {
    /// The lease it works under.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// What the series are stored in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Makes the lease last [`LEASE_SECONDS`] from now.
    pub async fn renew(&mut self) -> Result<(), MaintenanceError> {
        match take_lease(&mut self.connection, self.lease.holder).await? {
            Some(epoch) if epoch == self.lease.epoch => Ok(()),
            _ => Err(MaintenanceError::LeaseLost),
        }
    }

    /// Gives the lease back, so that another replica need not wait for it to expire.
    pub async fn release(mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "/* store::maintenance::release */
            update maintenance_lease set expires_at = '-infinity' where holder = $1 and epoch = $2",
            self.lease.holder,
            self.lease.epoch
        )
        .execute(&mut self.connection)
        .await
        .map_err(StoreError::of("release_lease"))?;
        self.connection.close().await.map_err(StoreError::of("release_lease.close"))
    }

    /// Makes the pieces of `series` for now and the next two widths. Returns how many were missing.
    pub async fn ensure_ahead(&mut self, series: &Series) -> Result<u32, MaintenanceError> {
        self.fence().await?;
        let row = sqlx::query!(
            r#"/* store::maintenance::ensure_ahead */
            select now() as "now!", now() + 2 * chunk as "until!" from series where series = $1"#,
            series.name
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("ensure_ahead"))?;
        let made =
            self.dialect.ensure_ahead(&mut self.connection, series, row.now, row.until).await?;
        Ok(made)
    }

    /// The database's clock.
    pub async fn clock(&mut self) -> Result<Timestamp, MaintenanceError> {
        sqlx::query_scalar!(r#"/* store::maintenance::clock */ select clock_timestamp() as "now!""#)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|error| StoreError::of("clock")(error).into())
    }

    /// Moves the floor of every series to its retention before now: from this commit on nothing
    /// older is accepted, and nothing older is still under way. A roll-up is kept at least as long as
    /// what it is computed from. Returns how far retention's clock stays behind `now`.
    ///
    /// "Now" is retention's own clock. It follows the database's, but advances no faster than
    /// `elapsed`, the time this worker measured since its last pass; or [`CATCH_UP`] times that while
    /// it is behind the newest stored sample (the servers were stopped for a while). So a clock that
    /// jumps ahead drops nothing by itself, and one that jumps together with the hosts' drops a day
    /// per hour, while the gauge and the log tell. It goes back with the database's at once.
    pub async fn move_floors(
        &mut self,
        now: Timestamp,
        elapsed: Duration,
    ) -> Result<time::Duration, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("move_floors.begin"))?;
        guard(&mut transaction, lease).await?;
        sqlx::query!(
            "/* store::maintenance::move_floors */ select pg_advisory_xact_lock($1)",
            FLOOR_LOCK
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("move_floors.lock"))?;
        let clock = sqlx::query_scalar!(
            r#"/* store::maintenance::move_floors */
            update maintenance_lease set retention_clock = least($1, greatest(
                coalesce(retention_clock, $1) + make_interval(secs => $2),
                least((select coalesce(max(last_sampled_at), '-infinity') from heartbeats),
                    coalesce(retention_clock, $1) + make_interval(secs => $3))))
            returning retention_clock as "clock!""#,
            now,
            elapsed.as_secs_f64(),
            (elapsed * CATCH_UP).as_secs_f64()
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(StoreError::of("move_floors.clock"))?;
        sqlx::query!(
            "/* store::maintenance::move_floors */
            with kept as (
                select series, case
                    when not is_rollup then retention
                    when series like '%5m' then greatest(retention, max(retention) filter (where not is_rollup) over ())
                    else greatest(retention, max(retention) filter (where series not like '%1h') over ())
                    end as kept
                from series
            )
            update series set raw_floor = $1::timestamptz - kept from kept
            where kept.series = series.series and raw_floor < $1::timestamptz - kept",
            clock
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("move_floors"))?;
        transaction.commit().await.map_err(StoreError::of("move_floors.commit"))?;
        Ok(now - clock)
    }

    /// Drops the pieces of `series` below its committed floor, and an hour below what is not rolled
    /// up yet: nothing is lost that a roll-up still needs. Returns how many.
    pub async fn drop_older(&mut self, series: &Series) -> Result<u64, MaintenanceError> {
        self.fence().await?;
        let floor = sqlx::query_scalar!(
            "/* store::maintenance::drop_older */
            select least(raw_floor - interval '1 microsecond', w.expanded - interval '1 hour',
                (select min(sampled_at) - interval '1 hour' from rollup_dirty))
            from series, rollup_watermark w where series = $1 and raw_floor > '-infinity'",
            series.name
        )
        .fetch_optional(&mut self.connection)
        .await
        .map_err(StoreError::of("drop_older.floor"))?
        .flatten();
        let Some(floor) = floor else { return Ok(0) };
        self.dialect.prepare_drop(&mut self.connection, series, floor).await?;
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("drop_older.begin"))?;
        guard(&mut transaction, lease).await?;
        let dropped = self.dialect.drop_older(&mut transaction, series, floor).await?;
        transaction.commit().await.map_err(StoreError::of("drop_older.commit"))?;
        Ok(dropped)
    }

    /// Removes one batch of old rejects. Returns how many; fewer than the batch means done.
    pub async fn purge_rejects(&mut self) -> Result<u64, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("purge_rejects.begin"))?;
        guard(&mut transaction, lease).await?;
        let purged = sqlx::query!(
            "/* store::maintenance::purge_rejects */
            delete from ingest_rejects where ctid = any (array (
                select ctid from ingest_rejects
                where received_at < (select least(retention_clock, now()) from maintenance_lease)
                    - make_interval(days => $1::integer)
                order by received_at limit $2))",
            REJECT_RETENTION_DAYS,
            PURGE_BATCH
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("purge_rejects"))?
        .rows_affected();
        transaction.commit().await.map_err(StoreError::of("purge_rejects.commit"))?;
        Ok(purged)
    }

    /// Removes one batch of alerts that were over long ago, with what was told of them, and of silences.
    /// Returns how many; fewer than the batch means done.
    pub async fn purge_alerts(&mut self) -> Result<u64, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("purge_alerts.begin"))?;
        guard(&mut transaction, lease).await?;
        let purged = sqlx::query_scalar!(
            r#"/* store::maintenance::purge_alerts */
            with old as (
                select least(retention_clock, now()) - make_interval(days => $1::integer) as before
                from maintenance_lease),
            ended as (
                delete from silences where ends_at < (select before from old)),
            gone as (
                delete from alerts where alert_id in (
                    select alert_id from alerts where resolved_at < (select before from old)
                    order by resolved_at limit $2)
                returning 1)
            select count(*) as "count!" from gone"#,
            ALERT_RETENTION_DAYS,
            PURGE_BATCH
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(StoreError::of("purge_alerts"))?;
        transaction.commit().await.map_err(StoreError::of("purge_alerts.commit"))?;
        Ok(purged.cast_unsigned())
    }

    /// Checks the lease outside a transaction, for steps that are harmless when repeated by another.
    async fn fence(&mut self) -> Result<(), MaintenanceError> {
        let lease = self.lease;
        guard(&mut self.connection, lease).await
    }
}

/// Fails unless the lease is still ours; inside a transaction, holds it until the end.
pub(super) async fn guard(
    connection: &mut PgConnection,
    lease: Lease,
) -> Result<(), MaintenanceError> {
    let ours = sqlx::query_scalar!(
        r#"/* store::maintenance::guard */
        select true as "ours!" from maintenance_lease
        where holder = $1 and epoch = $2 and expires_at > now() for share"#,
        lease.holder,
        lease.epoch
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::of("guard"))?;
    ours.map(|_| ()).ok_or(MaintenanceError::LeaseLost)
}
