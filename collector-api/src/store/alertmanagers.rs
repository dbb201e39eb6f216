//! What the peers of an Alertmanager are sent: everything that is open, again and again, and what ended lately.
//!
//! Whoever claims a channel marks it as sent before it sends. A replica that dies in between costs the peers one round, and
//! the next one tells them everything.

use time::OffsetDateTime;
use uuid::Uuid;

use super::channels::SealedChannel;
use super::notifications::{Notification, dead_letters};
use super::{Store, StoreError};

/// A channel's peers hear of what is open this often, s.
pub const ROUND_S: f64 = 60.0;
/// After a round that not every peer took the next comes sooner, s.
const RETRY_S: f64 = 15.0;
/// No round comes sooner after another than this, s.
const LEAST_S: f64 = 5.0;
/// For this long a peer is told that an alert is over, s.
const OVER_S: f64 = 300.0;
/// After this long without a good round an alert says so, s.
const FAILING_S: f64 = 300.0;
/// Most alerts in one round: the most severe, the oldest first.
pub const MAX_ALERTS: i64 = 10_000;

/// An alert as its peers are told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The same for whatever is the same alert: rule and object.
    pub fingerprint: String,
    /// What is told of it.
    pub notification: Notification,
}

impl Store {
    /// A channel whose peers are due, and the database's clock: a round has passed, or something began or ended since the
    /// last one.
    pub async fn claim_alertmanager(
        &self,
    ) -> Result<Option<(SealedChannel, OffsetDateTime)>, StoreError> {
        let row = sqlx::query!(
            r#"-- Store::claim_alertmanager
            update channels set synced_at = now() where channel_id = (
                select channel_id from channels c
                where kind = 'alertmanager' and enabled and (held_until is null or held_until <= now())
                  and (synced_at is null or synced_at < now() - $1 * interval '1 s'
                    or synced_at < now() - $2 * interval '1 s'
                      and exists (select from alerts a where a.fired_at > c.synced_at or a.resolved_at > c.synced_at))
                order by synced_at nulls first limit 1 for update skip locked)
            returning channel_id, kind, language, sealed, now() as "now!""#,
            ROUND_S,
            LEAST_S,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("claim_alertmanager"))?;
        Ok(row.map(|row| {
            let (channel_id, kind, language) = (row.channel_id, row.kind, row.language);
            (SealedChannel { channel_id, kind, language, sealed: row.sealed }, row.now)
        }))
    }

    /// Everything open that nothing silences and nothing larger explains, and what ended within five minutes.
    pub async fn alerts_to_sync(&self) -> Result<Vec<Told>, StoreError> {
        let rows = sqlx::query!(
            r#"-- Store::alerts_to_sync
            select a.alert_id, a.fingerprint, a.rule, a.severity, a.host_id, h.host_name as "host_name?", a.detail,
                a.began_at, a.resolved_at
            from alerts a left join hosts h using (host_id)
            left join lateral procfleet_silence_of(a.rule, a.host_id, h.labels) s on true
            where (a.resolved_at is null or a.resolved_at > now() - $1 * interval '1 s') and s.silence_id is null
              and not exists (select from alerts larger where larger.resolved_at is null
                  and (a.rule_id is not null and larger.fingerprint = 'host_silent:' || a.host_id
                      or a.rule = 'host_silent' and larger.fingerprint = 'no_reports'))
            order by case a.severity when 'critical' then 0 when 'warning' then 1 else 2 end, a.alert_id
            limit $2"#,
            OVER_S,
            MAX_ALERTS + 1,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("alerts_to_sync"))?;
        Ok(rows
            .into_iter()
            .map(|row| Told {
                fingerprint: row.fingerprint,
                notification: Notification {
                    notification_id: 0,
                    alert_id: row.alert_id,
                    kind: if row.resolved_at.is_some() { "resolved" } else { "fired" }.to_owned(),
                    rule: row.rule,
                    severity: row.severity,
                    host_id: row.host_id,
                    host_name: row.host_name,
                    detail: row.detail,
                    began_at: row.began_at,
                    resolved_at: row.resolved_at,
                    after_silence: false,
                },
            })
            .collect())
    }

    /// Notes how a round went; `why`: not every peer took it.
    pub async fn finish_sync(&self, channel_id: Uuid, why: Option<&str>) -> Result<(), StoreError> {
        self.try_finish_sync(channel_id, why).await.map_err(StoreError::of("finish_sync"))
    }

    async fn try_finish_sync(
        &self,
        channel_id: Uuid,
        why: Option<&str>,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let failing = sqlx::query_scalar!(
            r#"-- Store::finish_sync
            update channels set
                failing_since = case when $2 then coalesce(failing_since, now()) end,
                synced_at = case when $2 then now() - $3 * interval '1 s' else synced_at end
            where channel_id = $1
            returning coalesce(failing_since < now() - $4 * interval '1 s', false) as "failing!""#,
            channel_id,
            why.is_some(),
            ROUND_S - RETRY_S,
            FAILING_S,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        match why {
            Some(why) if failing == Some(true) => {
                dead_letters::open(&mut transaction, channel_id, why).await?;
            }
            Some(_) => {}
            None => dead_letters::resolve(&mut transaction, channel_id).await?,
        }
        transaction.commit().await
    }
}
