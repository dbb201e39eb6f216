//! When and where a command line ran.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ids::{InstanceKey, ProcessKey};
use super::{Store, StoreError};

/// One run of a process on one of the hosts that ran it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Run {
    /// Where.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: Option<String>,
    /// Which run, within the host.
    pub instance_id: InstanceKey,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub creation_time: OffsetDateTime,
    /// When the host last described it: it ran then, and may have run longer.
    #[serde(with = "time::serde::rfc3339")]
    pub described_at: OffsetDateTime,
    /// Process id in the host's pid namespace.
    pub pid: i32,
    /// Its parent when it was first seen.
    pub parent_pid: Option<i32>,
    /// Name of its effective user on the host.
    pub owner: Option<String>,
    /// The file it executes.
    pub executable_path: Option<String>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
}

/// Where a page of runs ended.
#[derive(Clone, Copy, Debug)]
pub struct RunCursor {
    /// Start of its last run, µs since the Unix epoch: what the database keeps of it.
    pub creation_us: i64,
    /// Where that ran.
    pub host_id: Uuid,
    /// Which run it was.
    pub instance_id: i64,
}

impl Store {
    /// Runs of a process that began at or before `until`, newest first, after `after`.
    pub async fn list_runs(
        &self,
        process_id: ProcessKey,
        until: OffsetDateTime,
        after: Option<RunCursor>,
        limit: i64,
    ) -> Result<Vec<Run>, StoreError> {
        sqlx::query_as!(
            Run,
            r#"/* list_runs */
            select i.host_id, h.host_name as "host_name?", i.instance_id as "instance_id: InstanceKey", i.creation_time,
                   i.described_at, i.pid, i.parent_pid, i.owner, i.executable_path, i.systemd_unit, i.container_id
            from process_instances i left join hosts h on h.host_id = i.host_id
            where i.process_id = $1 and i.creation_time <= $2
              and ($3::bigint is null or (i.creation_time, i.host_id, i.instance_id)
                   < (timestamptz 'epoch' + $3 * interval '1 microsecond', $4, $5))
            order by i.creation_time desc, i.host_id desc, i.instance_id desc limit $6"#,
            process_id.0,
            until,
            after.map(|cursor| cursor.creation_us),
            after.map(|cursor| cursor.host_id),
            after.map(|cursor| cursor.instance_id),
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("list_runs"))
    }
}
