//! `alerts`: what is wrong, since when, and who knows. Written by [`super::silence`].

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{Actor, record};
use super::{Store, StoreError};

/// An alert.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Alert {
    /// A `UUIDv7`.
    pub alert_id: Uuid,
    /// Which rule, such as `host_silent`.
    #[schema(example = "host_silent")]
    pub rule: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The host; null: of the fleet.
    pub host_id: Option<Uuid>,
    /// What the host is called now.
    pub host_name: Option<String>,
    /// `firing`, `acknowledged` or `resolved`.
    pub state: String,
    /// What the rule found.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// Whether nothing is sent about it, because it came too often within the hour.
    pub muted: bool,
    /// Since when the condition holds.
    #[serde(with = "time::serde::rfc3339")]
    pub began_at: OffsetDateTime,
    /// When it was noticed.
    #[serde(with = "time::serde::rfc3339")]
    pub fired_at: OffsetDateTime,
    /// Who said that they know.
    pub acknowledged_by: Option<String>,
    /// Until when that counts; then the alert is told again.
    #[serde(with = "time::serde::rfc3339::option")]
    pub acknowledged_until: Option<OffsetDateTime>,
    /// Until when a silence mutes its messages; null: none does.
    #[serde(with = "time::serde::rfc3339::option")]
    pub silenced_until: Option<OffsetDateTime>,
    /// When it was over.
    #[serde(with = "time::serde::rfc3339::option")]
    pub resolved_at: Option<OffsetDateTime>,
}

impl Store {
    /// Alerts, newest first, those before `after`; only those not over if `open`.
    pub async fn alerts(
        &self,
        open: bool,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Alert>, StoreError> {
        sqlx::query_as!(
            Alert,
            r#"-- Store::alerts
            select a.alert_id, a.rule, a.severity, a.host_id, h.host_name as "host_name?", a.state,
                a.detail, a.muted, a.began_at, a.fired_at, a.acknowledged_by, a.resolved_at,
                a.acknowledged_until, s.ends_at as "silenced_until?"
            from alerts a left join hosts h using (host_id)
            left join lateral procfleet_silence_of(a.rule, a.host_id, h.labels) s on a.resolved_at is null
            where (not $1 or a.resolved_at is null) and ($2::uuid is null or a.alert_id < $2)
            order by a.alert_id desc limit $3"#,
            open,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("alerts"))
    }

    /// Says that an operator knows of an alert, for `for_s`. False: there is no such open alert.
    pub async fn acknowledge_alert(
        &self,
        alert_id: Uuid,
        for_s: u32,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        self.try_acknowledge(alert_id, for_s, actor)
            .await
            .map_err(StoreError::of("acknowledge_alert"))
    }

    async fn try_acknowledge(
        &self,
        alert_id: Uuid,
        for_s: u32,
        actor: &Actor,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let changed = sqlx::query!(
            "-- Store::acknowledge_alert
            update alerts set state = 'acknowledged', acknowledged_by = $2,
                acknowledged_until = now() + $3 * interval '1 s'
            where alert_id = $1 and resolved_at is null",
            alert_id,
            actor.name.as_deref().unwrap_or(&actor.id),
            f64::from(for_s),
        )
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        let object = alert_id.to_string();
        record(
            &mut transaction,
            actor,
            "alert.acknowledge",
            ("alert", &object),
            json!({ "for_s": for_s }),
        )
        .await?;
        transaction.commit().await?;
        Ok(true)
    }
}
