//! What a rule can be about: one line per metric.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::rules::Rule;
use crate::store::rules::observations::Source;

/// A number of a host, or of something on it. Ratios are 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Metric {
    /// Share of the CPU that was not idle.
    #[serde(rename = "host.cpu_ratio")]
    HostCpu,
    /// Share of the CPU that waited for I/O.
    #[serde(rename = "host.iowait_ratio")]
    HostIowait,
    /// Load of 5 minutes per core.
    #[serde(rename = "host.load_per_core")]
    HostLoad,
    /// Share of the memory that is not available.
    #[serde(rename = "host.memory_used_ratio")]
    HostMemory,
    /// Share of the swap that is used.
    #[serde(rename = "host.swap_used_ratio")]
    HostSwap,
    /// Received and sent by all interfaces, bytes per second.
    #[serde(rename = "host.network_bytes_per_second")]
    HostNetwork,
    /// Processes.
    #[serde(rename = "host.processes")]
    HostProcesses,
    /// Reports that wait in the agent's spool.
    #[serde(rename = "agent.spool_reports")]
    AgentSpool,
    /// Collectors that did not deliver in a report.
    #[serde(rename = "agent.failing_collectors")]
    AgentCollectors,
    /// Reports that the agent lost since the one before.
    #[serde(rename = "agent.lost_reports")]
    AgentLost,
    /// Share of a file system that is used, as `df` counts.
    #[serde(rename = "filesystem.used_ratio")]
    FilesystemUsed,
    /// Hours until it is full if it grows as in the last six hours (a line through a sample every half hour); 8760, a
    /// year, at most, and while it does not grow or less than 60 % of it is used. Unknown until it has been seen for
    /// two hours.
    #[serde(rename = "filesystem.full_in_hours")]
    FilesystemFullIn,
    /// Share of its inodes that are used.
    #[serde(rename = "filesystem.inodes_used_ratio")]
    FilesystemInodes,
    /// Share of the time that a block device was busy.
    #[serde(rename = "block_device.utilization_ratio")]
    DeviceBusy,
    /// Its mean queue.
    #[serde(rename = "block_device.queue_length")]
    DeviceQueue,
    /// Read from it and written to it, bytes per second.
    #[serde(rename = "block_device.bytes_per_second")]
    DeviceBytes,
    /// Received by an interface, bytes per second.
    #[serde(rename = "network_interface.receive_bytes_per_second")]
    InterfaceReceive,
    /// Sent by it, bytes per second.
    #[serde(rename = "network_interface.transmit_bytes_per_second")]
    InterfaceTransmit,
    /// Its errors and drops per second.
    #[serde(rename = "network_interface.faults_per_second")]
    InterfaceFaults,
    /// CPU of all instances of a command line on a host, cores.
    #[serde(rename = "process.cpu_cores")]
    ProcessCpu,
    /// Their resident memory, bytes.
    #[serde(rename = "process.memory_bytes")]
    ProcessMemory,
    /// What they read and wrote, bytes per second.
    #[serde(rename = "process.disk_bytes_per_second")]
    ProcessDisk,
    /// What they received and sent, bytes per second.
    #[serde(rename = "process.network_bytes_per_second")]
    ProcessNetwork,
    /// Their threads.
    #[serde(rename = "process.threads")]
    ProcessThreads,
    /// Their file descriptors.
    #[serde(rename = "process.file_descriptors")]
    ProcessFiles,
    /// Processes on a host whose command line contains `object`; 0: none. Of those that the agents
    /// keep: name it in the profile's `always_keep`.
    #[serde(rename = "process.count")]
    ProcessCount,
    /// 1 while the fleet has known a command line for less than five minutes, else 0. One whose samples are all
    /// past their retention is forgotten, and new again.
    #[serde(rename = "process.is_new")]
    ProcessNew,
    /// Connections of its instances.
    #[serde(rename = "process.connections")]
    ProcessConnections,
    /// Segments that they sent again, per second.
    #[serde(rename = "process.retransmits_per_second")]
    ProcessRetransmits,
    /// Ends of a command line in a report, whatever their code.
    #[serde(rename = "process.exits")]
    ProcessExits,
    /// Ends of a command line within the hour up to a report in which one ended, else 0: what is started again
    /// and again. With `recover_for_s` the alert lasts while it goes on.
    #[serde(rename = "process.exits_in_an_hour")]
    ProcessRestarts,
    /// Ends of a command line with a code that is not 0, or by a signal, in a report.
    #[serde(rename = "process.failed_exits")]
    ProcessFailed,
    /// Ends of a command line by SIGKILL, the out-of-memory killer's signal, in a report.
    #[serde(rename = "process.killed_exits")]
    ProcessKilled,
}

