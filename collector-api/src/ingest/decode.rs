//! From text to records that can be stored.
//!
//! What is wrong with the *request* (whose host, which stream, not JSON at all) refuses all of it and
//! stores nothing. What is wrong with one *record* makes that record poison: it is recorded and the
//! stream goes on.

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use shared_model::limits::MAX_RECORDS_PER_REQUEST;
use shared_model::{DecodeError, FieldError, PROTOCOL_VERSION, ProblemCode, Record, RecordHead};
use uuid::Uuid;

use crate::error::{ApiError, ApiResult};
use crate::store::records::{Content, PreparedRecord, PreparedReport, RecordBatch, Rejection};

/// Longest text of an error about a record, bytes.
const MAX_DETAIL_BYTES: usize = 512;

/// Decodes the lines of a request of `host_id`. Blocking: not for async threads.
pub(super) fn decode(text: &Bytes, host_id: Uuid) -> ApiResult<RecordBatch> {
    let mut stream_id = None;
    let mut expected = None;
    let mut records = Vec::new();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for (index, line) in lines.enumerate() {
        if index == MAX_RECORDS_PER_REQUEST {
            return Err(ApiError::new(
                ProblemCode::TooManyRecords,
                format!("A request holds at most {MAX_RECORDS_PER_REQUEST} records."),
            ));
        }
        let (head, content) = decode_line(line, index)?;
        if head.host_id != host_id {
            return Err(ApiError::new(
                ProblemCode::IdentityMismatch,
                format!(
                    "Record {} names host {}, the certificate is of host {host_id}.",
                    index + 1,
                    head.host_id
                ),
            ));
        }
        if head.first_sequence == 0
            || head.first_sequence > head.sequence
            || head.sequence > i64::MAX.cast_unsigned()
        {
            return Err(ApiError::new(
                ProblemCode::Malformed,
                format!(
                    "Record {} has no place in a stream: sequence {} to {}.",
                    index + 1,
                    head.first_sequence,
                    head.sequence
                ),
            ));
        }
        let consecutive = expected.is_none_or(|expected| expected == head.first_sequence);
        if !consecutive || *stream_id.get_or_insert(head.stream_id) != head.stream_id {
            return Err(ApiError::new(
                ProblemCode::NotConsecutive,
                format!(
                    "Record {} (sequence {}) does not follow the one before it.",
                    index + 1,
                    head.first_sequence
                ),
            ));
        }
        expected = Some(head.sequence + 1);
        records.push(PreparedRecord {
            first_sequence: head.first_sequence,
            sequence: head.sequence,
            sha256: Sha256::digest(line).into(),
            line: text.slice_ref(line),
            content,
        });
    }
    let stream_id = stream_id
        .ok_or_else(|| ApiError::new(ProblemCode::Malformed, "The body holds no record."))?;
    Ok(RecordBatch { host_id, stream_id, place: None, records })
}

fn decode_line(line: &[u8], index: usize) -> ApiResult<(RecordHead, Content)> {
    let record = match Record::decode(line) {
        Ok(record) => record,
        Err(DecodeError::Malformed(error)) => {
            return Err(ApiError::new(
                ProblemCode::Malformed,
                capped(format!("Line {} is not a record: {error}.", index + 1)),
            ));
        }
        Err(DecodeError::Poison { head, field, error }) => {
            check_version(read_version(line))?;
            let detail = capped(error.to_string());
            let text = format!("{field} does not match the protocol: {detail}");
            return Ok((
                head,
                Content::Reject(invalid(text, vec![FieldError { field: capped(field), detail }])),
            ));
        }
    };
    let head = record.head();
    if let Record::Report(report) = &record {
        check_version(u64::from(report.version))?;
    }
    let content = match (record.validate(), record) {
        (Err(error), _) => Content::Reject(invalid(error.to_string(), error.0)),
        (Ok(()), Record::Gap(gap)) => Content::Gap(gap.reason),
        (Ok(()), Record::Report(report)) => Content::Report(Box::new(PreparedReport::new(*report))),
    };
    Ok((head, content))
}

fn invalid(detail: String, errors: Vec<FieldError>) -> Rejection {
    Rejection { code: ProblemCode::InvalidReport, detail: capped(detail), errors }
}

/// A record of a newer protocol is not poison: the agent keeps it until the server is upgraded.
fn check_version(version: u64) -> ApiResult<()> {
    if version <= u64::from(PROTOCOL_VERSION) {
        return Ok(());
    }
    Err(ApiError::new(
        ProblemCode::UnsupportedVersion,
        format!(
            "This server speaks protocol {PROTOCOL_VERSION}, the record {version}: upgrade the server."
        ),
    ))
}

/// The version of a report that cannot be read otherwise; 0 where even that cannot.
fn read_version(line: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Line {
        report: Versioned,
    }
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    serde_json::from_slice::<Line>(line).map_or(0, |line| line.report.version)
}

fn capped(mut text: String) -> String {
    if text.len() > MAX_DETAIL_BYTES {
        text.truncate(text.floor_char_boundary(MAX_DETAIL_BYTES));
        text.push('…');
    }
    text
}
