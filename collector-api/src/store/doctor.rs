//! What `procfleet-server doctor` asks the database itself. Needs no schema, but for the hosts.

use time::OffsetDateTime;

use super::{Store, StoreError};

/// The database, whatever is in it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `server_version_num`, such as 170004.
    pub version: i32,
    /// Its clock.
    pub now: OffsetDateTime,
    /// Size of this database.
    pub bytes: i64,
    /// Version of the extension in this database.
    pub timescaledb: Option<String>,
    /// Whether the server could have it.
    pub timescaledb_offered: bool,
}

/// Agents of one version.
#[derive(Clone, Debug)]
pub struct AgentVersion {
    /// As they say it.
    pub agent_version: String,
    /// Active hosts.
    pub hosts: i64,
}

/// Most versions told.
const MAX_VERSIONS: i64 = 20;

impl Store {
    /// What the database says of itself.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        sqlx::query_as!(
            Facts,
            r#"-- Store::facts
            select current_setting('server_version_num')::integer as "version!", clock_timestamp() as "now!",
                pg_database_size(current_database()) as "bytes!",
                (select extversion from pg_extension where extname = 'timescaledb') as timescaledb,
                exists (select from pg_available_extensions where name = 'timescaledb') as "timescaledb_offered!""#
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::of("facts"))
    }

    /// Versions of the agents of active hosts, the commonest first.
    pub async fn agent_versions(&self) -> Result<Vec<AgentVersion>, StoreError> {
        sqlx::query_as!(
            AgentVersion,
            r#"-- Store::agent_versions
            select agent_version, count(*) as "hosts!" from hosts where lifecycle = 'active'
            group by agent_version order by count(*) desc, agent_version limit $1"#,
            MAX_VERSIONS
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("agent_versions"))
    }
}
