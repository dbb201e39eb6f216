//! `silences`: windows in which nobody is told of some alerts. They mute messages, not alerts.
//!
//! Looked at when a message is about to be sent: what is muted waits for the end of the silence, and is
//! sent then if the alert still holds. An alert that began and ended within it is never told.

use serde::Serialize;
use serde_json::json;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{Actor, record};
use super::{Store, StoreError};
use crate::selector::Selector;

/// Most silences that have not ended: each is asked of every message.
pub const MAX_SILENCES: i64 = 200;

/// A silence.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Silence {
    /// A `UUIDv7`.
    pub silence_id: Uuid,
    /// Hosts by their labels, as it was written; empty: every host, and the fleet.
    pub selector: String,
    /// One host; null: any.
    pub host_id: Option<Uuid>,
    /// One rule; null: any.
    pub rule: Option<String>,
    /// Why.
    pub comment: String,
    /// Who made it.
    pub created_by: String,
    /// From when on.
    #[serde(with = "time::serde::rfc3339")]
    pub starts_at: OffsetDateTime,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub ends_at: OffsetDateTime,
    /// Messages that wait for its end.
    pub waiting: i64,
}

/// A silence to be made.
#[derive(Clone, Debug)]
pub struct NewSilence {
    /// Its id.
    pub silence_id: Uuid,
    /// As it was written.
    pub selector: String,
    /// The same, read.
    pub requirements: Selector,
    /// One host.
    pub host_id: Option<Uuid>,
    /// One rule.
    pub rule: Option<String>,
    /// Why.
    pub comment: String,
    /// From when on.
    pub starts_at: OffsetDateTime,
    /// Until when.
    pub ends_at: OffsetDateTime,
}

/// What became of a silence to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateSilence {
    /// Made.
    Created,
    /// There is no such host.
    NoHost,
    /// There are [`MAX_SILENCES`].
    TooMany,
}

impl Store {
    /// Silences that have not ended, the first to end first; with `ended` also the newest 1,000 that have.
    pub async fn silences(&self, ended: bool) -> Result<Vec<Silence>, StoreError> {
        sqlx::query_as!(
            Silence,
            r#"-- Store::silences
            select silence_id, selector, host_id, rule, comment, created_by, starts_at, ends_at,
                (select count(*) from notifications n
                    where n.silence_id = s.silence_id and n.state = 'queued') as "waiting!"
            from silences s where $1 or ends_at > now()
            order by ends_at <= now(), case when ends_at > now() then ends_at end, ends_at desc limit 1000"#,
            ended
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("silences"))
    }

    /// Makes a silence.
    pub async fn create_silence(
        &self,
        new: &NewSilence,
        actor: &Actor,
    ) -> Result<CreateSilence, StoreError> {
        self.try_create_silence(new, actor).await.map_err(StoreError::of("create_silence"))
    }

    async fn try_create_silence(
        &self,
        new: &NewSilence,
        actor: &Actor,
    ) -> Result<CreateSilence, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let checked = sqlx::query!(
            r#"-- Store::create_silence.check
            select (select count(*) from silences where ends_at > now()) as "known!",
                $1::uuid is null or exists (select from hosts where host_id = $1) as "is_host!""#,
            new.host_id
        )
        .fetch_one(&mut *transaction)
        .await?;
        if checked.known >= MAX_SILENCES {
            return Ok(CreateSilence::TooMany);
        }
        if !checked.is_host {
            return Ok(CreateSilence::NoHost);
        }
        sqlx::query!(
            "-- Store::create_silence
            insert into silences (silence_id, selector, requirements, host_id, rule, comment, created_by, starts_at, ends_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            new.silence_id,
            new.selector,
            Json(&new.requirements) as _,
            new.host_id,
            new.rule,
            new.comment,
            actor.name.as_deref().unwrap_or(&actor.id),
            new.starts_at,
            new.ends_at,
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({
            "selector": new.selector, "host_id": new.host_id, "rule": new.rule, "comment": new.comment,
            "starts_at": new.starts_at.to_string(), "ends_at": new.ends_at.to_string(),
        });
        let object = new.silence_id.to_string();
        record(&mut transaction, actor, "silence.create", ("silence", &object), detail).await?;
        transaction.commit().await?;
        Ok(CreateSilence::Created)
    }

    /// Ends a silence now; what waits for its end is looked at again. False: none that has not ended.
    pub async fn end_silence(&self, silence_id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
        self.try_end_silence(silence_id, actor).await.map_err(StoreError::of("end_silence"))
    }

    async fn try_end_silence(&self, silence_id: Uuid, actor: &Actor) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // One that has not begun leaves nothing but its row in the audit.
        let ended = sqlx::query!(
            r#"-- Store::end_silence
            with gone as (
                delete from silences where silence_id = $1 and starts_at >= now() returning 1),
            ended as (
                update silences set ends_at = now()
                where silence_id = $1 and starts_at < now() and ends_at > now() returning 1),
            freed as (
                update notifications set next_at = now()
                where silence_id = $1 and state = 'queued' and next_at > now())
            select (select count(*) from gone) + (select count(*) from ended) as "count!""#,
            silence_id
        )
        .fetch_one(&mut *transaction)
        .await?;
        if ended.count == 0 {
            return Ok(false);
        }
        let object = silence_id.to_string();
        record(&mut transaction, actor, "silence.end", ("silence", &object), json!({})).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
