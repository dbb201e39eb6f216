//! Who used most of a resource in a window, and what became different between two.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::ids::{InstanceKey, ProcessKey};
use super::question::Question;
use super::samples::Window;

/// What subjects are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// CPU time, user and system.
    #[default]
    Cpu,
    /// Highest resident set.
    Memory,
    /// Bytes read and written.
    Disk,
    /// Bytes read.
    DiskRead,
    /// Bytes written.
    DiskWrite,
    /// Bytes received and transmitted.
    Network,
    /// Bytes received.
    NetworkReceive,
    /// Bytes transmitted.
    NetworkTransmit,
}

impl Resource {
    /// As the SQL functions and the query parameters call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::DiskRead => "disk_read",
            Self::DiskWrite => "disk_write",
            Self::Network => "network",
            Self::NetworkReceive => "network_receive",
            Self::NetworkTransmit => "network_transmit",
        }
    }
}

/// Whose use is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// One run of a process on one host.
    #[default]
    Instance,
    /// A command line, on every host that ran it.
    Process,
    /// Everything recorded of a host's processes.
    Host,
}

impl Subject {
    /// As the SQL function and the query parameter call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Process => "process",
            Self::Host => "host",
        }
    }
}

/// A question for the top of a window.
#[derive(Clone, Copy, Debug)]
pub struct Top<'a> {
    /// Which hosts; `None`: all.
    pub hosts: Option<&'a [Uuid]>,
    /// When.
    pub window: Window,
    /// Ranked by what.
    pub resource: Resource,
    /// Ranking what.
    pub subject: Subject,
    /// Most rows.
    pub limit: i64,
    /// Places passed over before them.
    pub skip: i64,
}

/// What a subject used in a window, and what it is: an instance, all instances of a process, or a
/// host. Also what everything else summed to: then the fields that describe it are null.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Place in the ranking, from 1.
    pub place: Option<i64>,
    /// The host; null for a process, which may run on many.
    pub host_id: Option<Uuid>,
    /// Its name.
    pub host_name: Option<String>,
    /// Which instance; `0` for the residual, null for what the unlisted ones sum to.
    pub instance_id: Option<InstanceKey>,
    /// Hosts summed here; null for what the unlisted ones sum to.
    pub host_count: Option<i64>,
    /// Instances summed here; 0 for the residual, whose members have no rows of their own.
    pub instance_count: i64,
    /// Most processes in one of its samples: 1, or what the residual stood for.
    pub process_count: Option<i32>,
    /// Samples in the window.
    pub sample_count: i64,
    /// First sample in the window.
    #[serde(with = "time::serde::rfc3339")]
    pub first_sampled_at: OffsetDateTime,
    /// Last sample in the window.
    #[serde(with = "time::serde::rfc3339")]
    pub last_sampled_at: OffsetDateTime,
    /// Time its samples cover, ms: less than the window where it was not there, or too small to keep.
    /// Of a process, summed over its instances.
    pub covered_ms: Option<i64>,
    /// CPU, µs.
    pub cpu_us: Option<i64>,
    /// User CPU, µs.
    pub cpu_user_us: Option<i64>,
    /// System CPU, µs.
    pub cpu_system_us: Option<i64>,
    /// CPUs kept busy on average: CPU over covered time, of a process over the window.
    pub cpu_cores: Option<f64>,
    /// CPUs kept busy in the busiest of its samples.
    pub cpu_cores_max: Option<f64>,
    /// Highest resident set of one instance, bytes.
    pub memory_usage_bytes_max: Option<i64>,
    /// Mean resident set of an instance, bytes.
    pub memory_usage_bytes_mean: Option<i64>,
    /// Most swapped out, bytes.
    pub memory_swap_bytes_max: Option<i64>,
    /// Fetched from storage, bytes.
    pub disk_read_bytes: Option<i64>,
    /// Sent to storage, bytes.
    pub disk_write_bytes: Option<i64>,
    /// Received over sockets, bytes.
    pub network_receive_bytes: Option<i64>,
    /// Transmitted over sockets, bytes.
    pub network_transmit_bytes: Option<i64>,
    /// Runnable but not running, µs.
    pub run_queue_delay_us: Option<i64>,
    /// Most threads.
    pub thread_count_max: Option<i32>,
    /// Most open file descriptors.
    pub file_descriptor_count_max: Option<i32>,
    /// What it runs; null: its description has not arrived yet.
    pub process_id: Option<ProcessKey>,
    /// Its command line, redacted on the host.
    pub command_line: Option<String>,
    /// The kernel's short name of it, of a process that of its newest run.
    pub executable_name: Option<String>,
    /// The file it executes.
    pub executable_path: Option<String>,
    /// Process id in the host's pid namespace.
    pub pid: Option<i32>,
    /// Its parent when it was first seen.
    pub parent_pid: Option<i32>,
    /// Effective user id.
    pub user_id: Option<i64>,
    /// Name of that user on the host.
    pub owner: Option<String>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// Ports it listens on; null: unknown.
    pub service_ports: Option<Vec<i32>>,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339::option")]
    pub creation_time: Option<OffsetDateTime>,
}

