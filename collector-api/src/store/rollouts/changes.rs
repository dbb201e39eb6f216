//! What operators do to rollouts, and to the release of one host alone.

use std::ops::RangeInclusive;

use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::round::stop_hosts;
use super::{RolloutState, parse_word};
use crate::selector::Selector;
use crate::store::audit::{Actor, record, record_host};
use crate::store::{Store, StoreError};

/// How many rollouts are kept, with their hosts.
const KEPT: i64 = 100;
/// Longest selector, bytes.
const MAX_SELECTOR_BYTES: usize = 2048;
/// Bounds of the fields.
const SEQS: RangeInclusive<i64> = 1..=i64::MAX;
const CANARIES: RangeInclusive<i64> = 1..=100;
const IN_FLIGHT: RangeInclusive<i64> = 1..=100_000;
/// At most a week.
const SOAK_S: RangeInclusive<i64> = 0..=604_800;

/// A rollout to be begun.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// Its id.
    pub rollout_id: Uuid,
    target_seq: i64,
    canary_count: i32,
    canaries: Option<(String, Selector)>,
    max_in_flight: i32,
    soak_s: i32,
}

/// A field that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {detail}")]
pub struct WrongField {
    /// Which.
    pub field: &'static str,
    /// What it must be.
    pub detail: String,
}

impl NewRollout {
    /// Of a release; the first are any `canary_count` hosts, or some that the selector means.
    pub fn new(
        target_seq: i64,
        canary_count: i32,
        canary_selector: Option<String>,
        max_in_flight: i32,
        soak_s: i32,
    ) -> Result<Self, WrongField> {
        check("target_seq", target_seq, &SEQS)?;
        check("canary_count", canary_count.into(), &CANARIES)?;
        check("max_in_flight", max_in_flight.into(), &IN_FLIGHT)?;
        check("soak_s", soak_s.into(), &SOAK_S)?;
        let canaries = canary_selector.map(|text| {
            let wrong = |detail| WrongField { field: "canary_selector", detail };
            if text.len() > MAX_SELECTOR_BYTES {
                return Err(wrong(format!("must not be longer than {MAX_SELECTOR_BYTES} bytes")));
            }
            let read = Selector::parse(&text).map_err(|error| wrong(error.to_string()))?;
            Ok((text, read))
        });
        let (rollout_id, canaries) = (Uuid::now_v7(), canaries.transpose()?);
        Ok(Self { rollout_id, target_seq, canary_count, canaries, max_in_flight, soak_s })
    }
}

/// Checks the number of a release.
pub fn check_seq(field: &'static str, seq: i64) -> Result<(), WrongField> {
    check(field, seq, &SEQS)
}

fn check(field: &'static str, value: i64, bounds: &RangeInclusive<i64>) -> Result<(), WrongField> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(WrongField { field, detail: format!("must be {} to {}", bounds.start(), bounds.end()) })
}

/// What an operator does to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutChange {
    /// Nobody is started until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It is over; who does not run the release keeps what it has.
    Cancel,
    /// The next step does not wait for the end of the soak.
    Advance,
}

