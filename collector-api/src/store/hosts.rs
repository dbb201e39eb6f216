//! What operators ask about hosts.

use serde::Serialize;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ids::like_pattern;
use super::{Store, StoreError};
use crate::selector::Selector;

/// Most file systems, block devices or interfaces of one host in an answer.
const MAX_DEVICES: i64 = 4096;

/// One host: identity, heartbeat and its newest sample in short.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostSummary {
    /// The identity in its certificate.
    pub host_id: Uuid,
    /// `uname` nodename; several hosts may have the same.
    pub host_name: String,
    /// `pending` (waits for approval), `active`, `quarantined` or `decommissioned`.
    #[schema(example = "active")]
    pub lifecycle: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_description: Option<String>,
    /// `uname` release.
    pub kernel_release: String,
    /// `uname` machine.
    pub host_arch: String,
    /// Version of the agent.
    pub agent_version: String,
    /// When it got its identity.
    #[serde(with = "time::serde::rfc3339")]
    pub enrolled_at: OffsetDateTime,
    /// When the newest report was stored, server's clock; null: it never reported.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    /// When it last proved its identity, whatever it was told, server's clock; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub contacted_at: Option<OffsetDateTime>,
    /// When the agent took that report.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_sampled_at: Option<OffsetDateTime>,
    /// What its agent adds to the host's clock, which the servers contradict, ms; null: it believes it.
    pub clock_offset_ms: Option<i64>,
    /// When the host counts as silent unless it reports before.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deadline_at: Option<OffsetDateTime>,
    /// Whether that moment has passed; null: it never reported.
    pub silent: Option<bool>,
    /// `never_reported`, `up`, `late`, `silent`, `stopped` (it said so) or `dormant` (for two weeks);
    /// null: it is not active.
    #[schema(example = "up")]
    pub liveness: Option<String>,
    /// Why it stopped, in its own word: `shutdown`, `restart`, `upgrade` or `uninstall`; null: it did not.
    pub goodbye: Option<String>,
    /// When it said so, server's clock.
    #[serde(with = "time::serde::rfc3339::option")]
    pub goodbye_at: Option<OffsetDateTime>,
    /// Since when two machines show its identity, server's clock; the one that was first is stored. Null: they do not,
    /// or have not for an hour.
    #[serde(with = "time::serde::rfc3339::option")]
    pub clone_detected_at: Option<OffsetDateTime>,
    /// When another host last enrolled as the same machine while this one lived, or the reverse. Copied machines share ids.
    #[serde(with = "time::serde::rfc3339::option")]
    pub duplicate_machine_at: Option<OffsetDateTime>,
    /// Interval between its reports, ms.
    pub interval_ms: Option<i32>,
    /// Logical CPUs.
    pub cpu_count: Option<i32>,
    /// Share of CPU time spent in user and system, 0 to 1.
    pub cpu_utilization_ratio: Option<f64>,
    /// Load average over 1 minute.
    pub load_1m: Option<f64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<i64>,
    /// Total minus available, bytes.
    pub memory_used_bytes: Option<i64>,
    /// Whether it may vanish without a word.
    pub ephemeral: bool,
    /// Labels: name to value.
    #[schema(value_type = Object, example = json!({"env": "prod"}))]
    pub labels: serde_json::Value,
}

/// A host that a name or an id stands for.
#[derive(Clone, Debug)]
pub struct HostMatch {
    /// Its id.
    pub host_id: Uuid,
    /// Whether it is not decommissioned.
    pub active: bool,
    /// Whether it is a tombstone.
    pub decommissioned: bool,
}

/// A mounted file system when it was last sampled.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mount_point: String,
    /// What is mounted.
    pub device: String,
    /// Its type.
    pub filesystem_type: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Capacity, bytes.
    pub total_bytes: Option<i64>,
    /// Used, bytes.
    pub used_bytes: Option<i64>,
    /// Available without privileges, bytes.
    pub available_bytes: Option<i64>,
    /// Inodes.
    pub inodes_total: Option<i64>,
    /// Inodes in use.
    pub inodes_used: Option<i64>,
}

