//! The outbox: messages are claimed under a lease, sent, then marked. A replica that dies in between
//! leaves a lease that runs out, and another one sends again: at least once, twice only where the
//! death fell between the provider's answer and the mark.
//!
//! The budget of a channel is spent in the transaction of the claim, under the lock of the channel's
//! row, so that all replicas share it. When more waits than the budget allows, one message tells many
//! (a digest). Messages about one alert keep their order: a later one is not claimed before the
//! earlier one ended. Where an alert is over before anybody was told, one message tells both.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) mod dead_letters;

use super::channels::SealedChannel;
use super::{Store, StoreError};

/// Most notifications in one message.
pub const MAX_DIGEST: i64 = 500;
/// More than this that waits is told in one message even while the budget would allow several.
const MAX_SINGLES: i64 = 5;
/// How long a replica may take to send and mark: longer than the longest attempt.
pub const LEASE_S: f64 = 60.0;
/// Pauses after failed attempts, s. After the last the notification is given up.
const PAUSES_S: [i32; 10] = [5, 30, 120, 600, 3600, 3600, 7200, 14_400, 21_600, 28_800];

/// One thing to tell.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Its id.
    pub notification_id: i64,
    /// About which alert.
    pub alert_id: Uuid,
    /// `fired`, `flapping`, `renotified` or `resolved`.
    pub kind: String,
    /// Which rule.
    pub rule: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// None: of the fleet.
    pub host_id: Option<Uuid>,
    /// What it is called.
    pub host_name: Option<String>,
    /// What the rule found.
    pub detail: Value,
    /// Since when the condition held.
    pub began_at: OffsetDateTime,
    /// When it was over.
    pub resolved_at: Option<OffsetDateTime>,
    /// Whether it waited for the end of a silence.
    pub after_silence: bool,
}

/// What a replica took upon itself to send, as one message.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Of this attempt.
    pub lease: Uuid,
    /// Where to.
    pub channel: SealedChannel,
    /// What to tell, oldest first; never empty.
    pub notifications: Vec<Notification>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

/// Whether alerts would be found and told.
#[derive(Clone, Copy, Debug)]
pub struct AlertingHealth {
    /// Since the last look for silent hosts, s; none: there was none.
    pub sweep_age_s: Option<f64>,
    /// For how long the oldest message is due that nothing keeps back, s.
    pub outbox_lag_s: f64,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Sent,
    /// To be tried again.
    Retry {
        /// Why, without secrets.
        why: String,
        /// The provider wants the channel left alone for this long, s.
        hold_s: Option<u32>,
    },
    /// Never to be tried again.
    Dead {
        /// Why, without secrets.
        why: String,
    },
}

impl Store {
    /// Whether alerts would be found and told.
    pub async fn alerting_health(&self) -> Result<AlertingHealth, StoreError> {
        sqlx::query_as!(
            AlertingHealth,
            r#"-- Store::alerting_health
            select extract(epoch from now() - last_ok_at)::float8 as sweep_age_s,
                (select coalesce(max(extract(epoch from now() - case n.state
                        when 'queued' then n.next_at else n.lease_until end)), 0)::float8
                    from notifications n join channels c using (channel_id)
                    where n.state in ('queued', 'sending') and c.enabled
                      and (c.held_until is null or c.held_until <= now())) as "outbox_lag_s!"
            from alert_sweep"#
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::of("alerting_health"))
    }

    /// Takes what the next message is to tell; none: nothing is due, or no budget is left.
    pub async fn claim_notifications(&self) -> Result<Option<Claim>, StoreError> {
        self.try_claim().await.map_err(StoreError::of("claim_notifications"))
    }

