//! The series tables: for each, its columns and, right below, what writes them in that order.
//!
//! A new series is one more entry in [`SERIES`], one encoder, and its line in [`encode`].

use shared_model::{
    CollectorOutcome, ConnectionScope, Direction, ExitFold, ProcessExit, ProcessSample, Report,
};
use uuid::Uuid;

use super::copy::Rows;

/// One series table.
#[derive(Debug)]
pub struct Series {
    /// Table name.
    pub name: &'static str,
    /// `copy` statement, with the columns in the encoder's order. Empty for a roll-up: computed.
    pub copy: &'static str,
    /// Column that tells the host: first in the index, and what the columnstore is segmented by.
    pub host_key: &'static str,
    /// Inserts a row at `$1` that no reader asks for (of no host): makes TimescaleDB create the chunk.
    pub sentinel: &'static str,
    /// Removes it.
    pub remove_sentinel: &'static str,
}

macro_rules! series {
    ($name:literal, [$($column:literal),+ $(,)?], sentinel $columns:literal = $values:literal) => {
        series!($name, "host_id" = "'00000000-0000-0000-0000-000000000000'", [$($column),+],
            sentinel $columns = $values)
    };
    ($name:literal, $host:literal = $nobody:literal, [$($column:literal),+ $(,)?],
        sentinel $columns:literal = $values:literal) => {
        Series {
            name: $name,
            host_key: $host,
            copy: concat!(
                "/* store::reports::insert_reports */ copy ", $name, " (",
                series!(@list $($column),+), ") from stdin (format binary)"
            ),
            sentinel: concat!(
                "/* store::dialect::ensure_chunk */ insert into ", $name, " (sampled_at, ", $host, ", ",
                $columns, ") values ($1, ", $nobody, ", ", $values, ")"
            ),
            remove_sentinel: concat!(
                "/* store::dialect::ensure_chunk */ delete from ", $name,
                " where sampled_at = $1 and ", $host, " = ", $nobody
            ),
        }
    };
    (@list $first:literal $(, $rest:literal)*) => { concat!($first $(, ", ", $rest)*) };
}

/// Every series, in the order all transactions write them (a fixed order cannot deadlock).
pub const SERIES: [Series; 7] = [
    PROCESS_SAMPLES,
    HOST_SAMPLES,
    FILESYSTEM_SAMPLES,
    BLOCK_DEVICE_SAMPLES,
    NETWORK_INTERFACE_SAMPLES,
    CONNECTION_SAMPLES,
    PROCESS_EXITS,
];

/// Everything that is cut into pieces by time.
pub fn all() -> impl Iterator<Item = &'static Series> {
    SERIES.iter().chain(&super::rollups::ROLLUPS)
}

/// Rows of one report, one entry per [`SERIES`].
pub type ReportRows = [Rows; SERIES.len()];

/// Everything of `report` that goes into series.
pub fn encode(report: &Report) -> ReportRows {
    let host = report.host_id;
    let mut rows = ReportRows::default();
    let [processes, hosts, filesystems, block_devices, network_interfaces, connections, exits] =
        &mut rows;
    encode_processes(report, processes);
    encode_host(report, host, hosts);
    encode_filesystems(report, host, filesystems);
    encode_block_devices(report, host, block_devices);
    encode_network_interfaces(report, host, network_interfaces);
    encode_connections(report, host, connections);
    encode_exits(report, exits);
    rows
}

const PROCESS_SAMPLES: Series = series!(
    "process_samples",
    "host_number" = "0",
    [
        "host_number", "sampled_at", "instance_id", "interval_ms", "cpu_user_us", "cpu_system_us", "memory_usage_bytes",
        "memory_swap_bytes", "disk_read_bytes", "disk_write_bytes", "network_receive_bytes",
        "network_transmit_bytes", "run_queue_delay_us", "paging_faults_minor",
        "context_switches_voluntary", "context_switches_involuntary", "process_count",
        "thread_count", "file_descriptor_count", "paging_faults_major",
    ],
    sentinel "instance_id, interval_ms, process_count" = "0, 0, 0"
);