impl RolloutChange {
    /// As in the audit.
    fn action(self) -> &'static str {
        match self {
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Cancel => "rollout.cancel",
            Self::Advance => "rollout.advance",
        }
    }

    /// The state after it; none: it cannot be done in this one.
    fn after(self, state: RolloutState, percent: i16) -> Option<RolloutState> {
        use RolloutState::{Canary, Cancelled, Done, Paused, Rolling};
        match (self, state) {
            (Self::Pause, Canary | Rolling) => Some(Paused),
            (Self::Resume, Paused) => Some(if percent == 0 { Canary } else { Rolling }),
            (Self::Cancel, Canary | Rolling | Paused | Done) => Some(Cancelled),
            (Self::Advance, Canary | Rolling) => Some(state),
            _ => None,
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutChanged {
    /// Done.
    Done,
    /// There is no such rollout.
    NoRollout,
    /// It cannot be done in this state.
    NotNow(RolloutState),
}

impl Store {
    /// Begins a rollout; forgets those before the newest [`KEPT`]. False: another one is open.
    pub async fn create_rollout(
        &self,
        new: &NewRollout,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        self.try_create_rollout(new, actor).await.map_err(StoreError::of("create_rollout"))
    }

    async fn try_create_rollout(
        &self,
        new: &NewRollout,
        actor: &Actor,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let selector = new.canaries.as_ref().map(|(text, _)| text);
        let requirements = new.canaries.as_ref().map(|(_, read)| read.clone()).unwrap_or_default();
        let made = sqlx::query!(
            "-- Store::create_rollout
            insert into rollouts (rollout_id, created_by, target_seq, canary_count, canary_selector,
                canary_requirements, max_in_flight, soak)
            values ($1, $2, $3, $4, $5, $6, $7, make_interval(secs => $8))
            on conflict ((true)) where state in ('canary', 'rolling', 'paused') do nothing",
            new.rollout_id,
            actor.name.as_deref().unwrap_or(&actor.id),
            new.target_seq,
            new.canary_count,
            selector,
            Json(&requirements) as _,
            new.max_in_flight,
            f64::from(new.soak_s),
        )
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(false);
        }
        // The newest that is done still serves hosts that come.
        sqlx::query!(
            "-- Store::create_rollout.forget
            delete from rollouts where rollout_id in (
                select rollout_id from rollouts order by created_at desc, rollout_id desc offset $1)
              and rollout_id is distinct from (
                select rollout_id from rollouts where state = 'done' order by created_at desc, rollout_id desc limit 1)",
            KEPT
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({
            "target_seq": new.target_seq, "canary_count": new.canary_count, "canary_selector": selector,
            "max_in_flight": new.max_in_flight, "soak_s": new.soak_s,
        });
        let object = new.rollout_id.to_string();
        record(&mut transaction, actor, "rollout.create", ("rollout", &object), detail).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Changes a rollout.
    pub async fn change_rollout(
        &self,
        rollout_id: Uuid,
        change: RolloutChange,
        actor: &Actor,
    ) -> Result<RolloutChanged, StoreError> {
        let changed = self.try_change_rollout(rollout_id, change, actor).await;
        changed.map_err(StoreError::of("change_rollout"))
    }

    async fn try_change_rollout(
        &self,
        rollout_id: Uuid,
        change: RolloutChange,
        actor: &Actor,
    ) -> Result<RolloutChanged, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let known = sqlx::query!(
            "-- Store::change_rollout.lock
            select state, percent from rollouts where rollout_id = $1 for update",
            rollout_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(known) = known else { return Ok(RolloutChanged::NoRollout) };
        let state: RolloutState = parse_word(&known.state)?;
        let Some(after) = change.after(state, known.percent) else {
            return Ok(RolloutChanged::NotNow(state));
        };
        sqlx::query!(
            "-- Store::change_rollout
            update rollouts set state = $2, reason = null, advance = $3,
                step_entered_at = case when $2 = 'cancelled' then now() else step_entered_at end
            where rollout_id = $1",
            rollout_id,
            after.as_str(),
            change == RolloutChange::Advance,
        )
        .execute(&mut *transaction)
        .await?;
        if after == RolloutState::Cancelled {
            stop_hosts(&mut transaction, rollout_id).await?;
        }
        let object = rollout_id.to_string();
        let detail = json!({ "from": state, "percent": known.percent });
        record(&mut transaction, actor, change.action(), ("rollout", &object), detail).await?;
        transaction.commit().await?;
        Ok(RolloutChanged::Done)
    }

    /// Decides which release a host runs, whatever is rolled out; none: rollouts decide again, and begin anew with it.
    /// False: there is no such host.
    pub async fn pin_release(
        &self,
        host_id: Uuid,
        seq: Option<i64>,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let pinned = self.try_pin_release(host_id, seq, actor).await;
        pinned.map_err(StoreError::of("pin_release"))
    }

    async fn try_pin_release(
        &self,
        host_id: Uuid,
        seq: Option<i64>,
        actor: &Actor,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let is_host = sqlx::query_scalar!(
            "-- Store::pin_release.check
            select host_id from hosts where host_id = $1 for key share",
            host_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if is_host.is_none() {
            return Ok(false);
        }
        let changed = match seq {
            Some(seq) => pin(&mut transaction, host_id, seq).await?,
            None => unpin(&mut transaction, host_id).await?,
        };
        if changed {
            let action = if seq.is_some() { "host.pin_release" } else { "host.unpin_release" };
            record_host(&mut transaction, actor, action, host_id, json!({ "seq": seq })).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// Whether that is new.
async fn pin(connection: &mut PgConnection, host_id: Uuid, seq: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "-- Store::pin_release
        insert into host_releases as known (host_id, pinned_seq, desired_seq) values ($1, $2, $2)
        on conflict (host_id) do update set pinned_seq = $2, desired_seq = $2
        where known.pinned_seq is distinct from $2",
        host_id,
        seq
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether it was pinned. A rollout that goes on, or is done, finds the host as if it had just come.
async fn unpin(connection: &mut PgConnection, host_id: Uuid) -> Result<bool, sqlx::Error> {
    let done = sqlx::query_scalar!(
        r#"-- Store::unpin_release
        with freed as (
            update host_releases set pinned_seq = null, desired_seq = null
            where host_id = $1 and pinned_seq is not null returning host_id),
        forgotten as (
            delete from rollout_hosts s using freed, rollouts o
            where s.host_id = freed.host_id and o.rollout_id = s.rollout_id
                and o.state in ('canary', 'rolling', 'paused', 'done'))
        select count(*) as "count!" from freed"#,
        host_id
    )
    .fetch_one(connection)
    .await?;
    Ok(done > 0)
}
