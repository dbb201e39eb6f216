//! The search for runs by what the kernel says of them.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ids::{InstanceKey, ProcessKey, like_pattern};
use super::{Store, StoreError};

/// What runs must have; `None`: anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// On this host.
    pub host_id: Option<Uuid>,
    /// A port they listen on.
    pub port: Option<i32>,
    /// Their process id.
    pub pid: Option<i32>,
    /// The name of their user.
    pub owner: Option<&'a str>,
    /// A part of their container's id.
    pub container: Option<&'a str>,
    /// A part of their systemd unit's name.
    pub unit: Option<&'a str>,
}

/// A run that was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FoundInstance {
    /// Where.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: Option<String>,
    /// Which run, within the host.
    pub instance_id: InstanceKey,
    /// What it ran last.
    pub process_id: ProcessKey,
    /// Its command line, redacted on the host; null: it has not arrived yet.
    pub command_line: Option<String>,
    /// The kernel's short name of it.
    pub executable_name: Option<String>,
    /// Process id in the host's pid namespace.
    pub pid: i32,
    /// Name of its effective user on the host.
    pub owner: Option<String>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// Ports it listens on; null: unknown.
    pub service_ports: Option<Vec<i32>>,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub creation_time: OffsetDateTime,
    /// When the host last described it: it ran then, and may have run longer.
    #[serde(with = "time::serde::rfc3339")]
    pub described_at: OffsetDateTime,
}

impl Store {
    /// At most `limit` runs that have everything wanted, those described last first.
    pub async fn search_instances(
        &self,
        wanted: Wanted<'_>,
        limit: i64,
    ) -> Result<Vec<FoundInstance>, StoreError> {
        sqlx::query_as!(
            FoundInstance,
            r#"/* search_instances */
            select i.host_id, h.host_name as "host_name?", i.instance_id as "instance_id: InstanceKey",
                   i.process_id as "process_id: ProcessKey", p.command_line as "command_line?", i.executable_name, i.pid,
                   i.owner, i.systemd_unit, i.container_id, i.service_ports, i.creation_time, i.described_at
            from process_instances i
            left join hosts h on h.host_id = i.host_id
            left join processes p on p.process_id = i.process_id
            where ($1::uuid is null or i.host_id = $1) and ($2::integer is null or $2 = any (i.service_ports))
              and ($3::integer is null or i.pid = $3) and ($4::text is null or i.owner = $4)
              and ($5::text is null or i.container_id ilike $5) and ($6::text is null or i.systemd_unit ilike $6)
            order by i.described_at desc, i.host_id, i.instance_id limit $7"#,
            wanted.host_id,
            wanted.port,
            wanted.pid,
            wanted.owner,
            wanted.container.map(like_pattern),
            wanted.unit.map(like_pattern),
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("search_instances"))
    }
}
