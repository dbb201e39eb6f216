//! `host_purges`: everything that was recorded of a decommissioned host is removed, in bounded steps.
//!
//! An operator asks; the worker of maintenance does it, one piece of one table per transaction, under its lease.
//! What a step removed need not be removed again, so whoever comes next goes on where another was
//! cut short. The tombstone stays: the host's row, its certificates' (its keys are never taken again), its
//! audit. So do command lines, which hosts share; those that nothing names any more go with the dictionaries.
//!
//! A host is left alone until it has been decommissioned for [`SETTLED_S`]: a request that a server took a moment
//! before has then ended.

use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{Actor, record_host};
use super::certificates::lock_host;
use super::maintenance::{MaintenanceConnection, MaintenanceError, guard};
use super::series::{self, Series};
use super::{Store, StoreError};

/// Seconds for which servers may still believe that the host is active, with room.
const SETTLED_S: i32 = 60;

/// A purge as operators see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = HostPurge)]
pub struct PurgeRow {
    /// The host.
    pub host_id: Uuid,
    /// `queued`, `running` or `done`.
    #[schema(example = "running")]
    pub state: String,
    /// When somebody asked for it.
    #[serde(with = "time::serde::rfc3339")]
    pub requested_at: OffsetDateTime,
    /// When the first row was looked for; null: not yet.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When nothing was left; null: not yet.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// Tables that hold nothing of the host any more.
    pub steps_done: i32,
    /// Tables that held something, or might.
    pub steps_total: i32,
    /// Rows removed.
    pub rows_removed: i64,
}

/// What became of the request.
#[derive(Clone, Debug)]
pub enum RequestPurge {
    /// It is queued, or was before.
    Queued(PurgeRow),
    /// There is no such host.
    NoHost,
    /// The host is not decommissioned.
    NotDecommissioned,
}

/// A purge under way.
#[derive(Clone, Copy, Debug)]
pub struct Purge {
    host_id: Uuid,
    host_number: i32,
    /// Index of the step that is due.
    step: usize,
}

/// Series, and what is not cut into pieces.
fn steps() -> usize {
    series::all().count().saturating_add(1)
}

impl Store {
    /// Asks for a purge. The same again changes nothing.
    pub async fn request_purge(
        &self,
        host_id: Uuid,
        actor: &Actor,
    ) -> Result<RequestPurge, StoreError> {
        self.try_request_purge(host_id, actor).await.map_err(StoreError::of("request_purge"))
    }

    async fn try_request_purge(
        &self,
        host_id: Uuid,
        actor: &Actor,
    ) -> Result<RequestPurge, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        match lock_host(&mut transaction, host_id).await?.as_deref() {
            None => return Ok(RequestPurge::NoHost),
            Some("decommissioned") => {}
            Some(_) => return Ok(RequestPurge::NotDecommissioned),
        }
        let made = sqlx::query!(
            "-- Store::request_purge
            insert into host_purges (host_id, steps_total) values ($1, $2) on conflict do nothing",
            host_id,
            i32::try_from(steps()).unwrap_or(i32::MAX)
        )
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() > 0 {
            record_host(&mut transaction, actor, "host.purge", host_id, json!({})).await?;
        }
        let row = find(&mut transaction, host_id).await?.ok_or(sqlx::Error::RowNotFound)?;
        transaction.commit().await?;
        Ok(RequestPurge::Queued(row))
    }

    /// The purge of a host, if somebody asked for one.
    pub async fn purge(&self, host_id: Uuid) -> Result<Option<PurgeRow>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::of("purge"))?;
        find(&mut connection, host_id).await.map_err(StoreError::of("purge"))
    }
}

async fn find(
    connection: &mut PgConnection,
    host_id: Uuid,
) -> Result<Option<PurgeRow>, sqlx::Error> {
    sqlx::query_as!(
        PurgeRow,
        "-- Store::purge
        select host_id, state, requested_at, started_at, finished_at, steps_done, steps_total, rows_removed
        from host_purges where host_id = $1",
        host_id
    )
    .fetch_optional(connection)
    .await
}

impl MaintenanceConnection {
    /// The oldest purge that is not done.
    pub async fn next_purge(&mut self) -> Result<Option<Purge>, MaintenanceError> {
        let due = sqlx::query!(
            "-- MaintenanceConnection::next_purge
            select p.host_id, h.host_number, p.steps_done
            from host_purges p join hosts h using (host_id)
            where p.state <> 'done' and h.lifecycle = 'decommissioned' and h.lifecycle_changed_at < now() - make_interval(secs => $1)
            order by p.requested_at, p.host_id limit 1",
            f64::from(SETTLED_S)
        )
        .fetch_optional(&mut self.connection)
        .await
        .map_err(StoreError::of("next_purge"))?;
        Ok(due.map(|due| Purge {
            host_id: due.host_id,
            host_number: due.host_number,
            step: usize::try_from(due.steps_done).unwrap_or(0),
        }))
    }

