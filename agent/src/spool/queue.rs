//! The queue itself: entries in the order of their sequences, most on disk, a few in memory.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

use shared_model::{Gap, GapReason, Record};
use uuid::Uuid;

use super::format::RecordHeader;
use super::segment::{self, Segment, Writer};
use super::{Appended, Limits, PeekLimits, Position, SpoolStats, SpooledRecord, Standing, stream};

/// Level of zstd: its default, about 2 ms for a report of a thousand processes.
const COMPRESSION_LEVEL: i32 = 3;

/// A record, or what stands for lost ones.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) sampled_at_ms: i64,
    /// The segment that holds it, by its first sequence. Null: not on disk.
    pub(super) segment: Option<u64>,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A frame in the entry's segment.
    Stored { offset: u64, bytes: u32, inflated: u32, crc: u32 },
    /// A frame that waits for the disk.
    Memory { frame: Vec<u8>, inflated: u32 },
    /// Made when it is read.
    Gap(GapReason),
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) dir: PathBuf,
    pub(super) host_id: Uuid,
    pub(super) limits: Limits,
    pub(super) stream_id: Uuid,
    /// `stream_id` names this stream: every sequence given out so far is on disk.
    pub(super) marked: bool,
    /// The stream may have given out sequences that the disk does not know: it must not go on.
    pub(super) doubtful: bool,
    /// Ascending by sequence, without holes between two entries.
    pub(super) entries: VecDeque<Entry>,
    /// Ascending.
    pub(super) segments: VecDeque<Segment>,
    pub(super) writer: Option<Writer>,
    /// Next sequence to give out.
    pub(super) next: u64,
    pub(super) acknowledged: u64,
    /// Highest sequence the server can know of: found at the start, or peeked since.
    pub(super) known: u64,
    /// Highest sequence peeked since the start.
    pub(super) offered: u64,
    pub(super) memory_bytes: usize,
    pub(super) epoch: u64,
    pub(super) lost: BTreeMap<&'static str, u64>,
}

impl Entry {
    pub(super) fn gap(first: u64, last: u64, reason: GapReason) -> Self {
        Self { first, last, sampled_at_ms: 0, segment: None, body: Body::Gap(reason) }
    }

    pub(super) fn header(&self) -> RecordHeader {
        let (gap, frame_bytes, inflated_bytes, frame_crc) = match &self.body {
            Body::Stored { bytes, inflated, crc, .. } => (None, *bytes, *inflated, *crc),
            Body::Memory { frame, inflated } => (
                None,
                u32::try_from(frame.len()).unwrap_or(u32::MAX),
                *inflated,
                crc32c::crc32c(frame),
            ),
            Body::Gap(reason) => (Some(*reason), 0, 0, 0),
        };
        RecordHeader {
            first: self.first,
            last: self.last,
            gap,
            sampled_at_ms: self.sampled_at_ms,
            frame_bytes,
            inflated_bytes,
            frame_crc,
        }
    }
}

/// One zstd frame of one line.
pub(super) fn compress(line: &[u8]) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "the bulk API sizes its buffer for the worst case; it fails only without memory"
    )]
    zstd::bulk::compress(line, COMPRESSION_LEVEL).expect("zstd compresses any input")
}

