//! Who changed what: rows written in the transaction of the change, never changed or removed.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Who changes something.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `api_key:<id>`, `cli` or `server`.
    pub id: String,
    /// What the key is called.
    pub name: Option<String>,
}

impl Actor {
    /// Whoever runs `procfleet-server` beside the database.
    pub fn cli() -> Self {
        Self { id: "cli".into(), name: None }
    }

    /// What the servers do by themselves.
    pub fn server() -> Self {
        Self { id: "server".into(), name: None }
    }

    /// Whoever shows this API key, or a session begun with it.
    pub fn api_key(api_key_id: Uuid, name: &str) -> Self {
        Self { id: format!("api_key:{api_key_id}"), name: Some(name.to_owned()) }
    }
}

/// A change that an operator made.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub struct AuditRow {
    /// A `UUIDv7`: events sort by their time.
    pub event_id: Uuid,
    /// Database clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `api_key:<id>` or `cli`.
    pub actor: String,
    /// What the key was called then.
    pub actor_name: Option<String>,
    /// Such as `host.decommission`.
    #[schema(example = "host.decommission")]
    pub action: String,
    /// Such as `host`.
    #[schema(example = "host")]
    pub object_type: String,
    /// Its id.
    pub object_id: String,
    /// What changed.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// Writes the row of a change of a host.
pub(super) async fn record_host(
    connection: &mut PgConnection,
    actor: &Actor,
    action: &str,
    host_id: Uuid,
    detail: serde_json::Value,
) -> Result<(), sqlx::Error> {
    record(connection, actor, action, ("host", &host_id.to_string()), detail).await
}

/// Writes the row of a change of any object: its type and id.
pub(super) async fn record(
    connection: &mut PgConnection,
    actor: &Actor,
    action: &str,
    (object_type, object_id): (&str, &str),
    detail: serde_json::Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::record
        insert into audit_events (event_id, actor, actor_name, action, object_type, object_id, detail)
        values ($1, $2, $3, $4, $5, $6, $7)",
        Uuid::now_v7(),
        actor.id,
        actor.name,
        action,
        object_type,
        object_id,
        detail,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Changes, newest first, those before `after`, at most `limit`; of one object, or of all.
    pub async fn audit_events(
        &self,
        object_id: Option<&str>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        sqlx::query_as!(
            AuditRow,
            "-- Store::audit_events
            select event_id, at, actor, actor_name, action, object_type, object_id, detail
            from audit_events
            where ($1::text is null or object_id = $1) and ($2::uuid is null or event_id < $2)
            order by event_id desc limit $3",
            object_id,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("audit_events"))
    }
}
