//! `channels`: where messages go. Addresses and secrets are here only as ciphertext.

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{Actor, record};
use super::notifications::dead_letters;
use super::{Store, StoreError};

/// Most channels: each is asked for work every second, and every alert has a row for each.
pub const MAX_CHANNELS: i64 = 32;

/// A channel as operators see it: nothing of its address or secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Channel {
    /// Its id.
    pub channel_id: Uuid,
    /// What operators call it.
    pub name: String,
    /// `wecom`, `dingtalk`, `feishu`, `slack`, `webhook`, `email` or `alertmanager`.
    pub kind: String,
    /// `en` or `zh`: the language of its messages.
    pub language: String,
    /// Whether anything is sent.
    pub enabled: bool,
    /// Most messages per minute, all replicas together.
    pub per_minute: i32,
    /// Of kind `alertmanager`: since when not every peer takes what it is sent.
    #[serde(with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
    /// Until when the provider asked to be left alone.
    #[serde(with = "time::serde::rfc3339::option")]
    pub held_until: Option<OffsetDateTime>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Messages that wait.
    pub queued: i64,
    /// Messages given up.
    pub dead: i64,
}

/// A channel to be made.
#[derive(Clone, Debug)]
pub struct NewChannel {
    /// Its id: part of what seals its secrets.
    pub channel_id: Uuid,
    /// What operators call it.
    pub name: String,
    /// As in the table.
    pub kind: &'static str,
    /// As in the table.
    pub language: &'static str,
    /// Most messages per minute.
    pub per_minute: i32,
    /// Address and secret, sealed.
    pub sealed: Vec<u8>,
}

/// What sending needs.
#[derive(Clone, Debug)]
pub struct SealedChannel {
    /// Its id.
    pub channel_id: Uuid,
    /// As in the table.
    pub kind: String,
    /// As in the table.
    pub language: String,
    /// Address and secret, sealed.
    pub sealed: Vec<u8>,
}

/// What became of a channel to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateChannel {
    /// Made.
    Created,
    /// Another one has the name.
    NameTaken,
    /// There are [`MAX_CHANNELS`].
    TooMany,
}

impl Store {
    /// Makes a channel.
    pub async fn create_channel(
        &self,
        new: &NewChannel,
        actor: &Actor,
    ) -> Result<CreateChannel, StoreError> {
        self.try_create_channel(new, actor).await.map_err(StoreError::of("create_channel"))
    }

    async fn try_create_channel(
        &self,
        new: &NewChannel,
        actor: &Actor,
    ) -> Result<CreateChannel, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let known = sqlx::query_scalar!(
            r#"-- Store::create_channel.count
            select count(*) as "count!" from channels"#
        )
        .fetch_one(&mut *transaction)
        .await?;
        if known >= MAX_CHANNELS {
            return Ok(CreateChannel::TooMany);
        }
        let made = sqlx::query!(
            "-- Store::create_channel
            insert into channels (channel_id, name, kind, language, per_minute, budget, sealed)
            values ($1, $2, $3, $4, $5::integer, $5::integer, $6) on conflict (name) do nothing",
            new.channel_id,
            new.name,
            new.kind,
            new.language,
            new.per_minute,
            new.sealed,
        )
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(CreateChannel::NameTaken);
        }
        let detail = json!({ "name": new.name, "kind": new.kind, "language": new.language });
        let object = ("channel", new.channel_id.to_string());
        record(&mut transaction, actor, "channel.create", (object.0, &object.1), detail).await?;
        transaction.commit().await?;
        Ok(CreateChannel::Created)
    }

    /// Removes a channel with what waits for it. False: there is none.
    pub async fn delete_channel(
        &self,
        channel_id: Uuid,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        self.try_delete_channel(channel_id, actor).await.map_err(StoreError::of("delete_channel"))
    }

    async fn try_delete_channel(
        &self,
        channel_id: Uuid,
        actor: &Actor,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let name = sqlx::query_scalar!(
            "-- Store::delete_channel
            delete from channels where channel_id = $1 returning name",
            channel_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(name) = name else { return Ok(false) };
        dead_letters::resolve(&mut transaction, channel_id).await?;
        let object = channel_id.to_string();
        let detail = json!({ "name": name });
        record(&mut transaction, actor, "channel.delete", ("channel", &object), detail).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes that a channel was tested, and what came of it.
    pub async fn note_channel_test(
        &self,
        channel_id: Uuid,
        answer: Option<&str>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let noted = async {
            let mut transaction = self.pool.begin().await?;
            let object = channel_id.to_string();
            let detail = json!({ "delivered": answer.is_none(), "answer": answer });
            record(&mut transaction, actor, "channel.test", ("channel", &object), detail).await?;
            transaction.commit().await
        };
        noted.await.map_err(StoreError::of("note_channel_test"))
    }

    /// Every channel, by name.
    pub async fn channels(&self) -> Result<Vec<Channel>, StoreError> {
        sqlx::query_as!(
            Channel,
            r#"-- Store::channels
            select channel_id, name, kind, language, enabled, per_minute, failing_since, held_until, created_at,
                (select count(*) from notifications n where n.channel_id = c.channel_id
                    and n.state in ('queued', 'sending')) as "queued!",
                (select count(*) from notifications n where n.channel_id = c.channel_id
                    and n.state = 'dead') as "dead!"
            from channels c order by name"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("channels"))
    }

    /// What sending through a channel needs.
    pub async fn sealed_channel(
        &self,
        channel_id: Uuid,
    ) -> Result<Option<SealedChannel>, StoreError> {
        sqlx::query_as!(
            SealedChannel,
            "-- Store::sealed_channel
            select channel_id, kind, language, sealed from channels where channel_id = $1",
            channel_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("sealed_channel"))
    }
}
