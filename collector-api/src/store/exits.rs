//! What operators ask about processes that ended.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::ids::{InstanceKey, ProcessKey};
use super::question::Question;
use super::samples::Window;
use super::usage::Resource;

/// An instance that ended, or many of one kind that began and ended within one interval. What it used
/// is of its whole life.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Exit {
    /// Place in the answer, from 1.
    pub place: i64,
    /// Where.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: Option<String>,
    /// End of the interval in which it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Which instance; `0` for many.
    pub instance_id: InstanceKey,
    /// What it ran last; null: many of several kinds.
    pub process_id: Option<ProcessKey>,
    /// Its command line, redacted on the host.
    pub command_line: Option<String>,
    /// Its process id.
    pub pid: Option<i32>,
    /// Its parent.
    pub parent_pid: Option<i32>,
    /// Name of its effective user on the host.
    pub owner: Option<String>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339::option")]
    pub creation_time: Option<OffsetDateTime>,
    /// When it ended; null for many.
    #[serde(with = "time::serde::rfc3339::option")]
    pub exit_time: Option<OffsetDateTime>,
    /// How long it lived, µs; of many the sum.
    pub lifetime_us: Option<i64>,
    /// Its status; null: a signal ended it, or it is not known.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub exit_signal: Option<i32>,
    /// Processes in this row.
    pub process_count: i32,
    /// How many of them failed; null: not known, or see `exit_code` and `exit_signal`.
    pub failed_count: Option<i32>,
    /// User CPU, µs.
    pub cpu_user_us: Option<i64>,
    /// System CPU, µs.
    pub cpu_system_us: Option<i64>,
    /// Highest resident set, bytes; of many the highest.
    pub memory_usage_bytes_max: Option<i64>,
    /// Fetched from storage, bytes.
    pub disk_read_bytes: Option<i64>,
    /// Sent to storage, bytes.
    pub disk_write_bytes: Option<i64>,
    /// Received over sockets, bytes.
    pub network_receive_bytes: Option<i64>,
    /// Transmitted over sockets, bytes.
    pub network_transmit_bytes: Option<i64>,
}

/// Which exits.
#[derive(Clone, Copy, Debug)]
pub struct Exits<'a> {
    /// On which hosts; `None`: all.
    pub hosts: Option<&'a [Uuid]>,
    /// Only of this process.
    pub process_id: Option<ProcessKey>,
    /// Only of this instance.
    pub instance_id: Option<InstanceKey>,
    /// Only those that failed.
    pub failed: bool,
    /// When.
    pub window: Window,
    /// By what; `None`: newest first.
    pub resource: Option<Resource>,
    /// Most rows.
    pub limit: i64,
    /// Places passed over before them.
    pub skip: i64,
}

impl Question {
    /// Processes that ended.
    pub async fn exits(&mut self, exits: Exits<'_>) -> Result<Vec<Exit>, StoreError> {
        sqlx::query_as!(
            Exit,
            r#"/* exits */
            select place as "place!", host_id as "host_id!", host_name, sampled_at as "sampled_at!",
                   instance_id as "instance_id!: InstanceKey", process_id as "process_id: ProcessKey", command_line,
                   pid, parent_pid, owner, systemd_unit, cgroup, creation_time, exit_time, lifetime_us, exit_code, exit_signal,
                   process_count as "process_count!", failed_count, cpu_user_us, cpu_system_us, memory_usage_bytes_max,
                   disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes
            from procfleet_exits($1, $2, $3, $4, $5, $6, $7, $8, $9)"#,
            exits.hosts,
            exits.process_id.map(|id| id.0),
            exits.instance_id.map(|id| id.0),
            exits.failed,
            exits.window.from,
            exits.window.to,
            exits.resource.map(Resource::as_str),
            exits.limit,
            exits.skip,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("exits"))
    }
}