fn encode_processes(report: &Report, rows: &mut Rows) {
    rows.bytes.reserve(report.processes.len() * 162);
    for sample in &report.processes {
        rows.row(20)
            .host_number()
            .timestamp(report.sampled_at)
            .bigint(sample.instance_id.0)
            .count(report.interval_ms)
            .compact(sample.cpu_user_us)
            .compact(sample.cpu_system_us)
            .compact(sample.memory_usage_bytes)
            .compact(sample.memory_swap_bytes)
            .compact(sample.disk_read_bytes)
            .compact(sample.disk_write_bytes)
            .compact(sample.network_receive_bytes)
            .compact(sample.network_transmit_bytes)
            .compact(sample.run_queue_delay_us)
            .compact(sample.paging_faults_minor)
            .compact(sample.context_switches_voluntary)
            .compact(sample.context_switches_involuntary)
            .small(Some(u64::from(sample.process_count)))
            .small(sample.thread_count.map(u64::from))
            .small(sample.file_descriptor_count.map(u64::from))
            .small(sample.paging_faults_major);
    }
}

const HOST_SAMPLES: Series = series!(
    "host_samples",
    [
        "sampled_at", "cpu_user_us", "cpu_system_us", "cpu_iowait_us", "cpu_steal_us",
        "cpu_idle_us", "load_1m", "load_5m", "load_15m", "memory_total_bytes",
        "memory_used_bytes", "memory_available_bytes", "memory_free_bytes", "swap_total_bytes",
        "swap_used_bytes", "pressure_cpu_some_us", "pressure_memory_some_us",
        "pressure_memory_full_us", "pressure_io_some_us", "pressure_io_full_us", "uptime_s",
        "context_switches", "forks", "interface_receive_bytes", "interface_transmit_bytes",
        "socket_receive_bytes", "socket_transmit_bytes", "agent_cpu_us", "agent_memory_usage_bytes",
        "agent_spool_reports", "agent_spool_bytes", "host_id", "interval_ms", "cpu_count",
        "processes_running", "processes_total", "agent_losses", "agent_collectors",
    ],
    sentinel "interval_ms" = "0"
);

fn encode_host(report: &Report, host_id: Uuid, rows: &mut Rows) {
    let (host, agent) = (&report.host, &report.agent);
    let losses =
        (!agent.losses.is_empty()).then(|| serde_json::to_vec(&agent.losses).ok()).flatten();
    let troubled: Vec<_> = agent
        .collectors
        .iter()
        .filter(|run| !matches!(run.outcome, CollectorOutcome::Ok | CollectorOutcome::NoData))
        .collect();
    let collectors = (!troubled.is_empty()).then(|| serde_json::to_vec(&troubled).ok()).flatten();
    rows.row(38)
        .timestamp(report.sampled_at)
        .counter(host.cpu_user_us)
        .counter(host.cpu_system_us)
        .counter(host.cpu_iowait_us)
        .counter(host.cpu_steal_us)
        .counter(host.cpu_idle_us)
        .double(host.load_1m)
        .double(host.load_5m)
        .double(host.load_15m)
        .counter(host.memory_total_bytes)
        .counter(host.memory_used_bytes)
        .counter(host.memory_available_bytes)
        .counter(host.memory_free_bytes)
        .counter(host.swap_total_bytes)
        .counter(host.swap_used_bytes)
        .counter(host.pressure_cpu_some_us)
        .counter(host.pressure_memory_some_us)
        .counter(host.pressure_memory_full_us)
        .counter(host.pressure_io_some_us)
        .counter(host.pressure_io_full_us)
        .counter(host.uptime_s)
        .counter(host.context_switches)
        .counter(host.forks)
        .counter(host.interface_receive_bytes)
        .counter(host.interface_transmit_bytes)
        .counter(host.socket_receive_bytes)
        .counter(host.socket_transmit_bytes)
        .counter(agent.cpu_us)
        .counter(agent.memory_usage_bytes)
        .counter(Some(agent.spool_reports))
        .counter(Some(agent.spool_bytes))
        .uuid(host_id)
        .count(report.interval_ms)
        .count(host.cpu_count)
        .count(host.processes_running)
        .count(host.processes_total)
        .jsonb(losses.as_deref())
        .jsonb(collectors.as_deref());
}

