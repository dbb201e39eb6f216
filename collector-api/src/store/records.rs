//! A decoded request on its way into the transaction.

use bytes::Bytes;
use shared_model::{
    FieldError, GapReason, HostFacts, InstanceDefinition, ProblemCode, ProcessDefinition, Report,
    Timestamp, UpdateStatus,
};
use uuid::Uuid;

use super::series::{self, ReportRows};

/// Consecutive records of one stream.
#[derive(Debug)]
pub struct RecordBatch {
    /// From the client certificate; every record was checked against it.
    pub host_id: Uuid,
    /// Incarnation of the agent's spool.
    pub stream_id: Uuid,
    /// Where the agent runs that sent them; none: it did not say.
    pub place: Option<Uuid>,
    /// At least one; each begins after the end of the one before.
    pub records: Vec<PreparedRecord>,
}

/// One record, ready to be stored.
#[derive(Debug)]
pub struct PreparedRecord {
    /// First position covered.
    pub first_sequence: u64,
    /// Last position covered; at most `i64::MAX`.
    pub sequence: u64,
    /// SHA-256 of `line`.
    pub sha256: [u8; 32],
    /// Its JSON, without the newline.
    pub line: Bytes,
    /// What to do with it.
    pub content: Content,
}

impl PreparedRecord {
    /// What the cursor remembers of the record it stands at.
    pub fn digest(&self) -> i64 {
        self.sha256.first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
    }
}

/// What a record holds.
#[derive(Debug)]
pub enum Content {
    /// A valid report.
    Report(Box<PreparedReport>),
    /// Reports that will never come.
    Gap(GapReason),
    /// Poison: recorded and passed over.
    Reject(Rejection),
}

/// Why a record is passed over.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// For programs.
    pub code: ProblemCode,
    /// For people.
    pub detail: String,
    /// Fields at fault.
    pub errors: Vec<FieldError>,
}

/// A valid report, its series rows already encoded.
#[derive(Debug)]
pub struct PreparedReport {
    /// End of the interval, as the agent says.
    pub sampled_at: Timestamp,
    /// What of it is not the host's clock's.
    pub clock_offset_ms: Option<i64>,
    /// Length of the interval.
    pub interval_ms: u32,
    /// The host's boot.
    pub boot_id: Uuid,
    /// The host's attributes, where the report carried them.
    pub facts: Option<HostFacts>,
    /// What runs.
    pub process_definitions: Vec<ProcessDefinition>,
    /// Runs of it.
    pub instance_definitions: Vec<InstanceDefinition>,
    /// How far the agent is with its release.
    pub update: Option<UpdateStatus>,
    /// Rows of every series.
    pub rows: ReportRows,
}

impl PreparedReport {
    /// Takes what is stored out of a validated report.
    pub fn new(report: Report) -> Self {
        Self {
            sampled_at: report.sampled_at,
            clock_offset_ms: report.clock_offset_ms,
            interval_ms: report.interval_ms,
            boot_id: report.boot_id,
            rows: series::encode(&report),
            facts: report.facts,
            update: report.agent.update,
            process_definitions: report.process_definitions,
            instance_definitions: report.instance_definitions,
        }
    }

    /// Series rows of all tables.
    pub fn row_count(&self) -> usize {
        self.rows.iter().map(|rows| rows.count as usize).sum()
    }
}
