//! The server's answer to a batch.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{FieldError, ProblemCode, Timestamp};

/// Header of an agent's requests: the place it runs in, a UUID made of machine, boot and state directory. It tells
/// a machine from a copy of its disk, which holds the same certificate.
pub const PLACE_HEADER: &str = "procfleet-place";

/// Header of an agent's reports: its endpoints that did not answer when last asked, as it knows them, separated by commas, at
/// most [`MAX_ENDPOINTS_DOWN`]. Absent: none, of those it asked.
pub const ENDPOINTS_DOWN_HEADER: &str = "procfleet-endpoints-down";
/// Most endpoints in [`ENDPOINTS_DOWN_HEADER`].
pub const MAX_ENDPOINTS_DOWN: usize = 8;

/// Header of the answer to reports: how many hosts the fleet has. Agents that no server answers decide by it how many of them
/// say so.
pub const FLEET_SIZE_HEADER: &str = "procfleet-fleet-size";

/// 200 to `POST /v1/reports` and to `GET /v1/cursor?stream_id=…`: where the stream stands, committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsAnswer {
    /// The stream asked about.
    pub stream_id: Uuid,
    /// Highest sequence durably decided (stored, or rejected and recorded). 0: stream unknown. Lower
    /// than an earlier answer: the database was restored; go on after this one.
    pub acknowledged_sequence: u64,
    /// Records of this request stored now.
    pub accepted: u32,
    /// Records of this request that were stored before.
    pub duplicates: u32,
    /// Records of this request that will never be stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedReport>,
    /// Milliseconds the agent waits before its next request, also if it has more to send: a busy server
    /// shapes the fleet. Absent: go on at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_send_after_ms: Option<u32>,
    /// The server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub server_time: Timestamp,
}

/// A poison report: recorded, passed over, never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedReport {
    /// Which.
    pub sequence: u64,
    /// Why, for programs.
    pub code: ProblemCode,
    /// Why, for people.
    pub detail: String,
    /// Which fields, at most [`crate::validate::MAX_FIELD_ERRORS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}