const FILESYSTEM_SAMPLES: Series = series!(
    "filesystem_samples",
    [
        "sampled_at", "total_bytes", "used_bytes", "available_bytes", "inodes_total",
        "inodes_used", "host_id", "mount_point", "device", "filesystem_type",
    ],
    sentinel "mount_point, device, filesystem_type" = "'', '', ''"
);

fn encode_filesystems(report: &Report, host: Uuid, rows: &mut Rows) {
    for sample in &report.filesystems {
        rows.row(10)
            .timestamp(report.sampled_at)
            .counter(sample.total_bytes)
            .counter(sample.used_bytes)
            .counter(sample.available_bytes)
            .counter(sample.inodes_total)
            .counter(sample.inodes_used)
            .uuid(host)
            .text(&sample.mount_point)
            .text(&sample.device)
            .text(&sample.filesystem_type);
    }
}

const BLOCK_DEVICE_SAMPLES: Series = series!(
    "block_device_samples",
    [
        "sampled_at", "read_bytes", "write_bytes", "read_operations", "write_operations",
        "queue_length", "utilization_ratio", "host_id", "interval_ms", "device",
    ],
    sentinel "interval_ms, device" = "0, ''"
);

fn encode_block_devices(report: &Report, host: Uuid, rows: &mut Rows) {
    for sample in &report.block_devices {
        rows.row(10)
            .timestamp(report.sampled_at)
            .counter(sample.read_bytes)
            .counter(sample.write_bytes)
            .counter(sample.read_operations)
            .counter(sample.write_operations)
            .double(sample.queue_length)
            .double(sample.utilization_ratio)
            .uuid(host)
            .count(report.interval_ms)
            .text(&sample.device);
    }
}

const NETWORK_INTERFACE_SAMPLES: Series = series!(
    "network_interface_samples",
    [
        "sampled_at", "speed_bits_per_second", "receive_bytes", "transmit_bytes",
        "receive_packets", "transmit_packets", "receive_errors", "transmit_errors",
        "receive_drops", "transmit_drops", "host_id", "interval_ms", "interface",
    ],
    sentinel "interval_ms, interface" = "0, ''"
);

fn encode_network_interfaces(report: &Report, host: Uuid, rows: &mut Rows) {
    for sample in &report.network_interfaces {
        rows.row(13)
            .timestamp(report.sampled_at)
            .counter(sample.speed_bits_per_second)
            .counter(sample.receive_bytes)
            .counter(sample.transmit_bytes)
            .counter(sample.receive_packets)
            .counter(sample.transmit_packets)
            .counter(sample.receive_errors)
            .counter(sample.transmit_errors)
            .counter(sample.receive_drops)
            .counter(sample.transmit_drops)
            .uuid(host)
            .count(report.interval_ms)
            .text(&sample.interface);
    }
}

const CONNECTION_SAMPLES: Series = series!(
    "connection_samples",
    [
        "sampled_at", "instance_id", "receive_bytes", "transmit_bytes", "retransmits", "host_id",
        "interval_ms", "connection_count", "local_port", "remote_port", "shared", "protocol",
        "direction", "scope", "local_address", "remote_address",
    ],
    sentinel "interval_ms, connection_count, local_port, remote_port, shared, protocol, local_address, remote_address"
        = "0, 0, 0, 0, false, '', '0.0.0.0', '0.0.0.0'"
);