/// How the use of a process on a host changed between two windows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Change {
    /// Place in the ranking by how much changed, from 1.
    pub place: i64,
    /// The host.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: Option<String>,
    /// What it runs; null: instances whose description has not arrived yet.
    pub process_id: Option<ProcessKey>,
    /// Its command line, redacted on the host.
    pub command_line: Option<String>,
    /// The kernel's short name of it, of a process that of its newest run.
    pub executable_name: Option<String>,
    /// Use in the window: per second (CPU: µs), of memory the highest. Null: nothing was recorded.
    pub value: Option<f64>,
    /// The same of the window compared with.
    pub base_value: Option<f64>,
    /// How much more it is; what was not recorded counts as nothing.
    pub change: f64,
    /// Instances in the window.
    pub instance_count: Option<i64>,
    /// Instances in the window compared with.
    pub base_instance_count: Option<i64>,
    /// First sample in the window.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_sampled_at: Option<OffsetDateTime>,
    /// Last sample in the window.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_sampled_at: Option<OffsetDateTime>,
}

impl Question {
    /// The top of a window: at most `limit` subjects, then what those after them sum to, then the
    /// residual (see `procfleet_top`).
    pub async fn top(&mut self, top: Top<'_>) -> Result<Vec<Usage>, StoreError> {
        sqlx::query_as!(
            Usage,
            r#"/* top */
            select place, host_id, host_name, instance_id as "instance_id: InstanceKey",
                   host_count, instance_count as "instance_count!", process_count,
                   sample_count as "sample_count!", first_sampled_at as "first_sampled_at!",
                   last_sampled_at as "last_sampled_at!", covered_ms,
                   cpu_us, cpu_user_us, cpu_system_us, cpu_cores, cpu_cores_max,
                   memory_usage_bytes_max, memory_usage_bytes_mean, memory_swap_bytes_max,
                   disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes,
                   run_queue_delay_us, thread_count_max, file_descriptor_count_max,
                   process_id as "process_id: ProcessKey", command_line, executable_name, executable_path,
                   pid, parent_pid, user_id, owner, systemd_unit, container_id, cgroup, creation_time,
                   (select d.service_ports from process_instances d
                    where d.host_id = t.host_id and d.instance_id = t.instance_id) as service_ports
            from procfleet_top($1, $2, $3, $4, $5, $6, $7) t"#,
            top.hosts,
            top.window.from,
            top.window.to,
            top.resource.as_str(),
            top.subject.as_str(),
            top.limit,
            top.skip,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("top"))
    }

    /// What changed most from `base` to `window` (see `procfleet_compare`).
    pub async fn compare(
        &mut self,
        hosts: Option<&[Uuid]>,
        windows: [Window; 2],
        resource: Resource,
        limit: i64,
    ) -> Result<Vec<Change>, StoreError> {
        let [window, base] = windows;
        sqlx::query_as!(
            Change,
            r#"/* compare */
            select place as "place!", host_id as "host_id!", host_name, process_id as "process_id: ProcessKey",
                   command_line, executable_name, value, base_value, change as "change!",
                   instance_count, base_instance_count, first_sampled_at, last_sampled_at
            from procfleet_compare($1, $2, $3, $4, $5, $6, $7)"#,
            hosts,
            window.from,
            window.to,
            base.from,
            base.to,
            resource.as_str(),
            limit,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("compare"))
    }
}
