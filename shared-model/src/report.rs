//! The report, the gap that stands for lost ones, and their encoding.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    AgentSample, BlockDeviceSample, ConnectionSample, ExitFold, FilesystemSample, HostFacts,
    HostSample, InstanceDefinition, NetworkInterfaceSample, ProcessDefinition, ProcessExit,
    ProcessSample, Timestamp,
};

/// What one tick of one agent saw. All deltas are over `interval_ms`, which ended at `sampled_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`crate::PROTOCOL_VERSION`] of the sender.
    pub version: u16,
    /// The host's identity as in its certificate; the server refuses another's.
    pub host_id: Uuid,
    /// Incarnation of the agent's spool.
    pub stream_id: Uuid,
    /// Position in the stream, from 1, without holes.
    pub sequence: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Uuid,
    /// The end of the interval: by the host's wall clock, or by the servers where they contradict it.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: Timestamp,
    /// What of `sampled_at` is not the host's wall clock's, ms; absent: nothing, the clock was believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// Length of the interval on the monotonic clock, ms.
    pub interval_ms: u32,
    /// The host's attributes, when the server may not know them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<HostFacts>,
    /// The host as a whole.
    pub host: HostSample,
    /// Mounted file systems.
    #[serde(default)]
    pub filesystems: Vec<FilesystemSample>,
    /// Block devices.
    #[serde(default)]
    pub block_devices: Vec<BlockDeviceSample>,
    /// Network interfaces.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterfaceSample>,
    /// Kept instances and the residual; at most one row per instance.
    #[serde(default)]
    pub processes: Vec<ProcessSample>,
    /// Connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionSample>,
    /// Instances that ended in the interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<ProcessExit>,
    /// Instances that began and ended in the interval beside those in `exits`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exit_folds: Vec<ExitFold>,
    /// Processes the server may not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub process_definitions: Vec<ProcessDefinition>,
    /// Instances the server may not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instance_definitions: Vec<InstanceDefinition>,
    /// The agent itself.
    pub agent: AgentSample,
}

/// Why reports were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The spool was full.
    SpoolFull,
    /// The spool's disk was full or failed, and the memory ring overflowed.
    SpoolUnwritable,
    /// A record failed its checksum.
    SpoolCorrupt,
    /// The server refused the record for good; it lies in the agent's quarantine.
    Rejected,
    /// The server lost what it had acknowledged (failed over, restored), longer ago than the agent keeps.
    ServerLostData,
}

/// Stands for reports `first_sequence ..= sequence`, which will never come, so that the loss is
/// known and the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// See [`Report::host_id`].
    pub host_id: Uuid,
    /// See [`Report::stream_id`].
    pub stream_id: Uuid,
    /// First sequence lost.
    pub first_sequence: u64,
    /// Last sequence lost: the position this record takes the cursor to.
    pub sequence: u64,
    /// Why.
    pub reason: GapReason,
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A report.
    Report(Box<Report>),
    /// A gap.
    Gap(Gap),
}

/// Where a record belongs, readable even when the rest of it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// See [`Report::host_id`].
    pub host_id: Uuid,
    /// See [`Report::stream_id`].
    pub stream_id: Uuid,
    /// First sequence the record covers.
    pub first_sequence: u64,
    /// Last sequence the record covers.
    pub sequence: u64,
}

/// A line that is not a record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or without a readable head: its place in the stream is unknown.
    #[error("not a record: {0}")]
    Malformed(serde_json::Error),
    /// The head is readable, the rest is not what the protocol says: poison.
    #[error("record {} does not match the protocol: {field}: {error}", head.sequence)]
    Poison {
        /// Its place in the stream.
        head: RecordHead,
        /// Path of the field that does not match, such as `processes[3].cpu_user_us`.
        field: String,
        /// What does not match.
        error: serde_json::Error,
    },
}

impl Record {
    /// One line of JSON, newline included.
    pub fn encode(&self) -> Vec<u8> {
        #[expect(
            clippy::expect_used,
            reason = "no map with non-string keys and no failing Serialize impl in the tree; writing to a Vec cannot fail"
        )]
        let mut line = serde_json::to_vec(self).expect("records always serialise");
        line.push(b'\n');
        line
    }

    /// Reads one line. Says where a record belongs even if it cannot be read whole.
    pub fn decode(line: &[u8]) -> Result<Self, DecodeError> {
        serde_json::from_slice(line).map_err(|error| match read_head(line) {
            Ok(head) => DecodeError::Poison { head, field: field_at_fault(line), error },
            Err(_) => DecodeError::Malformed(error),
        })
    }

    /// Where it belongs.
    pub fn head(&self) -> RecordHead {
        match self {
            Self::Report(report) => RecordHead {
                host_id: report.host_id,
                stream_id: report.stream_id,
                first_sequence: report.sequence,
                sequence: report.sequence,
            },
            Self::Gap(gap) => RecordHead {
                host_id: gap.host_id,
                stream_id: gap.stream_id,
                first_sequence: gap.first_sequence,
                sequence: gap.sequence,
            },
        }
    }
}

/// Path of the first field that does not match. Decodes once more, tracking the path: only poison
/// pays for it.
fn field_at_fault(line: &[u8]) -> String {
    let json = &mut serde_json::Deserializer::from_slice(line);
    match serde_path_to_error::deserialize::<_, Record>(json) {
        Ok(_) => "record".into(),
        Err(error) => {
            let path = error.path().to_string();
            path.strip_prefix("report.").or(path.strip_prefix("gap.")).unwrap_or(&path).to_owned()
        }
    }
}

/// The fields of [`RecordHead`], everything else ignored.
fn read_head(line: &[u8]) -> Result<RecordHead, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head {
        host_id: Uuid,
        stream_id: Uuid,
        first_sequence: Option<u64>,
        sequence: u64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Line {
        Report(Head),
        Gap(Head),
    }
    let (Line::Report(head) | Line::Gap(head)) = serde_json::from_slice(line)?;
    Ok(RecordHead {
        host_id: head.host_id,
        stream_id: head.stream_id,
        first_sequence: head.first_sequence.unwrap_or(head.sequence),
        sequence: head.sequence,
    })
}
