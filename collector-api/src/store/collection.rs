//! Removes instances and processes that nothing refers to any more. An agent describes an entry and
//! then counts on the server knowing it, so the question is what an agent may still count on.
//!
//! **Instances.** An agent describes a live instance that ever had a row again every 6 hours, and
//! everything again after a gap, a reject or a new stream; `described_at` is the `sampled_at` of the
//! newest description. So a sample at t that ingest still accepts, t ≥ the floor, comes with or after a
//! description not much older than t. An instance is removed when it was described a day
//! before the oldest row that is kept, of samples and roll-ups. For agents that describe late
//! there is a week's margin: if a roll-up in the week after that holds the instance, it
//! was alive then, and `described_at` is moved there instead. A description that arrives meanwhile either waits for the
//! removal and inserts the row again, or is waited for: then the removal sees the newer
//! `described_at` and leaves the row.
//!
//! **Processes** have no such repetition: an agent sends a definition once, while it has live
//! instances of it, which are described again and refer to it; for what it folds (`process_exits`
//! without an instance), again every 6 hours. A process is first
//! marked (`unreferenced_since`) when no instance refers to it, and removed if that is still
//! so a week longer than samples and exits are kept. A definition that comes meanwhile takes the mark away. The removal holds [`FLOOR_LOCK`] exclusively, which
//! every ingest transaction holds shared to its end: one before it has committed, so the instance
//! it brought, or the mark it took away, is seen; one after it finds no row and inserts the
//! definition. The week bridges what ingest ignores of a description because the host's clock
//! went back.

use sqlx::{Connection as _, PgConnection};

use super::StoreError;
use super::cursors::FLOOR_LOCK;
use super::maintenance::{Lease, MaintenanceConnection, MaintenanceError, guard};

/// Instances looked at in one transaction.
const INSTANCES: i64 = 1000;
/// Processes looked at for being without instances, in one transaction.
const PROCESSES: i64 = 5000;
/// Processes removed while ingest waits.
const REMOVED: i64 = 500;

impl MaintenanceConnection {
    /// Removes a batch of instances. Returns how many.
    pub async fn collect_instances(&mut self) -> Result<u64, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("collect_instances.begin"))?;
        guard(&mut transaction, lease).await?;
        let Some(kept_from) = kept_from(&mut transaction).await? else { return Ok(0) };
        sqlx::raw_sql(
            "/* store::collection */ set local enable_hashjoin = off; set local enable_mergejoin = off",
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("collect_instances.prepare"))?;
        let removed = sqlx::query_scalar!(
            r#"/* store::collection::collect_instances */
            with candidates as materialized (
                select host_id, instance_id from process_instances
                where described_at < $1::timestamptz - interval '1 day'
                order by described_at limit $2
            ), seen as materialized (
                select c.host_id, c.instance_id, r.last_sampled_at
                from candidates c cross join lateral (
                    select max(r.last_sampled_at) as last_sampled_at from process_rollup_1h r
                    where r.host_id = c.host_id and r.instance_id = c.instance_id
                        and r.sampled_at <= $1::timestamptz + interval '7 days') as r
                where r.last_sampled_at is not null
            ), kept as (
                update process_instances i set described_at = greatest(i.described_at, s.last_sampled_at)
                from seen s where i.host_id = s.host_id and i.instance_id = s.instance_id
            ), removed as (
                delete from process_instances i using candidates c
                where i.host_id = c.host_id and i.instance_id = c.instance_id
                    and i.described_at < $1::timestamptz - interval '1 day'
                    and not exists (select from seen s
                        where s.host_id = i.host_id and s.instance_id = i.instance_id)
                returning 1
            )
            select count(*) as "removed!" from removed"#,
            kept_from,
            INSTANCES
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(StoreError::of("collect_instances"))?
        .cast_unsigned();
        transaction.commit().await.map_err(StoreError::of("collect_instances.commit"))?;
        Ok(removed)
    }

    /// Marks processes without instances, from a random key on: keys are hashes, so all have their
    /// turn. Returns how many.
    pub async fn mark_processes(&mut self) -> Result<u64, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("mark_processes.begin"))?;
        guard(&mut transaction, lease).await?;
        let marked = sqlx::query!(
            "/* store::collection::mark_processes */
            with chosen as materialized (
                select process_id from processes
                where process_id >= (select case when count(*) <= $1::bigint then '00000000-0000-0000-0000-000000000000'
                    else gen_random_uuid() end from (select from processes limit $1::bigint + 1) as few)
                order by process_id limit $1::bigint
            )
            update processes p set unreferenced_since = now() from chosen
            where p.process_id = chosen.process_id and p.unreferenced_since is null
                and not exists (select from process_instances i where i.process_id = p.process_id)",
            PROCESSES
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("mark_processes"))?
        .rows_affected();
        transaction.commit().await.map_err(StoreError::of("mark_processes.commit"))?;
        Ok(marked)
    }

    /// Removes processes marked a week ago, while ingest waits. Returns how many.
    pub async fn collect_processes(&mut self) -> Result<u64, MaintenanceError> {
        let is_due = sqlx::query_scalar!(
            r#"/* store::collection::collect_processes */
            select exists (select from processes where unreferenced_since < now() - interval '7 days'
                - (select max(retention) from series where not is_rollup))
                as "is_due!""#
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("collect_processes.look"))?;
        if !is_due {
            return Ok(0);
        }
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("collect_processes.begin"))?;
        let removed = remove_processes(&mut transaction, lease).await?;
        transaction.commit().await.map_err(StoreError::of("collect_processes.commit"))?;
        Ok(removed)
    }
}

/// The oldest row that may be kept of anything that names instances. `None`: nothing was ever
/// dropped, or not everything was measured.
async fn kept_from(
    connection: &mut PgConnection,
) -> Result<Option<shared_model::Timestamp>, StoreError> {
    sqlx::query_scalar!(
        "/* store::collection::kept_from */
        select min(least(s.raw_floor, t.begins_at)) as kept_from
        from series s left join maintenance_tables t using (series)
        where s.series like 'process%' or s.series like 'connection%'
        having min(s.raw_floor) > '-infinity' and count(*) = count(t.series)"
    )
    .fetch_optional(connection)
    .await
    .map(Option::flatten)
    .map_err(StoreError::of("collect_instances.kept_from"))
}

async fn remove_processes(
    transaction: &mut PgConnection,
    lease: Lease,
) -> Result<u64, MaintenanceError> {
    guard(transaction, lease).await?;
    sqlx::query!("/* store::collection */ select pg_advisory_xact_lock($1)", FLOOR_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("collect_processes.lock"))?;
    // Statements after the lock: they see what every earlier ingest transaction committed.
    sqlx::query!(
        "/* store::collection::collect_processes */
        update processes p set unreferenced_since = null
        where p.unreferenced_since < now() - interval '7 days'
                - (select max(retention) from series where not is_rollup)
            and exists (select from process_instances i where i.process_id = p.process_id)"
    )
    .execute(&mut *transaction)
    .await
    .map_err(StoreError::of("collect_processes.keep"))?;
    let removed = sqlx::query!(
        "/* store::collection::collect_processes */
        delete from processes where process_id in (
            select process_id from processes
            where unreferenced_since < now() - interval '7 days'
                - (select max(retention) from series where not is_rollup)
            limit $1)",
        REMOVED
    )
    .execute(&mut *transaction)
    .await
    .map_err(StoreError::of("collect_processes"))?
    .rows_affected();
    Ok(removed)
}