/// Metric, name, source, place in the source's values; `None`: computed from a tick.
type Line = (Metric, &'static str, Source, Option<usize>);

const TABLE: [Line; 33] = [
    (Metric::HostCpu, "host.cpu_ratio", Source::Host, Some(0)),
    (Metric::HostIowait, "host.iowait_ratio", Source::Host, Some(1)),
    (Metric::HostLoad, "host.load_per_core", Source::Host, Some(2)),
    (Metric::HostMemory, "host.memory_used_ratio", Source::Host, Some(3)),
    (Metric::HostSwap, "host.swap_used_ratio", Source::Host, Some(4)),
    (Metric::HostNetwork, "host.network_bytes_per_second", Source::Host, Some(5)),
    (Metric::HostProcesses, "host.processes", Source::Host, Some(6)),
    (Metric::AgentSpool, "agent.spool_reports", Source::Host, Some(7)),
    (Metric::AgentCollectors, "agent.failing_collectors", Source::Host, Some(8)),
    (Metric::AgentLost, "agent.lost_reports", Source::Host, None),
    (Metric::FilesystemUsed, "filesystem.used_ratio", Source::Filesystem, Some(0)),
    (Metric::FilesystemFullIn, "filesystem.full_in_hours", Source::Trend, Some(0)),
    (Metric::FilesystemInodes, "filesystem.inodes_used_ratio", Source::Filesystem, Some(1)),
    (Metric::DeviceBusy, "block_device.utilization_ratio", Source::BlockDevice, Some(0)),
    (Metric::DeviceQueue, "block_device.queue_length", Source::BlockDevice, Some(1)),
    (Metric::DeviceBytes, "block_device.bytes_per_second", Source::BlockDevice, Some(2)),
    (
        Metric::InterfaceReceive,
        "network_interface.receive_bytes_per_second",
        Source::NetworkInterface,
        Some(0),
    ),
    (
        Metric::InterfaceTransmit,
        "network_interface.transmit_bytes_per_second",
        Source::NetworkInterface,
        Some(1),
    ),
    (
        Metric::InterfaceFaults,
        "network_interface.faults_per_second",
        Source::NetworkInterface,
        Some(2),
    ),
    (Metric::ProcessCpu, "process.cpu_cores", Source::Process, Some(0)),
    (Metric::ProcessMemory, "process.memory_bytes", Source::Process, Some(1)),
    (Metric::ProcessDisk, "process.disk_bytes_per_second", Source::Process, Some(2)),
    (Metric::ProcessNetwork, "process.network_bytes_per_second", Source::Process, Some(3)),
    (Metric::ProcessCount, "process.count", Source::Process, Some(4)),
    (Metric::ProcessThreads, "process.threads", Source::Process, Some(5)),
    (Metric::ProcessFiles, "process.file_descriptors", Source::Process, Some(6)),
    (Metric::ProcessNew, "process.is_new", Source::Process, Some(7)),
    (Metric::ProcessConnections, "process.connections", Source::Connection, Some(0)),
    (Metric::ProcessRetransmits, "process.retransmits_per_second", Source::Connection, Some(1)),
    (Metric::ProcessExits, "process.exits", Source::Exit, Some(2)),
    (Metric::ProcessRestarts, "process.exits_in_an_hour", Source::Restart, Some(0)),
    (Metric::ProcessFailed, "process.failed_exits", Source::Exit, Some(0)),
    (Metric::ProcessKilled, "process.killed_exits", Source::Exit, Some(1)),
];

impl Metric {
    /// As in the table of rules; none: a newer server's.
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|line| line.1 == name).map(|line| line.0)
    }

    /// As in the table of rules.
    pub fn name(self) -> &'static str {
        self.line().1
    }

    /// Where it is found.
    pub fn source(self) -> Source {
        self.line().2
    }

    /// At which place; none: it is [`Metric::AgentLost`].
    pub fn place(self) -> Option<usize> {
        self.line().3
    }

    /// Whether each object of a host is judged for itself.
    pub fn is_per_object(self) -> bool {
        self.source() != Source::Host && self != Self::ProcessCount
    }

    fn line(self) -> &'static Line {
        TABLE.iter().find(|line| line.0 == self).unwrap_or(&TABLE[0])
    }
}

/// The tables that rules need beside the hosts' own numbers.
pub fn sources(rules: &[Rule]) -> Vec<Source> {
    let mut sources: Vec<Source> =
        rules.iter().filter_map(|rule| Metric::parse(&rule.metric)).map(Metric::source).collect();
    sources.sort_unstable();
    sources.dedup();
    sources.retain(|source| *source != Source::Host);
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api_and_every_metric_has_one_line() {
        for (metric, name, ..) in TABLE {
            assert_eq!(serde_json::to_value(metric).unwrap(), name);
            assert_eq!(Metric::parse(name), Some(metric));
            assert_eq!(metric.name(), name);
        }
        // A variant without a line would be read as the first one.
        let schema = serde_json::to_value(<Metric as utoipa::PartialSchema>::schema()).unwrap();
        let named = schema["enum"].as_array().or(schema["oneOf"].as_array()).unwrap();
        assert_eq!(named.len(), TABLE.len());
    }
}