    async fn try_claim(&self) -> Result<Option<Claim>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let channel = sqlx::query!(
            r#"-- Store::claim_notifications.channel
            select channel_id, kind, language, sealed, now() as "now!",
                least(per_minute, budget + extract(epoch from now() - budget_at) * per_minute / 60)::float8
                    as "budget!"
            from channels c
            where enabled and (held_until is null or held_until <= now())
              and least(per_minute, budget + extract(epoch from now() - budget_at) * per_minute / 60) >= 1
              and exists (select from notifications n where n.channel_id = c.channel_id
                  and (n.state = 'queued' and n.next_at <= now() or n.state = 'sending' and n.lease_until < now())
                  and not exists (select from notifications earlier
                      where earlier.alert_id = n.alert_id and earlier.channel_id = n.channel_id
                        and earlier.notification_id < n.notification_id
                        and earlier.state in ('queued', 'sending')))
            order by budget_at limit 1 for update of c skip locked"#
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(channel) = channel else { return Ok(None) };
        hold_back(&mut transaction, channel.channel_id).await?;
        merge_what_is_over(&mut transaction, channel.channel_id).await?;
        let lease = Uuid::new_v4();
        let singles = channel.budget.min(10_000.0);
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        let singles = (singles as i64).min(MAX_SINGLES);
        let ids = claim_rows(&mut transaction, channel.channel_id, lease, singles).await?;
        let notifications = read_claimed(&mut transaction, &ids).await?;
        if !notifications.is_empty() {
            sqlx::query!(
                "-- Store::claim_notifications.spend
                update channels set budget = $2::float8 - 1, budget_at = now() where channel_id = $1",
                channel.channel_id,
                channel.budget,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        let now = channel.now;
        let channel = SealedChannel {
            channel_id: channel.channel_id,
            kind: channel.kind,
            language: channel.language,
            sealed: channel.sealed,
        };
        let claim = Claim { lease, channel, notifications, now };
        Ok((!claim.notifications.is_empty()).then_some(claim))
    }

    /// Notes how the attempt of a claim ended. False: the lease was lost meanwhile.
    pub async fn finish_claim(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
        self.try_finish(claim, outcome).await.map_err(StoreError::of("finish_claim"))
    }

    async fn try_finish(&self, claim: &Claim, outcome: &Outcome) -> Result<bool, sqlx::Error> {
        let ids: Vec<i64> = claim.notifications.iter().map(|n| n.notification_id).collect();
        let (state, why, hold_s) = match outcome {
            Outcome::Sent => ("sent", None, None),
            Outcome::Retry { why, hold_s } => ("queued", Some(why), *hold_s),
            Outcome::Dead { why } => ("dead", Some(why), None),
        };
        let mut transaction = self.pool.begin().await?;
        let states = sqlx::query_scalar!(
            r#"-- Store::finish_claim
            with held as (
                update channels set held_until = now() + $5 * interval '1 s'
                where channel_id = $6 and $5::float8 is not null)
            update notifications set
                state = case when $3 = 'queued' and attempts >= cardinality($4::int[]) then 'dead' else $3 end,
                next_at = case when $3 = 'queued'
                    then now() + coalesce(($4::int[])[attempts], 0) * interval '1 s' else next_at end,
                ended_at = case when $3 <> 'queued' or attempts >= cardinality($4::int[]) then now() end,
                lease = null, lease_until = null, last_error = $7
            where notification_id = any($1) and lease = $2
            returning state"#,
            &ids,
            claim.lease,
            state,
            &PAUSES_S,
            hold_s.map(f64::from),
            claim.channel.channel_id,
            why,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let channel_id = claim.channel.channel_id;
        if states.iter().any(|state| state == "dead") {
            let why = why.map_or("", String::as_str);
            dead_letters::open(&mut transaction, channel_id, why).await?;
        } else if !states.is_empty() && *outcome == Outcome::Sent {
            dead_letters::resolve(&mut transaction, channel_id).await?;
        }
        transaction.commit().await?;
        Ok(!states.is_empty())
    }
}

/// What a silence mutes waits for its end. What something larger explains waits a minute, again and again: of
/// a silent host only its silence is told, and of none of them while nobody at all is heard. The end of
/// an alert is told to whoever was told of its beginning, and what was silenced as a whole is never told.
async fn hold_back(
    transaction: &mut sqlx::PgTransaction<'_>,
    channel_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::claim_notifications.silence
        update notifications n set next_at = m.ends_at, silence_id = m.silence_id
        from (select n.notification_id, s.silence_id, s.ends_at
            from notifications n join alerts a using (alert_id) left join hosts h using (host_id)
            cross join lateral procfleet_silence_of(a.rule, a.host_id, h.labels) s
            where n.channel_id = $1 and n.state = 'queued' and n.next_at <= now() and n.kind <> 'resolved') m
        where n.notification_id = m.notification_id",
        channel_id
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "-- Store::claim_notifications.inhibit
        update notifications n set next_at = now() + interval '1 minute'
        from alerts a
        where a.alert_id = n.alert_id and n.channel_id = $1 and n.state = 'queued' and n.next_at <= now()
          and n.kind in ('fired', 'renotified') and n.attempts = 0 and a.resolved_at is null
          and exists (select from alerts larger where larger.resolved_at is null
              and (a.rule_id is not null and larger.fingerprint = 'host_silent:' || a.host_id
                  or a.rule = 'host_silent' and larger.fingerprint = 'no_reports'))",
        channel_id
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "-- Store::claim_notifications.mute
        update notifications n set state = 'muted', ended_at = now()
        where n.channel_id = $1 and n.state = 'queued' and (n.kind = 'flapping' and n.silence_id is not null
                and exists (select from alerts a where a.alert_id = n.alert_id and a.resolved_at is not null)
            or exists (select from notifications begun join notifications over using (alert_id, channel_id)
            where begun.alert_id = n.alert_id and begun.channel_id = $1
              and begun.kind in ('fired', 'flapping') and begun.state = 'queued' and begun.silence_id is not null
              and over.kind = 'resolved' and over.state = 'queued'))",
        channel_id
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// An alert that is over before its beginning was told: the end tells both.
async fn merge_what_is_over(
    transaction: &mut sqlx::PgTransaction<'_>,
    channel_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::claim_notifications.merge
        update notifications n set state = 'merged', ended_at = now()
        where n.channel_id = $1 and n.state = 'queued' and n.kind in ('fired', 'flapping', 'renotified')
          and exists (select from notifications over
              where over.alert_id = n.alert_id and over.channel_id = n.channel_id
                and over.kind = 'resolved' and over.state = 'queued')",
        channel_id
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// One row while few wait, up to [`MAX_DIGEST`] otherwise.
async fn claim_rows(
    transaction: &mut sqlx::PgTransaction<'_>,
    channel_id: Uuid,
    lease: Uuid,
    singles: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- Store::claim_notifications.rows
        with due as (
            select n.notification_id from notifications n
            where n.channel_id = $1
              and (n.state = 'queued' and n.next_at <= now() or n.state = 'sending' and n.lease_until < now())
              and not exists (select from notifications earlier
                  where earlier.alert_id = n.alert_id and earlier.channel_id = n.channel_id
                    and earlier.notification_id < n.notification_id
                    and earlier.state in ('queued', 'sending'))
            order by n.notification_id limit $4),
        taken as (
            select notification_id from due order by notification_id
            limit case when (select count(*) from due) > $3 then $4 else 1 end)
        update notifications n set state = 'sending', lease = $2, attempts = attempts + 1,
            lease_until = now() + $5 * interval '1 s'
        from taken where n.notification_id = taken.notification_id
        returning n.notification_id",
        channel_id,
        lease,
        singles,
        MAX_DIGEST,
        LEASE_S,
    )
    .fetch_all(&mut **transaction)
    .await
}

async fn read_claimed(
    transaction: &mut sqlx::PgTransaction<'_>,
    ids: &[i64],
) -> Result<Vec<Notification>, sqlx::Error> {
    sqlx::query_as!(
        Notification,
        r#"-- Store::claim_notifications.read
        select n.notification_id, n.alert_id, n.kind, a.rule, a.severity, a.host_id,
            h.host_name as "host_name?", a.detail, a.began_at, a.resolved_at,
            n.silence_id is not null as "after_silence!"
        from notifications n join alerts a using (alert_id) left join hosts h using (host_id)
        where n.notification_id = any($1) order by n.notification_id"#,
        ids
    )
    .fetch_all(&mut **transaction)
    .await
}