/// A block device over its newest interval.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlockDevice {
    /// Kernel name.
    pub device: String,
    /// End of the interval.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Length of the interval, ms.
    pub interval_ms: i32,
    /// Read in the interval, bytes.
    pub read_bytes: Option<i64>,
    /// Written in the interval, bytes.
    pub write_bytes: Option<i64>,
    /// Reads completed in the interval.
    pub read_operations: Option<i64>,
    /// Writes completed in the interval.
    pub write_operations: Option<i64>,
    /// Mean number of requests queued or in flight (`avgqu-sz`).
    pub queue_length: Option<f64>,
    /// Share of the interval with I/O in flight, 0 to 1.
    pub utilization_ratio: Option<f64>,
}

/// A network interface over its newest interval.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NetworkInterface {
    /// Name.
    pub interface: String,
    /// End of the interval.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Length of the interval, ms.
    pub interval_ms: i32,
    /// Link speed, bits per second.
    pub speed_bits_per_second: Option<i64>,
    /// Received in the interval, bytes.
    pub receive_bytes: Option<i64>,
    /// Transmitted in the interval, bytes.
    pub transmit_bytes: Option<i64>,
    /// Received in the interval, packets.
    pub receive_packets: Option<i64>,
    /// Transmitted in the interval, packets.
    pub transmit_packets: Option<i64>,
    /// Receive errors in the interval.
    pub receive_errors: Option<i64>,
    /// Transmit errors in the interval.
    pub transmit_errors: Option<i64>,
    /// Dropped on receive in the interval.
    pub receive_drops: Option<i64>,
    /// Dropped on transmit in the interval.
    pub transmit_drops: Option<i64>,
}

/// What the agent last said of itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentState {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Length of the interval, ms.
    pub interval_ms: i32,
    /// CPU it used in the interval, µs.
    pub cpu_us: Option<i64>,
    /// Its resident set, bytes.
    pub memory_usage_bytes: Option<i64>,
    /// Reports it has not delivered yet.
    pub spool_reports: Option<i64>,
    /// Bytes of its spool.
    pub spool_bytes: Option<i64>,
    /// Everything it ever lost since its start, by place; null: nothing.
    #[schema(value_type = Option<Object>)]
    pub losses: Option<serde_json::Value>,
    /// Collectors whose run did not end `ok` or `no_data`; null: none.
    #[schema(value_type = Option<Vec<Object>>)]
    pub collectors: Option<serde_json::Value>,
}