impl Queue {
    pub(super) fn stream_dir(&self) -> PathBuf {
        stream::directory(&self.dir, self.stream_id)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Index of the first entry that is not wholly acknowledged.
    pub(super) fn head(&self) -> usize {
        self.entries.partition_point(|entry| entry.last <= self.acknowledged)
    }

    pub(super) fn append(&mut self, build: impl FnOnce(Position) -> Record) -> Appended {
        let sequence = self.next;
        let record = build(Position { stream_id: self.stream_id, sequence });
        let sampled_at_ms = match &record {
            Record::Report(report) => {
                i64::try_from(report.sampled_at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
            }
            Record::Gap(_) => 0,
        };
        let line = record.encode();
        let frame = compress(&line);
        let inflated = u32::try_from(line.len()).unwrap_or(u32::MAX);
        self.next += 1;
        let room = self.make_room(self.unsaved_bytes() + segment::record_bytes(&frame));
        if room {
            self.memory_bytes += frame.len();
            let body = Body::Memory { frame, inflated };
            let entry =
                Entry { first: sequence, last: sequence, sampled_at_ms, segment: None, body };
            self.entries.push_back(entry);
        } else {
            self.push_loss(sequence, GapReason::SpoolFull);
        }
        match (self.flush(), room) {
            (true, true) => Appended::Durable,
            (_, false) => Appended::Lost,
            (false, true) => {
                self.shrink_memory();
                match self.entries.back() {
                    Some(Entry { body: Body::Gap(_), .. }) => Appended::Lost,
                    _ => Appended::Volatile,
                }
            }
        }
    }

    /// Adds one lost report at the end, to the gap there if it is not on disk yet.
    fn push_loss(&mut self, sequence: u64, reason: GapReason) {
        self.count_loss(reason, 1);
        match self.entries.back_mut() {
            Some(Entry { last, segment: None, body: Body::Gap(other), .. })
                if *other == reason && *last > self.offered.max(self.acknowledged) =>
            {
                *last = sequence;
            }
            _ => self.entries.push_back(Entry::gap(sequence, sequence, reason)),
        }
    }

    /// Index of the first of the entries at the end that are not on disk.
    fn unsaved(&self) -> usize {
        self.entries.iter().rposition(|entry| entry.segment.is_some()).map_or(0, |index| index + 1)
    }

    fn unsaved_bytes(&self) -> u64 {
        self.entries
            .range(self.unsaved()..)
            .map(|entry| match &entry.body {
                Body::Memory { frame, .. } => segment::record_bytes(frame),
                Body::Stored { .. } | Body::Gap(_) => segment::record_bytes(&[]),
            })
            .sum()
    }

    /// Brings everything at the end of the queue to disk. False: it stays in memory.
    pub(super) fn flush(&mut self) -> bool {
        let from = self.unsaved();
        if from < self.entries.len()
            && let Err(error) = self.write_from(from)
        {
            if self.marked {
                tracing::warn!(%error, "the spool cannot be written; reports stay in memory");
            }
            self.writer = None;
            // From here on sequences may be sent that the disk does not know. A crash must not give
            // them out again: without its mark, the stream ends at the next start. Unlinking works on
            // a full disk.
            self.marked = false;
            segment::remove(&stream::mark(&self.dir));
            return false;
        }
        if !self.marked && !self.doubtful {
            match stream::write_mark(&self.dir, self.stream_id) {
                Ok(()) => self.marked = true,
                Err(error) => tracing::warn!(%error, "cannot write the stream's mark"),
            }
        }
        true
    }

    fn write_from(&mut self, from: usize) -> std::io::Result<()> {
        let first = self.entries[from].first;
        let last = self.next - 1;
        if self.writer.as_ref().is_some_and(|writer| writer.bytes >= self.limits.segment_bytes) {
            self.writer = None;
        }
        let fresh = self.writer.is_none();
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => Writer::create(&self.stream_dir(), first)?,
        };
        let mut buffer = Vec::new();
        let mut offsets = Vec::with_capacity(self.entries.len() - from);
        for entry in self.entries.range(from..) {
            let frame = match &entry.body {
                Body::Memory { frame, .. } => frame.as_slice(),
                Body::Stored { .. } | Body::Gap(_) => &[],
            };
            segment::push_record(&mut buffer, &entry.header(), frame);
            offsets.push(writer.bytes + (buffer.len() - frame.len()) as u64);
        }
        writer.append(&buffer)?;
        if fresh {
            self.segments.push_back(Segment {
                first,
                last,
                bytes: 0,
                thinned: false,
                gap_only: false,
                acknowledged_at: None,
            });
        }
        #[expect(clippy::expect_used, reason = "pushed above, or the writer's own")]
        let segment = self.segments.back_mut().expect("the writer has its segment");
        segment.bytes = writer.bytes;
        segment.last = last;
        segment.acknowledged_at = None;
        let id = segment.first;
        self.writer = Some(writer);
        for (entry, offset) in self.entries.range_mut(from..).zip(offsets) {
            entry.segment = Some(id);
            let header = entry.header();
            if let Body::Memory { frame, .. } = &entry.body {
                self.memory_bytes -= frame.len();
                entry.body = Body::Stored {
                    offset,
                    bytes: header.frame_bytes,
                    inflated: header.inflated_bytes,
                    crc: header.frame_crc,
                };
            }
        }
        Ok(())
    }

    /// Counts a loss; the server may have missed dictionary entries with it.
    pub(super) fn count_loss(&mut self, reason: GapReason, reports: u64) {
        let name = match reason {
            GapReason::SpoolFull => "spool_full",
            GapReason::SpoolUnwritable => "spool_unwritable",
            GapReason::SpoolCorrupt => "spool_corrupt",
            GapReason::Rejected => "rejected",
            GapReason::ServerLostData => "server_lost_data",
        };
        *self.lost.entry(name).or_default() += reports;
        self.epoch += 1;
    }

    pub(super) fn peek(&mut self, limits: PeekLimits) -> Vec<SpooledRecord> {
        // A quarter of the spool at most: what was offered is not shed.
        let most = usize::try_from(self.limits.max_bytes / 4).unwrap_or(usize::MAX);
        let (mut bytes, mut inflated) = (limits.bytes.min(most), limits.inflated_bytes);
        let mut records = Vec::new();
        let mut index = self.head();
        while index < self.entries.len() && records.len() < limits.records {
            let (frame, size) = match self.frame(index) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the spool now; nothing is given up");
                    break;
                }
            };
            if !records.is_empty() && (frame.len() > bytes || size > inflated) {
                break;
            }
            bytes = bytes.saturating_sub(frame.len());
            inflated = inflated.saturating_sub(size);
            let entry = &self.entries[index];
            self.offered = self.offered.max(entry.last);
            let first_sequence = entry.first.max(self.acknowledged + 1);
            records.push(SpooledRecord { first_sequence, sequence: entry.last, frame });
            index += 1;
        }
        self.known = self.known.max(self.offered);
        records
    }

    /// The frame of an entry and its inflated size. Null: it was damaged and has become a gap.
    /// Error: it cannot be read now, and nothing has changed.
    pub(super) fn frame(&mut self, index: usize) -> std::io::Result<Option<(Vec<u8>, usize)>> {
        let entry = &self.entries[index];
        match &entry.body {
            Body::Memory { frame, inflated } => Ok(Some((frame.clone(), *inflated as usize))),
            Body::Gap(reason) => {
                let first_sequence = entry.first.max(self.acknowledged + 1);
                let gap = Gap {
                    host_id: self.host_id,
                    stream_id: self.stream_id,
                    first_sequence,
                    sequence: entry.last,
                    reason: *reason,
                };
                let line = Record::Gap(gap).encode();
                Ok(Some((compress(&line), line.len())))
            }
            Body::Stored { offset, bytes, inflated, crc } => {
                #[expect(clippy::expect_used, reason = "`write_from` sets both")]
                let id = entry.segment.expect("what is stored has its segment");
                let path = segment::path(&self.stream_dir(), id);
                match segment::read_frame(&path, *offset, *bytes) {
                    Ok(frame) if crc32c::crc32c(&frame) == *crc => {
                        return Ok(Some((frame, *inflated as usize)));
                    }
                    Ok(_) => {
                        tracing::warn!(path = %path.display(), "a spooled report is damaged");
                    }
                    Err(error) if !segment::is_gone(&error) => return Err(error),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "a spooled report is gone");
                    }
                }
                self.entries[index].body = Body::Gap(GapReason::SpoolCorrupt);
                self.count_loss(GapReason::SpoolCorrupt, 1);
                Ok(None)
            }
        }
    }

    /// Makes a gap of the record that no server will ever take.
    pub(super) fn reject(&mut self, sequence: u64) {
        let index = self.entries.partition_point(|entry| entry.last < sequence);
        let Some(entry) = self.entries.get_mut(index) else { return };
        if matches!(entry.body, Body::Gap(_)) {
            return;
        }
        if let Body::Memory { frame, .. } = &entry.body {
            self.memory_bytes -= frame.len();
        }
        entry.body = Body::Gap(GapReason::Rejected);
        self.count_loss(GapReason::Rejected, 1);
    }

    pub(super) fn acknowledge(&mut self, sequence: u64, now: Instant) -> Standing {
        if sequence > self.known {
            if self.offered == 0 {
                self.acknowledged = self.known;
            }
            self.doubtful = true;
        } else if sequence < self.acknowledged {
            self.rewind(sequence);
        } else {
            self.acknowledged = sequence;
        }
        self.forget_acknowledged(now);
        if self.doubtful { Standing::NewStreamNeeded } else { Standing::Continues }
    }

    /// The server lost what it had acknowledged after `sequence`.
    fn rewind(&mut self, sequence: u64) {
        self.acknowledged = sequence;
        self.epoch += 1;
        let oldest = self.entries.front().map_or(self.next, |entry| entry.first);
        if oldest > sequence + 1 {
            let gap = Entry::gap(sequence + 1, oldest - 1, GapReason::ServerLostData);
            self.count_loss(GapReason::ServerLostData, gap.last - sequence);
            self.entries.push_front(gap);
        }
        for segment in &mut self.segments {
            if segment.last > sequence {
                segment.acknowledged_at = None;
            }
        }
    }

    pub(super) fn stats(&self) -> SpoolStats {
        SpoolStats {
            reports: (self.entries.len() - self.head()) as u64,
            bytes: self.bytes(),
            memory_bytes: self.memory_bytes as u64,
            last_sequence: self.next - 1,
            acknowledged_sequence: self.acknowledged,
            lost: self.lost.clone(),
        }
    }
}
