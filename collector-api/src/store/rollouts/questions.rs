//! What operators ask about rollouts.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Most hosts of one rollout in an answer.
const MAX_HOSTS: i64 = 1000;

/// A rollout.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Rollout)]
pub struct RolloutRow {
    /// A `UUIDv7`.
    pub rollout_id: Uuid,
    /// When it was begun, server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who began it.
    pub created_by: String,
    /// The release.
    pub target_seq: i64,
    /// `canary`, `rolling`, `paused`, `halted`, `done` or `cancelled`.
    #[schema(example = "canary")]
    pub state: String,
    /// Share of the fleet that is told: 0 (canaries alone), 1, 10, 50 or 100.
    pub percent: i16,
    /// How many hosts try it first.
    pub canary_count: i32,
    /// Which hosts these may be, by their labels; null: any.
    pub canary_selector: Option<String>,
    /// Most hosts under way at once.
    pub max_in_flight: i32,
    /// How long each step is looked at before the next, s.
    pub soak_s: i64,
    /// When this step began, or it ended, server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub step_entered_at: OffsetDateTime,
    /// Why it was halted, or what the next step waits for; null: nothing.
    pub reason: Option<String>,
    /// Hosts that were started.
    pub hosts_started: i64,
    /// Of these: no outcome yet.
    pub hosts_under_way: i64,
    /// Of these: the release runs and works.
    pub hosts_confirmed: i64,
    /// Of these: it did not work, the release before runs again.
    pub hosts_rolled_back: i64,
    /// Of these: it was not installed.
    pub hosts_failed: i64,
    /// Of these: not heard of since.
    pub hosts_lost: i64,
}

/// A host that a rollout started.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RolloutHostRow {
    /// Its id.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: String,
    /// Whether it was one of the first.
    pub is_canary: bool,
    /// When it was first told, server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// `confirmed`, `rolled_back`, `failed` or `lost`; null: under way.
    pub outcome: Option<String>,
    /// When that was known, server's clock.
    #[serde(with = "time::serde::rfc3339::option")]
    pub settled_at: Option<OffsetDateTime>,
    /// Why.
    pub reason: Option<String>,
    /// The release that it runs now; null: not known.
    pub installed_seq: Option<i64>,
    /// How far it says it is; null: its agent does not update itself.
    pub state: Option<String>,
}

impl Store {
    /// Rollouts, the newest first; or the one. There are never many: old ones are forgotten.
    pub async fn rollouts(&self, rollout_id: Option<Uuid>) -> Result<Vec<RolloutRow>, StoreError> {
        sqlx::query_as!(
            RolloutRow,
            r#"-- Store::rollouts
            select o.rollout_id, o.created_at, o.created_by, o.target_seq, o.state, o.percent, o.canary_count,
                o.canary_selector, o.max_in_flight, extract(epoch from o.soak)::bigint as "soak_s!", o.step_entered_at, o.reason,
                s.started as "hosts_started!", s.under_way as "hosts_under_way!", s.confirmed as "hosts_confirmed!",
                s.rolled_back as "hosts_rolled_back!", s.failed as "hosts_failed!", s.lost as "hosts_lost!"
            from rollouts o cross join lateral (select count(*) as started, count(*) filter (where outcome is null) as under_way,
                count(*) filter (where outcome = 'confirmed') as confirmed,
                count(*) filter (where outcome = 'rolled_back') as rolled_back,
                count(*) filter (where outcome = 'failed') as failed, count(*) filter (where outcome = 'lost') as lost
                from rollout_hosts where rollout_id = o.rollout_id) s
            where $1::uuid is null or o.rollout_id = $1 order by o.created_at desc, o.rollout_id desc"#,
            rollout_id,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("rollouts"))
    }

    /// Hosts that a rollout started, at most 1,000: those first that it did not work on, then those under way, the newest
    /// of each first.
    pub async fn rollout_hosts(&self, rollout_id: Uuid) -> Result<Vec<RolloutHostRow>, StoreError> {
        sqlx::query_as!(
            RolloutHostRow,
            r#"-- Store::rollout_hosts
            select s.host_id, h.host_name, s.is_canary, s.started_at, s.outcome, s.settled_at, s.reason,
                r.installed_seq as "installed_seq?", r.state as "state?"
            from rollout_hosts s join hosts h using (host_id) left join host_releases r using (host_id)
            where s.rollout_id = $1
            order by case when s.outcome is null then 1 when s.outcome = 'confirmed' then 2 else 0 end,
                s.started_at desc, s.host_id limit $2"#,
            rollout_id,
            MAX_HOSTS,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("rollout_hosts"))
    }
}