impl Store {
    /// Hosts whose name contains `q` and whose labels fulfil `labels`, by name and id, after the host `after`.
    pub async fn list_hosts(
        &self,
        q: &str,
        labels: &Selector,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<HostSummary>, StoreError> {
        sqlx::query_as!(
            HostSummary,
            r#"/* list_hosts */
            select host_id as "host_id!", host_name as "host_name!", lifecycle as "lifecycle!", os_description,
                   kernel_release as "kernel_release!", host_arch as "host_arch!", agent_version as "agent_version!",
                   enrolled_at as "enrolled_at!", last_seen_at, contacted_at, last_sampled_at, clock_offset_ms, deadline_at, silent, liveness, goodbye,
                   goodbye_at, clone_detected_at, duplicate_machine_at, interval_ms, ephemeral as "ephemeral!",
                   cpu_count, cpu_utilization_ratio, load_1m, memory_total_bytes, memory_used_bytes, labels as "labels!"
            from procfleet_hosts
            where ($1 = '%%' or host_name ilike $1) and ($4 = '[]'::jsonb or procfleet_selects(labels, $4))
              and ($2::uuid is null or (host_name, host_id) > (select a.host_name, a.host_id from hosts a where a.host_id = $2))
            order by host_name, host_id limit $3"#,
            like_pattern(q),
            after,
            limit,
            Json(labels) as _,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("list_hosts"))
    }

    /// One host.
    pub async fn find_host(&self, host_id: Uuid) -> Result<Option<HostSummary>, StoreError> {
        sqlx::query_as!(
            HostSummary,
            r#"/* find_host */
            select host_id as "host_id!", host_name as "host_name!", lifecycle as "lifecycle!", os_description,
                   kernel_release as "kernel_release!", host_arch as "host_arch!", agent_version as "agent_version!",
                   enrolled_at as "enrolled_at!", last_seen_at, contacted_at, last_sampled_at, clock_offset_ms, deadline_at, silent, liveness, goodbye,
                   goodbye_at, clone_detected_at, duplicate_machine_at, interval_ms, ephemeral as "ephemeral!",
                   cpu_count, cpu_utilization_ratio, load_1m, memory_total_bytes, memory_used_bytes, labels as "labels!"
            from procfleet_hosts where host_id = $1"#,
            host_id,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("find_host"))
    }

    /// Ids of the hosts whose labels fulfil `labels`.
    pub async fn hosts_with(&self, labels: &Selector) -> Result<Vec<Uuid>, StoreError> {
        sqlx::query_scalar!(
            "/* hosts_with */
            select host_id from hosts where procfleet_selects(labels, $1) order by host_id",
            Json(labels) as _,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("hosts_with"))
    }

    /// Every host with this id or this name, active ones first, at most `limit`.
    pub async fn match_hosts(
        &self,
        host_id: Option<Uuid>,
        host_name: &str,
        limit: i64,
    ) -> Result<Vec<HostMatch>, StoreError> {
        sqlx::query_as!(
            HostMatch,
            r#"/* match_hosts */
            select host_id, lifecycle = 'active' as "active!", lifecycle = 'decommissioned' as "decommissioned!"
            from hosts where host_id = $1 or host_name = $2
            order by lifecycle = 'active' desc, lifecycle = 'decommissioned', host_id limit $3"#,
            host_id,
            host_name,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("match_hosts"))
    }

    /// File systems sampled within 10 minutes up to `at`, each as last seen.
    pub async fn latest_filesystems(
        &self,
        host_id: Uuid,
        at: OffsetDateTime,
    ) -> Result<Vec<Filesystem>, StoreError> {
        sqlx::query_as!(
            Filesystem,
            "/* latest_filesystems */
            select distinct on (mount_point) mount_point, device, filesystem_type, sampled_at,
                   total_bytes, used_bytes, available_bytes, inodes_total, inodes_used
            from filesystem_samples
            where host_id = $1 and sampled_at <= $2 and sampled_at > $2 - interval '10 minutes'
            order by mount_point, sampled_at desc limit $3",
            host_id,
            at,
            MAX_DEVICES,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("latest_filesystems"))
    }

    /// Block devices sampled within 10 minutes up to `at`, each as last seen.
    pub async fn latest_block_devices(
        &self,
        host_id: Uuid,
        at: OffsetDateTime,
    ) -> Result<Vec<BlockDevice>, StoreError> {
        sqlx::query_as!(
            BlockDevice,
            "/* latest_block_devices */
            select distinct on (device) device, sampled_at, interval_ms, read_bytes, write_bytes,
                   read_operations, write_operations, queue_length, utilization_ratio
            from block_device_samples
            where host_id = $1 and sampled_at <= $2 and sampled_at > $2 - interval '10 minutes'
            order by device, sampled_at desc limit $3",
            host_id,
            at,
            MAX_DEVICES,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("latest_block_devices"))
    }

    /// Network interfaces sampled within 10 minutes up to `at`, each as last seen.
    pub async fn latest_network_interfaces(
        &self,
        host_id: Uuid,
        at: OffsetDateTime,
    ) -> Result<Vec<NetworkInterface>, StoreError> {
        sqlx::query_as!(
            NetworkInterface,
            "/* latest_network_interfaces */
            select distinct on (interface) interface, sampled_at, interval_ms, speed_bits_per_second,
                   receive_bytes, transmit_bytes, receive_packets, transmit_packets,
                   receive_errors, transmit_errors, receive_drops, transmit_drops
            from network_interface_samples
            where host_id = $1 and sampled_at <= $2 and sampled_at > $2 - interval '10 minutes'
            order by interface, sampled_at desc limit $3",
            host_id,
            at,
            MAX_DEVICES,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("latest_network_interfaces"))
    }

    /// The agent's newest words about itself, up to an hour before `at`.
    pub async fn latest_agent_state(
        &self,
        host_id: Uuid,
        at: OffsetDateTime,
    ) -> Result<Option<AgentState>, StoreError> {
        sqlx::query_as!(
            AgentState,
            "/* latest_agent_state */
            select sampled_at, interval_ms, agent_cpu_us as cpu_us,
                   agent_memory_usage_bytes as memory_usage_bytes, agent_spool_reports as spool_reports,
                   agent_spool_bytes as spool_bytes, agent_losses as losses, agent_collectors as collectors
            from host_samples
            where host_id = $1 and sampled_at <= $2 and sampled_at > $2 - interval '1 hour'
            order by sampled_at desc limit 1",
            host_id,
            at,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("latest_agent_state"))
    }
}
