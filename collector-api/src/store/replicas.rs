//! `server_replicas`: which servers run on this database.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Store, StoreError};

/// Most rows listed: far more than one database serves.
const MAX_LISTED: i64 = 256;

/// A server, as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// Of this run.
    pub replica_id: Uuid,
    /// Of the machine.
    pub host_name: String,
    /// Of the program.
    pub version: &'static str,
    /// Where its operator door listens.
    pub operator_door: String,
}

/// A server that ran within a day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Replica {
    /// Of one run of it.
    pub replica_id: Uuid,
    /// Of its machine.
    pub host_name: String,
    /// Of the program.
    pub version: String,
    /// Where its operator door listens.
    #[schema(example = "127.0.0.1:7080")]
    pub operator_door: String,
    /// `up`, `silent` (it has not said that it lives for a minute) or `stopped`.
    #[schema(example = "up")]
    pub state: String,
    /// Database clock.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it last said that it lives, database clock.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
}

impl Store {
    /// Says that a server lives, and forgets those that have not said so for a day.
    pub async fn note_replica(&self, me: &Myself) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::note_replica
            with forgotten as (delete from server_replicas where seen_at < now() - interval '1 day')
            insert into server_replicas (replica_id, host_name, version, operator_door)
            values ($1, $2, $3, $4)
            on conflict (replica_id) do update set seen_at = now()",
            me.replica_id,
            me.host_name,
            me.version,
            me.operator_door,
        )
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(StoreError::of("note_replica"))
    }

    /// Says that a server ends.
    pub async fn note_replica_stopped(&self, replica_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::note_replica_stopped
            update server_replicas set stopped_at = now(), seen_at = now() where replica_id = $1",
            replica_id
        )
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(StoreError::of("note_replica_stopped"))
    }

    /// The servers of the last day, those that live first.
    pub async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        sqlx::query_as!(
            Replica,
            r#"-- Store::replicas
            select replica_id, host_name, version, operator_door, started_at, seen_at,
                case when stopped_at is not null then 'stopped'
                    when seen_at < now() - interval '1 minute' then 'silent' else 'up' end as "state!"
            from server_replicas
            order by stopped_at is not null, seen_at < now() - interval '1 minute', started_at desc, replica_id
            limit $1"#,
            MAX_LISTED
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("replicas"))
    }
}
