//! What is sampled of a host as a whole: CPU, memory, pressure, file systems, devices, interfaces.

use serde::{Deserialize, Serialize};

/// What a host says of itself: attributes, never identity. Sent at enrolment, in the first report
/// after the agent's start and whenever one of them changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `uname` nodename.
    pub host_name: String,
    /// SHA-256 of `/etc/machine-id` and an application id, hex. The raw id is confidential
    /// (machine-id(5)). Cloned machines share it: an attribute, never a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id_hash: Option<String>,
    /// SHA-256 of the firmware's id (DMI product UUID) and an application id, hex. It stays when the machine is
    /// installed anew; containers share their host's. Null: none, or only root may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_uuid_hash: Option<String>,
    /// `PRETTY_NAME` of `/etc/os-release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_description: Option<String>,
    /// `uname` release, such as `3.10.0-1160.el7.x86_64`.
    pub kernel_release: String,
    /// `uname` machine, such as `x86_64`.
    pub host_arch: String,
    /// Version of the agent.
    pub agent_version: String,
}

/// The host's own numbers over one interval. `*_us` of CPU are summed over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostSample {
    /// Logical CPUs online: `cpuN` lines of `/proc/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<u32>,
    /// User and nice time, guests included, delta, µs: `/proc/stat` fields 1 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_us: Option<u64>,
    /// System, irq and softirq time, delta, µs: `/proc/stat` fields 3, 6 and 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_us: Option<u64>,
    /// Time idle with I/O outstanding, delta, µs: `/proc/stat` field 5. The kernel lets it fall; a
    /// fall is reported as 0 and counted as an anomaly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_iowait_us: Option<u64>,
    /// Time taken by the hypervisor, delta, µs: `/proc/stat` field 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_steal_us: Option<u64>,
    /// Idle time, delta, µs: `/proc/stat` field 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_idle_us: Option<u64>,
    /// Load average over 1 minute: `/proc/loadavg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_1m: Option<f64>,
    /// Load average over 5 minutes: `/proc/loadavg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_5m: Option<f64>,
    /// Load average over 15 minutes: `/proc/loadavg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_15m: Option<f64>,
    /// `MemTotal` of `/proc/meminfo`, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Total minus available, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// `MemAvailable`, bytes; before Linux 3.14 free + buffers + cached + reclaimable slab − shmem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// `MemFree`, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_free_bytes: Option<u64>,
    /// `SwapTotal`, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_total_bytes: Option<u64>,
    /// `SwapTotal` minus `SwapFree`, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used_bytes: Option<u64>,
    /// Stall time of some task on CPU, delta, µs: `/proc/pressure/cpu` (4.20+).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_cpu_some_us: Option<u64>,
    /// Stall time of some task on memory, delta, µs: `/proc/pressure/memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_memory_some_us: Option<u64>,
    /// Stall time of all tasks on memory, delta, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_memory_full_us: Option<u64>,
    /// Stall time of some task on I/O, delta, µs: `/proc/pressure/io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_io_some_us: Option<u64>,
    /// Stall time of all tasks on I/O, delta, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_io_full_us: Option<u64>,
    /// Seconds since boot: `/proc/uptime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// Runnable tasks: `procs_running` of `/proc/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_running: Option<u32>,
    /// Processes (thread groups) present. With `hidepid` and without privileges, those that may be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_total: Option<u32>,
    /// Context switches, delta: `ctxt` of `/proc/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<u64>,
    /// Forks (threads included), delta: `processes` of `/proc/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forks: Option<u64>,
    /// Received by the interfaces that leave the host (those with a device behind them; without any, all
    /// but `lo`) in the agent's network namespace, delta, bytes on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_receive_bytes: Option<u64>,
    /// Transmitted by the same interfaces, delta, bytes on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_transmit_bytes: Option<u64>,
    /// Received from other hosts by sockets, attributed to a process or not, delta, bytes of payload:
    /// `connections[]` of scope external. What the interfaces counted beyond it is headers,
    /// repetitions, forwarded traffic, the kernel's own, and what the tier has no counters for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_receive_bytes: Option<u64>,
    /// Transmitted to other hosts by sockets, the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_transmit_bytes: Option<u64>,
}

/// One mounted file system with storage of its own: `/proc/self/mountinfo` and statvfs(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemSample {
    /// Mount point, octal escapes undone.
    pub mount_point: String,
    /// Mount source, such as `/dev/vda1`.
    pub device: String,
    /// File system type, such as `xfs`.
    pub filesystem_type: String,
    /// Capacity, bytes: `f_blocks · f_frsize`. Null where statvfs failed or was late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Used, bytes: `(f_blocks − f_bfree) · f_frsize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Available without privileges, bytes: `f_bavail · f_frsize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Inodes: `f_files`. Null where the file system has none to count (btrfs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_total: Option<u64>,
    /// Inodes in use: `f_files − f_ffree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
}

/// One block device over one interval: `/proc/diskstats`, whole devices only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockDeviceSample {
    /// Kernel name, such as `nvme0n1`.
    pub device: String,
    /// Read, delta, bytes: sectors of 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Written, delta, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    /// Reads completed, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_operations: Option<u64>,
    /// Writes completed, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_operations: Option<u64>,
    /// Mean number of requests queued or in flight (`avgqu-sz` of iostat): weighted time delta over
    /// the interval, field 11 of `/proc/diskstats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<f64>,
    /// Share of the interval with I/O in flight, 0 to 1 (`%util` / 100): field 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_ratio: Option<f64>,
}

/// One network interface over one interval: `/proc/net/dev` and `/sys/class/net/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterfaceSample {
    /// Name, such as `eth0`.
    pub interface: String,
    /// Link speed, bits per second: `/sys/class/net/<name>/speed`. Null when the driver knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_bits_per_second: Option<u64>,
    /// Received, delta, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_bytes: Option<u64>,
    /// Transmitted, delta, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_bytes: Option<u64>,
    /// Received, delta, packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_packets: Option<u64>,
    /// Transmitted, delta, packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_packets: Option<u64>,
    /// Receive errors, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_errors: Option<u64>,
    /// Transmit errors, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_errors: Option<u64>,
    /// Dropped on receive, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_drops: Option<u64>,
    /// Dropped on transmit, delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_drops: Option<u64>,
}