    /// Removes what a purge's due step holds in its `piece`th piece. Rows removed, and whether that was the
    /// step's last piece.
    pub async fn purge_piece(
        &mut self,
        purge: &Purge,
        piece: usize,
    ) -> Result<(u64, bool), MaintenanceError> {
        let series = series::all().nth(purge.step);
        let pieces = match series {
            Some(series) => self.dialect.list_partitions(&mut self.connection, series).await?,
            None => Vec::new(),
        };
        let last = piece.saturating_add(1) >= pieces.len();
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("purge_piece.begin"))?;
        guard(&mut transaction, lease).await?;
        let removed = match (series, pieces.get(piece)) {
            (Some(series), Some(piece)) => {
                let span = (piece.begins_at, piece.ends_at);
                remove_samples(&mut transaction, purge, series, span).await
            }
            (Some(_), None) => Ok(0),
            (None, _) => remove_rest(&mut transaction, purge.host_id).await,
        };
        let removed = removed.map_err(StoreError::of("purge_piece"))?;
        sqlx::query!(
            "-- MaintenanceConnection::purge_piece
            update host_purges set rows_removed = rows_removed + $2,
                started_at = coalesce(started_at, now()),
                steps_done = steps_done + $3::boolean::integer,
                state = case when steps_done + $3::boolean::integer >= steps_total then 'done' else 'running' end,
                finished_at = case when steps_done + $3::boolean::integer >= steps_total then now() end
            where host_id = $1",
            purge.host_id,
            i64::try_from(removed).unwrap_or(i64::MAX),
            last
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("purge_piece.note"))?;
        transaction.commit().await.map_err(StoreError::of("purge_piece.commit"))?;
        Ok((removed, last))
    }
}

async fn remove_samples(
    transaction: &mut PgConnection,
    purge: &Purge,
    series: &Series,
    (from, to): (OffsetDateTime, OffsetDateTime),
) -> Result<u64, sqlx::Error> {
    // Compressed rows go batch by batch, and no limit of rows is to end that: it is one host of one piece.
    sqlx::query!(
        "-- MaintenanceConnection::purge_piece
        select set_config(name, '0', true) from pg_settings
        where name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"
    )
    .fetch_all(&mut *transaction)
    .await?;
    // The names are constants of the series.
    let statement = AssertSqlSafe(format!(
        "/* MaintenanceConnection::purge_piece */
        delete from {} where {} = $1 and sampled_at >= $2 and sampled_at < $3",
        series.name, series.host_key
    ));
    let removal = sqlx::query(statement);
    let removal = if series.host_key == "host_id" {
        removal.bind(purge.host_id)
    } else {
        removal.bind(purge.host_number)
    };
    Ok(removal.bind(from).bind(to).execute(transaction).await?.rows_affected())
}

/// What is not cut into pieces: at most as much as one host describes.
async fn remove_rest(transaction: &mut PgConnection, host_id: Uuid) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query_scalar!(
        r#"-- MaintenanceConnection::purge_rest
        with a as (delete from rollup_dirty where host_id = $1 returning 1),
            b as (delete from process_instances where host_id = $1 returning 1),
            c as (delete from ingest_rejects where host_id = $1 returning 1),
            d as (delete from ingest_cursors where host_id = $1 returning 1),
            e as (delete from host_overrides where host_id = $1 returning 1),
            f as (delete from host_configurations where host_id = $1 returning 1),
            g as (delete from alerts where host_id = $1 returning 1),
            h as (delete from rule_states where host_id = $1 returning 1),
            i as (delete from rule_progress where host_id = $1 returning 1),
            j as (delete from clone_conflicts where host_id = $1 returning 1),
            k as (delete from silences where host_id = $1 returning 1),
            l as (delete from host_releases where host_id = $1 returning 1),
            m as (delete from rollout_hosts where host_id = $1 returning 1)
        select (select count(*) from a) + (select count(*) from b) + (select count(*) from c)
            + (select count(*) from d) + (select count(*) from e) + (select count(*) from f)
            + (select count(*) from g) + (select count(*) from h) + (select count(*) from i)
            + (select count(*) from j) + (select count(*) from k)
            + (select count(*) from l) + (select count(*) from m) as "removed!""#,
        host_id
    )
    .fetch_one(transaction)
    .await?;
    Ok(removed.cast_unsigned())
}
