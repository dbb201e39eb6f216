//! Bytes of a segment file: a header, then records, each with a header that has its own checksum.
//!
//! Everything is little-endian. A record's header can be trusted without its frame, and is found again
//! after a damaged region by its magic number and checksum, so damage costs the records it touched.

use shared_model::GapReason;

/// Bytes of a segment's header: magic, flags, checksum.
pub(super) const SEGMENT_HEADER_BYTES: usize = 16;
/// Bytes of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 48;

const SEGMENT_MAGIC: [u8; 8] = *b"PFSPOOL1";
const RECORD_MAGIC: [u8; 4] = *b"PFR1";
const FLAG_THINNED: u32 = 1;

/// What stands before a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Null for a report. A gap has no frame: it is made when it is read.
    pub(super) gap: Option<GapReason>,
    /// Time of the report, ms since 1970. For people who look at a spool; nothing depends on it.
    pub(super) sampled_at_ms: i64,
    pub(super) frame_bytes: u32,
    pub(super) inflated_bytes: u32,
    pub(super) frame_crc: u32,
}

/// Something found in a segment, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A record whose checksums match; its frame begins at `offset`.
    Record { header: RecordHeader, offset: u64 },
    /// A record whose header is intact and whose frame is not.
    Damaged { header: RecordHeader },
    /// Bytes that are no record. How many records they were shows in the sequences around them.
    Garbage,
}

const REASONS: [GapReason; 5] = [
    GapReason::SpoolFull,
    GapReason::SpoolUnwritable,
    GapReason::SpoolCorrupt,
    GapReason::Rejected,
    GapReason::ServerLostData,
];

pub(super) fn encode_segment_header(thinned: bool) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&(if thinned { FLAG_THINNED } else { 0 }).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether the segment was thinned. A damaged header counts as not thinned.
pub(super) fn is_thinned(segment: &[u8]) -> bool {
    segment.get(..SEGMENT_HEADER_BYTES) == Some(&encode_segment_header(true)[..])
}

impl RecordHeader {
    pub(super) fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4] = match self.gap {
            None => 0,
            Some(GapReason::SpoolFull) => 1,
            Some(GapReason::SpoolUnwritable) => 2,
            Some(GapReason::SpoolCorrupt) => 3,
            Some(GapReason::Rejected) => 4,
            Some(GapReason::ServerLostData) => 5,
        };
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.last.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sampled_at_ms.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.frame_bytes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.inflated_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.frame_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if one stands there whole.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[..4] != RECORD_MAGIC || u32_at(bytes, 44)? != crc32c::crc32c(&bytes[..44]) {
            return None;
        }
        let gap = match bytes[4] {
            0 => None,
            kind => Some(*REASONS.get(usize::from(kind) - 1)?),
        };
        let header = Self {
            first: u64_at(bytes, 8)?,
            last: u64_at(bytes, 16)?,
            gap,
            sampled_at_ms: i64::from_le_bytes(*bytes.get(24..)?.first_chunk()?),
            frame_bytes: u32_at(bytes, 32)?,
            inflated_bytes: u32_at(bytes, 36)?,
            frame_crc: u32_at(bytes, 40)?,
        };
        (1..=header.last).contains(&header.first).then_some(header)
    }
}

/// Everything in the bytes of a segment.
pub(super) fn scan(segment: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES.min(segment.len());
    while at < segment.len() {
        let Some(header) = RecordHeader::decode(&segment[at..]) else {
            found.push(Found::Garbage);
            at = next_header(segment, at + 1);
            continue;
        };
        let start = at + RECORD_HEADER_BYTES;
        let end = start.saturating_add(usize::try_from(header.frame_bytes).unwrap_or(usize::MAX));
        let intact =
            segment.get(start..end).is_some_and(|frame| crc32c::crc32c(frame) == header.frame_crc);
        if intact {
            found.push(Found::Record { header, offset: start as u64 });
            at = end;
        } else {
            // The frame's length is as good as its header, but what was cut may have been written
            // over by nothing at all: look for the next header from here.
            found.push(Found::Damaged { header });
            at = next_header(segment, start);
        }
    }
    found
}

fn next_header(segment: &[u8], from: usize) -> usize {
    let mut at = from;
    while at + RECORD_HEADER_BYTES <= segment.len() {
        if RecordHeader::decode(&segment[at..]).is_some() {
            return at;
        }
        at += 1;
    }
    segment.len()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
