//! `host_releases`: what each host said of its agent's release, and what it is to run.

use std::collections::HashMap;

use serde::Serialize;
use shared_model::{Timestamp, UpdateStatus};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// A host's release.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostRelease {
    /// The release that runs; null: it was installed without one.
    pub installed_seq: Option<i64>,
    /// `idle`, `off`, `requested`, `downloading`, `staged`, `probation`, `confirmed`, `rolled_back` or `failed`;
    /// null: its agent does not update itself.
    #[schema(example = "confirmed")]
    pub state: Option<String>,
    /// The release that it tried last, or tries.
    pub target_seq: Option<i64>,
    /// What it is told to run; null: it stays what it is.
    pub desired_seq: Option<i64>,
    /// What an operator wants on this host alone; null: rollouts decide.
    pub pinned_seq: Option<i64>,
    /// Why `target_seq` was rolled back or failed.
    pub reason: Option<String>,
    /// When the host last said something else, server's clock; null: it never said anything.
    #[serde(with = "time::serde::rfc3339::option")]
    pub changed_at: Option<OffsetDateTime>,
}

impl Store {
    /// Of one host; none: nothing is known or wanted.
    pub async fn host_release(&self, host_id: Uuid) -> Result<Option<HostRelease>, StoreError> {
        sqlx::query_as!(
            HostRelease,
            "-- Store::host_release
            select installed_seq, state, target_seq, desired_seq, pinned_seq, reason, changed_at
            from host_releases where host_id = $1",
            host_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("host_release"))
    }

    /// Which hosts are to run another release than they do, and which.
    pub async fn wanted_releases(&self) -> Result<HashMap<Uuid, i64>, StoreError> {
        let rows = sqlx::query!(
            r#"-- Store::wanted_releases
            select host_id, desired_seq as "desired_seq!" from host_releases
            where desired_seq is distinct from installed_seq and desired_seq is not null and state <> 'off'"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("wanted_releases"))?;
        Ok(rows.into_iter().map(|row| (row.host_id, row.desired_seq)).collect())
    }
}

/// What a report says of its host's release.
pub(in crate::store) struct Said<'a> {
    /// Whose.
    pub(in crate::store) host_id: Uuid,
    /// When the agent took it.
    pub(in crate::store) sampled_at: Timestamp,
    /// None: the agent does not update itself.
    pub(in crate::store) update: Option<&'a UpdateStatus>,
}

/// Keeps what is not known yet; sorted by host. After the heartbeats: what is older than the newest report says nothing.
pub(in crate::store) async fn save(
    connection: &mut PgConnection,
    said: &[Said<'_>],
) -> Result<(), StoreError> {
    if said.is_empty() {
        return Ok(());
    }
    let of = || said.iter().map(|said| said.update);
    let hosts: Vec<Uuid> = said.iter().map(|said| said.host_id).collect();
    let sampled: Vec<Timestamp> = said.iter().map(|said| said.sampled_at).collect();
    let installed: Vec<_> = of().map(|update| seq(update?.installed_seq)).collect();
    let states: Vec<_> = of().map(|update| update.map(|update| update.state.as_str())).collect();
    let targets: Vec<_> = of().map(|update| seq(update?.target_seq)).collect();
    // PostgreSQL text cannot hold NUL.
    let reasons: Vec<_> =
        of().map(|update| Some(update?.reason.as_ref()?.replace('\0', "\u{fffd}"))).collect();
    // Compared before anything is written: nearly always nothing is, and no row is locked.
    sqlx::query!(
        "/* store::rollouts::releases::save */
        insert into host_releases as known (host_id, installed_seq, state, target_seq, reason, changed_at)
        select t.host_id, t.installed, t.state, t.target, t.reason, now()
        from unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::text[], $5::bigint[], $6::text[])
                as t (host_id, sampled_at, installed, state, target, reason)
            join heartbeats b on b.host_id = t.host_id and t.sampled_at >= b.last_sampled_at
            left join host_releases r on r.host_id = t.host_id
        where (r.installed_seq, r.state, r.target_seq, r.reason) is distinct from (t.installed, t.state, t.target, t.reason)
        order by t.host_id
        on conflict (host_id) do update set installed_seq = excluded.installed_seq, state = excluded.state,
            target_seq = excluded.target_seq, reason = excluded.reason, changed_at = excluded.changed_at",
        &hosts,
        &sampled as _,
        &installed as _,
        &states as _,
        &targets as _,
        &reasons as _,
    )
    .execute(connection)
    .await
    .map_err(StoreError::of("insert_reports.save_releases"))?;
    Ok(())
}

/// Counters are at most `i64::MAX`: reports are checked for it.
fn seq(seq: Option<u64>) -> Option<i64> {
    seq.and_then(|seq| i64::try_from(seq).ok())
}
