//! The words on the wire between `procfleet-agent` and `procfleet-server`.
//!
//! This crate holds no I/O, no clock and no async: it is the contract both programs are built
//! against, and the only place that knows the encoding.
//!
//! # The protocol in one page
//!
//! An agent turns each tick into one [`Report`] and gives it the next `sequence` of its *stream*
//! (one incarnation of its spool, a random id). A report, or a [`Gap`] that stands for reports that
//! were given up, is one [`Record`]: one line of JSON, compressed as one zstd frame of its own.
//! Those bytes are what the spool stores and what travels.
//!
//! `POST /v1/reports` carries a *batch*: the frames of consecutive records of one stream, simply
//! concatenated (zstd frames concatenate, and so do lines), with
//! `content-type: application/x-ndjson` and `content-encoding: zstd`. The server answers
//! [`ReportsAnswer`] after its transaction committed, or a [`Problem`] (RFC 9457) whose `code` says
//! what the agent must do. The answer's `acknowledged_sequence` is the server's cursor: the agent
//! may forget everything up to it, and must go on after it.
//!
//! Unknown is absent (`null`), never `0`. Rates are never sent: deltas over `interval_ms` are.
//! Unknown JSON fields are ignored, so that a newer agent can talk to an older server.

pub mod agent_status;
pub mod certificate;
pub mod configuration;
pub mod connection;
pub mod delivery;
pub mod enrollment;
pub mod goodbye;
pub mod harmless;
pub mod host;
pub mod limits;
pub mod problem;
pub mod process;
pub mod release;
pub mod report;
pub mod update;
pub mod validate;

pub use agent_status::{AgentSample, CollectorOutcome, CollectorRun, FieldSource, Tier};
pub use certificate::{
    CertificateInUse, RecoverRequest, RecoveryNonce, RenewRequest, TrustAnswer, TrustRequest,
};
pub use configuration::{Configuration, ConfigurationAnswer, ConfigurationStatus};
pub use connection::{ConnectionSample, ConnectionScope, Direction, TransportProtocol};
pub use delivery::{
    ENDPOINTS_DOWN_HEADER, FLEET_SIZE_HEADER, MAX_ENDPOINTS_DOWN, PLACE_HEADER, RejectedReport,
    ReportsAnswer,
};
pub use enrollment::{EnrollRequest, EnrollResponse, JoinToken, JoinTokenError};
pub use goodbye::{Goodbye, GoodbyeNote};
pub use host::{
    BlockDeviceSample, FilesystemSample, HostFacts, HostSample, NetworkInterfaceSample,
};
pub use problem::{FieldError, Problem, ProblemCode};
pub use process::{
    ExitFold, InstanceDefinition, InstanceId, ProcessDefinition, ProcessExit, ProcessId,
    ProcessSample,
};
pub use report::{DecodeError, Gap, GapReason, Record, RecordHead, Report};
pub use update::{RELEASE_HEADER, UpdateState, UpdateStatus};
pub use validate::Invalid;

/// Version of the protocol described above, sent in every report and at enrolment. It changes only
/// when an older server could misread a newer agent; new optional fields do not change it.
pub const PROTOCOL_VERSION: u16 = 1;

/// A point in time, RFC 3339 with up to microseconds on the wire, always UTC.
pub type Timestamp = time::OffsetDateTime;
