//! Processes (*what* runs), instances (*one run* of it on one host) and their numbers.

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// Key of a process: the md5 of its command line (redacted, cleaned and capped on the host), as a
/// UUID-shaped 128-bit value, 32 lower-case hex digits on the wire.
///
/// md5 is a content key here, not a defence: the server recomputes it, and compares the text when
/// a key is already taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId(#[serde(with = "uuid::serde::simple")] pub Uuid);

impl ProcessId {
    /// The key of `command_line`.
    pub fn of(command_line: &str) -> Self {
        Self(Uuid::from_bytes(Md5::digest(command_line.as_bytes()).into()))
    }
}

/// Key of an instance within its host: a 63-bit hash of (boot id, pid, start time). `0` is the
/// residual row. Two instances of one host collide with probability 2⁻⁶³ per pair.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct InstanceId(pub i64);

impl InstanceId {
    /// The row that sums everything a tick did not keep.
    pub const RESIDUAL: Self = Self(0);

    /// The key of the instance with `pid` (thread group id in the host's pid namespace) that
    /// started `start_ticks` clock ticks after boot `boot_id` (`/proc/<pid>/stat` field 22).
    pub fn of(boot_id: Uuid, pid: u32, start_ticks: u64) -> Self {
        let digest = Md5::new()
            .chain_update(boot_id.as_bytes())
            .chain_update(pid.to_le_bytes())
            .chain_update(start_ticks.to_le_bytes())
            .finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // Positive, so that every language can read it, and never the residual's 0.
        Self((i64::from_le_bytes(first) & i64::MAX).max(1))
    }
}

/// `processes` dictionary entry: what a [`ProcessId`] stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessDefinition {
    /// md5 of `command_line`; the server refuses a report where it is not.
    pub process_id: ProcessId,
    /// Arguments joined by single spaces, redacted, control characters replaced, at most
    /// [`crate::limits::MAX_COMMAND_LINE_BYTES`]. Kernel threads, which have none: `[name]`.
    pub command_line: String,
}

/// `instances` dictionary entry: what an [`InstanceId`] stands for. Described again when the
/// instance executes another program; the newest description wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceDefinition {
    /// Hash of (the report's `boot_id`, `pid`, `start_ticks`); the server refuses a report where it is not.
    pub instance_id: InstanceId,
    /// What it runs.
    pub process_id: ProcessId,
    /// Thread group id in the host's pid namespace.
    pub pid: u32,
    /// Parent at first sight, `/proc/<pid>/stat` field 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    /// Start, clock ticks since boot: `/proc/<pid>/stat` field 22.
    pub start_ticks: u64,
    /// Start in wall-clock time: `btime` of `/proc/stat` plus `start_ticks`.
    #[serde(with = "time::serde::rfc3339")]
    pub creation_time: Timestamp,
    /// Effective user id: second value of `Uid` of `/proc/<pid>/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<u32>,
    /// Name of `user_id` in the host's `/etc/passwd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `comm` of `/proc/<pid>/stat`: of this run, because one command line may run under many names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable_name: Option<String>,
    /// Target of `/proc/<pid>/exe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable_path: Option<String>,
    /// Path in the cgroup v2 hierarchy, or in `name=systemd` on v1: `/proc/<pid>/cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Innermost `.service` or `.scope` of `cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<String>,
    /// 64 hex digits found in `cgroup` (docker, containerd, cri-o, podman).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Kubernetes pod uid found in `cgroup`, lower-case with dashes (static pods: 32 hex digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Ports it listens on (TCP) or is bound to without a peer (UDP), ascending; empty: none, null:
    /// unknown. The lowest [`crate::limits::MAX_SERVICE_PORTS`] of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ports: Option<Vec<u16>>,
}

/// One instance over one interval, or the residual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Whose row; [`InstanceId::RESIDUAL`] for the sum of all instances not kept in this tick.
    pub instance_id: InstanceId,
    /// Instances summed in this row: 1, or what the residual stands for, without those that ended: 0 if
    /// nothing but their CPU is in it.
    pub process_count: u32,
    /// User CPU, delta, µs: `/proc/<pid>/stat` field 14, all threads, dead ones included; in the
    /// residual also of processes that ended in the interval, by field 16 of those who waited for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_us: Option<u64>,
    /// System CPU, delta, µs: field 15; of those that ended, field 17.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_us: Option<u64>,
    /// Resident set, bytes: `/proc/<pid>/statm` field 2. Pages shared between processes count in each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_usage_bytes: Option<u64>,
    /// Swapped out, bytes: `VmSwap` of `/proc/<pid>/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap_bytes: Option<u64>,
    /// Fetched from storage, delta, bytes: `read_bytes` of `/proc/<pid>/io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes: Option<u64>,
    /// Sent to storage, delta, bytes: `write_bytes − cancelled_write_bytes` of `/proc/<pid>/io`,
    /// charged when a page is made dirty; not below 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_write_bytes: Option<u64>,
    /// Received over sockets, delta, bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_receive_bytes: Option<u64>,
    /// Transmitted over sockets, delta, bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_transmit_bytes: Option<u64>,
    /// Time runnable but not running, delta, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_queue_delay_us: Option<u64>,
    /// Threads: `/proc/<pid>/stat` field 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_count: Option<u32>,
    /// Open file descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_descriptor_count: Option<u32>,
    /// Minor page faults, delta: `/proc/<pid>/stat` field 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paging_faults_minor: Option<u64>,
    /// Major page faults, delta: field 12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paging_faults_major: Option<u64>,
    /// Voluntary context switches, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches_voluntary: Option<u64>,
    /// Involuntary context switches, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches_involuntary: Option<u64>,
}

/// One instance that ended in the interval, with the totals of its whole life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// Who ended; described in the same or an earlier report.
    pub instance_id: InstanceId,
    /// What it ran last; described in the same or an earlier report.
    pub process_id: ProcessId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub exit_time: Timestamp,
    /// From its start to its end, time suspended included, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_us: Option<u64>,
    /// Status of exit(2), null when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u32>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<u32>,
    /// Lifetime totals, in the units of [`ProcessSample`]; memory is the peak.
    pub totals: ProcessSample,
}

/// Instances that began and ended in the interval, too many of one kind to be reported one by one. No
/// instance is both here and in `exits[]`: the counts of both together are those of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFold {
    /// What they all ran last; described in the same or an earlier report. Null: kinds beyond the
    /// agent's limit, all in one fold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<ProcessId>,
    /// The parent of them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    /// Effective user id of the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<u32>,
    /// The cgroup of them all, as in [`InstanceDefinition::cgroup`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// How many of them ended by a signal or with a status other than 0; null: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_count: Option<u32>,
    /// Sum of their lifetimes, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_us: Option<u64>,
    /// Sums of their lifetime totals; memory is the highest peak of any. `process_count` says how many they
    /// are, `instance_id` is [`InstanceId::RESIDUAL`].
    pub totals: ProcessSample,
}
