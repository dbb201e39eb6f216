//! What is set for one host alone, what its agent says became of what it was told, and the number that
//! grows when any of it may be another.

use serde::Serialize;
use serde_json::{Value, json};
use shared_model::ConfigurationStatus;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{Actor, record_host};
use super::certificates::lock_host;
use super::labels::Labels;
use super::{Store, StoreError};

/// What decides, beside the profiles, what is in force for a host.
#[derive(Clone, Debug)]
pub struct HostLayers {
    /// Its id.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: String,
    /// Its labels.
    pub labels: Json<Labels>,
    /// What is set for it alone.
    pub configuration: Option<Value>,
    /// Version of that; null: nothing was ever set.
    pub version: Option<i32>,
}

/// What became of a change of what is set for one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideChange {
    /// Done.
    Done,
    /// There is no such host.
    NoHost,
    /// It has another version than was expected: somebody else changed it.
    Stale,
}

/// What an agent says.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostConfigurationRow {
    /// The host.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: String,
    /// `applied`, `applying` or `failed`; of the last one received.
    #[schema(example = "applied")]
    pub state: String,
    /// Hash of the last one that the agent read.
    pub received: Option<String>,
    /// Hash of the one it works by.
    pub applied: Option<String>,
    /// Hash of the last one that it could not apply, or went back from.
    pub failed: Option<String>,
    /// Why.
    pub error: Option<String>,
    /// Keys that the host's own limits kept from their value.
    pub limited: Vec<String>,
    /// When it said so.
    #[serde(with = "time::serde::rfc3339")]
    pub reported_at: OffsetDateTime,
}

impl Store {
    /// See the table `configuration_revision`.
    pub async fn configuration_revision(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            "-- Store::configuration_revision
            select revision from configuration_revision"
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::of("configuration_revision"))
    }

    /// What decides about one host.
    pub async fn host_layers(&self, host_id: Uuid) -> Result<Option<HostLayers>, StoreError> {
        sqlx::query_as!(
            HostLayers,
            r#"-- Store::host_layers
            select h.host_id, h.host_name, h.labels as "labels: Json<Labels>",
                o.configuration as "configuration?", o.version as "version?"
            from hosts h left join host_overrides o using (host_id) where h.host_id = $1"#,
            host_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("host_layers"))
    }

    /// What decides about every host that is not decommissioned, at most `limit`, by name.
    pub async fn all_host_layers(&self, limit: i64) -> Result<Vec<HostLayers>, StoreError> {
        sqlx::query_as!(
            HostLayers,
            r#"-- Store::all_host_layers
            select h.host_id, h.host_name, h.labels as "labels: Json<Labels>",
                o.configuration as "configuration?", o.version as "version?"
            from hosts h left join host_overrides o using (host_id)
            where h.lifecycle <> 'decommissioned' order by h.host_name, h.host_id limit $1"#,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("all_host_layers"))
    }

    /// Sets what one host alone is to use, if what is set has the version `expected` (0: nothing was ever set;
    /// none: whatever is set); `None`: nothing any more.
    pub async fn set_host_override(
        &self,
        host_id: Uuid,
        expected: Option<i32>,
        configuration: Option<&Value>,
        actor: &Actor,
    ) -> Result<OverrideChange, StoreError> {
        self.try_set_host_override(host_id, expected, configuration, actor)
            .await
            .map_err(StoreError::of("set_host_override"))
    }

    async fn try_set_host_override(
        &self,
        host_id: Uuid,
        expected: Option<i32>,
        configuration: Option<&Value>,
        actor: &Actor,
    ) -> Result<OverrideChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if lock_host(&mut transaction, host_id).await?.is_none() {
            return Ok(OverrideChange::NoHost);
        }
        let before = sqlx::query!(
            "-- Store::set_host_override.before
            select configuration, version from host_overrides where host_id = $1",
            host_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let version = before.as_ref().map_or(0, |before| before.version);
        if expected.is_some_and(|expected| expected != version) {
            return Ok(OverrideChange::Stale);
        }
        let before = before.and_then(|before| before.configuration);
        if before.as_ref() == configuration {
            return Ok(OverrideChange::Done);
        }
        sqlx::query!(
            "-- Store::set_host_override
            insert into host_overrides (host_id, configuration) values ($1, $2)
            on conflict (host_id) do update set configuration = excluded.configuration,
                version = host_overrides.version + 1, updated_at = now()",
            host_id,
            configuration,
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({ "from": before, "to": configuration });
        record_host(&mut transaction, actor, "host.configure", host_id, detail).await?;
        transaction.commit().await?;
        Ok(OverrideChange::Done)
    }

    /// Notes what an agent says, the same again at no cost.
    pub async fn note_configuration_status(
        &self,
        host_id: Uuid,
        status: &ConfigurationStatus,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::note_configuration_status
            insert into host_configurations as c (host_id, received, applied, failed, error, limited)
            values ($1, $2, $3, $4, $5, $6)
            on conflict (host_id) do update set received = excluded.received,
                applied = excluded.applied, failed = excluded.failed, error = excluded.error,
                limited = excluded.limited, reported_at = now()
            where (c.received, c.applied, c.failed, c.error, c.limited) is distinct from
                (excluded.received, excluded.applied, excluded.failed, excluded.error, excluded.limited)",
            host_id,
            status.received,
            status.applied,
            status.failed,
            status.error,
            &status.limited,
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("note_configuration_status"))?;
        Ok(())
    }

    /// What agents said, of one host or of all, in a certain state or any; by host id, after `after`.
    pub async fn host_configurations(
        &self,
        host_id: Option<Uuid>,
        state: Option<&str>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<HostConfigurationRow>, StoreError> {
        sqlx::query_as!(
            HostConfigurationRow,
            r#"-- Store::host_configurations
            select host_id, host_name, s.state as "state!", received, applied, failed, error, limited, reported_at
            from host_configurations c join hosts h using (host_id),
                lateral (select case when failed = received then 'failed'
                    when applied = received then 'applied' else 'applying' end) s (state)
            where ($1::uuid is null or host_id = $1) and ($2::text is null or s.state = $2)
                and ($3::uuid is null or host_id > $3) and h.lifecycle <> 'decommissioned'
            order by host_id limit $4"#,
            host_id,
            state,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("host_configurations"))
    }
}