fn encode_connections(report: &Report, host: Uuid, rows: &mut Rows) {
    rows.bytes.reserve(report.connections.len() * 180);
    for sample in &report.connections {
        rows.row(16)
            .timestamp(report.sampled_at)
            .bigint(sample.instance_id.map(|id| id.0))
            .counter(sample.receive_bytes)
            .counter(sample.transmit_bytes)
            .counter(sample.retransmits)
            .uuid(host)
            .count(report.interval_ms)
            .count(sample.connection_count)
            .count(u32::from(sample.local_port))
            .count(u32::from(sample.remote_port))
            .boolean(sample.shared)
            .text(sample.protocol.as_str())
            .optional_text(sample.direction.map(Direction::as_str))
            .optional_text(sample.scope.map(ConnectionScope::as_str))
            .inet(sample.local_address)
            .inet(sample.remote_address);
    }
}

const PROCESS_EXITS: Series = series!(
    "process_exits",
    [
        "sampled_at", "instance_id", "exit_time", "lifetime_us", "cpu_user_us", "cpu_system_us",
        "memory_usage_bytes", "disk_read_bytes", "disk_write_bytes", "network_receive_bytes",
        "network_transmit_bytes", "run_queue_delay_us", "paging_faults_minor",
        "paging_faults_major", "context_switches_voluntary", "context_switches_involuntary",
        "user_id", "host_id", "process_id", "interval_ms", "process_count", "failed_count",
        "exit_code", "exit_signal", "parent_pid", "cgroup",
    ],
    sentinel "instance_id, interval_ms, process_count" = "0, 0, 0"
);

fn encode_exits(report: &Report, rows: &mut Rows) {
    rows.bytes.reserve((report.exits.len() + report.exit_folds.len()) * 270);
    for exit in &report.exits {
        encode_exit(report, exit, rows);
    }
    for fold in &report.exit_folds {
        encode_fold(report, fold, rows);
    }
}

fn encode_exit(report: &Report, exit: &ProcessExit, rows: &mut Rows) {
    let failed = match (exit.exit_code, exit.exit_signal) {
        (None, None) => None,
        (code, signal) => Some(u32::from(signal.is_some() || code.is_some_and(|code| code != 0))),
    };
    let row = rows.row(26).timestamp(report.sampled_at).bigint(exit.instance_id.0);
    encode_totals(row.timestamp(exit.exit_time).counter(exit.lifetime_us), &exit.totals)
        .bigint(None)
        .uuid(report.host_id)
        .uuid(exit.process_id.0)
        .count(report.interval_ms)
        .count(exit.totals.process_count)
        .count(failed)
        .count(exit.exit_code)
        .count(exit.exit_signal)
        .count(None)
        .optional_text(None);
}

fn encode_fold(report: &Report, fold: &ExitFold, rows: &mut Rows) {
    let row = rows.row(26).timestamp(report.sampled_at).bigint(0);
    encode_totals(row.null().counter(fold.lifetime_us), &fold.totals)
        .bigint(fold.user_id.map(i64::from))
        .uuid(report.host_id)
        .optional_uuid(fold.process_id.map(|process| process.0))
        .count(report.interval_ms)
        .count(fold.totals.process_count)
        .count(fold.failed_count)
        .count(None)
        .count(None)
        .count(fold.parent_pid)
        .optional_text(fold.cgroup.as_deref());
}

fn encode_totals<'a>(row: &'a mut Rows, totals: &ProcessSample) -> &'a mut Rows {
    row.counter(totals.cpu_user_us)
        .counter(totals.cpu_system_us)
        .counter(totals.memory_usage_bytes)
        .counter(totals.disk_read_bytes)
        .counter(totals.disk_write_bytes)
        .counter(totals.network_receive_bytes)
        .counter(totals.network_transmit_bytes)
        .counter(totals.run_queue_delay_us)
        .counter(totals.paging_faults_minor)
        .counter(totals.paging_faults_major)
        .counter(totals.context_switches_voluntary)
        .counter(totals.context_switches_involuntary)
}
