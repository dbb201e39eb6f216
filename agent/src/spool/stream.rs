//! The life of a stream: its directory, its mark, its recovery, and its end.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared_model::{Gap, GapReason, Record};
use uuid::Uuid;

use super::format::{self, Found};
use super::queue::{self, Body, Entry, Queue};
use super::segment::{self, Segment, Writer};
use super::{Limits, NewStreamError};
use crate::metrics::REPORTS_REPEATED;

/// Where a stream's segments are.
pub(super) fn directory(spool: &Path, stream_id: Uuid) -> PathBuf {
    spool.join(stream_id.to_string())
}

/// The file that names the stream in use.
pub(super) fn mark(spool: &Path) -> PathBuf {
    spool.join("stream_id")
}

pub(super) fn write_mark(spool: &Path, stream_id: Uuid) -> io::Result<()> {
    crate::durable::write(&mark(spool), format!("{stream_id}\n").as_bytes())
}

pub(super) fn read_mark(spool: &Path) -> Option<Uuid> {
    fs::read_to_string(mark(spool)).ok()?.trim().parse().ok()
}

/// Directories of streams, the one changed last at the end.
fn streams(spool: &Path) -> io::Result<Vec<Uuid>> {
    let mut streams = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        if let Some(stream_id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            streams
                .push((entry.metadata().and_then(|metadata| metadata.modified()).ok(), stream_id));
        }
    }
    streams.sort_unstable();
    Ok(streams.into_iter().map(|(_, stream_id)| stream_id).collect())
}

/// What a segment's file holds, in the order of its sequences, and what is damaged in it.
struct Recovered {
    entries: Vec<Entry>,
    segment: Segment,
    /// Records whose header is intact and whose frame is not.
    damaged: u64,
    garbage_at_end: bool,
}

/// Reads one segment. Null: it holds nothing that is not known yet. Error: it cannot be read now.
fn recover_segment(dir: &Path, id: u64, after: u64) -> io::Result<Option<Recovered>> {
    let path = segment::path(dir, id);
    let bytes = match fs::read(&path) {
        Err(error) if segment::is_gone(&error) => {
            tracing::warn!(path = %path.display(), %error, "a segment is gone");
            Vec::new()
        }
        read => read?,
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut last = after;
    let mut damaged = 0;
    let mut garbage_at_end = false;
    for found in format::scan(&bytes) {
        garbage_at_end = matches!(found, Found::Garbage);
        let (header, body) = match found {
            Found::Garbage => continue,
            Found::Damaged { header } => (header, Body::Gap(GapReason::SpoolCorrupt)),
            Found::Record { header, offset } => {
                let stored = Body::Stored {
                    offset,
                    bytes: header.frame_bytes,
                    inflated: header.inflated_bytes,
                    crc: header.frame_crc,
                };
                (header, header.gap.map_or(stored, Body::Gap))
            }
        };
        if header.last <= last {
            continue;
        }
        damaged += u64::from(matches!(found, Found::Damaged { .. }));
        entries.push(Entry {
            first: header.first.max(last + 1),
            last: header.last,
            sampled_at_ms: header.sampled_at_ms,
            segment: Some(id),
            body,
        });
        last = header.last;
    }
    if garbage_at_end && entries.is_empty() && id > after {
        let gap = Entry::gap(id, id, GapReason::SpoolCorrupt);
        entries.push(Entry { segment: Some(id), ..gap });
        (last, damaged, garbage_at_end) = (id, 1, false);
    }
    let gap_only = matches!(&entries[..], [Entry { body: Body::Gap(GapReason::SpoolFull), .. }]);
    let segment = Segment {
        first: id,
        last,
        bytes: bytes.len() as u64,
        thinned: format::is_thinned(&bytes),
        gap_only,
        acknowledged_at: None,
    };
    let recovered = Recovered { entries, segment, damaged, garbage_at_end };
    Ok((!recovered.entries.is_empty()).then_some(recovered))
}

impl Queue {
    /// Reads back what an earlier run left in `dir`.
    pub(super) fn recover(dir: PathBuf, limits: Limits, host_id: Uuid) -> io::Result<Self> {
        let marked = read_mark(&dir);
        let found = streams(&dir)?;
        let stream_id = marked.or(found.last().copied()).unwrap_or_else(Uuid::new_v4);
        if marked.is_some() {
            for leftover in found.iter().filter(|&&other| other != stream_id) {
                remove_stream(&dir, *leftover);
            }
        }
        let mut queue = Self {
            host_id,
            limits,
            stream_id,
            marked: marked.is_some(),
            doubtful: marked.is_none() && !found.is_empty(),
            entries: VecDeque::new(),
            segments: VecDeque::new(),
            writer: None,
            next: 1,
            acknowledged: 0,
            known: 0,
            offered: 0,
            memory_bytes: 0,
            epoch: 0,
            lost: BTreeMap::new(),
            dir,
        };
        queue.read_segments()?;
        queue.known = queue.next - 1;
        queue.doubtful |= queue.belongs_to_another_host()?;
        queue.acknowledged = queue.entries.front().map_or(0, |entry| entry.first - 1);
        Ok(queue)
    }

    fn read_segments(&mut self) -> io::Result<()> {
        let dir = self.stream_dir();
        if !dir.exists() {
            return Ok(());
        }
        for id in segment::list(&dir)? {
            if self.entries.is_empty() {
                self.next = id;
            } else if id > self.next {
                self.push_hole(id - self.next);
            }
            let Some(recovered) = recover_segment(&dir, id, self.next - 1)? else {
                segment::remove(&segment::path(&dir, id));
                continue;
            };
            if recovered.damaged > 0 {
                self.count_loss(GapReason::SpoolCorrupt, recovered.damaged);
            }
            for entry in recovered.entries {
                if entry.first > self.next {
                    self.push_hole(entry.first - self.next);
                }
                self.next = entry.last + 1;
                self.entries.push_back(entry);
            }
            self.segments.push_back(recovered.segment);
            if recovered.garbage_at_end {
                // Something began to be written here. How much is not known; the cursor tells
                // whether the server knows more than the disk.
                self.push_hole(1);
            }
        }
        Ok(())
    }

    fn push_hole(&mut self, reports: u64) {
        self.count_loss(GapReason::SpoolCorrupt, reports);
        let first = self.next;
        self.next += reports;
        if let Some(Entry { last, segment: None, body: Body::Gap(reason), .. }) =
            self.entries.back_mut()
            && *reason == GapReason::SpoolCorrupt
        {
            *last = self.next - 1;
        } else {
            let hole = Entry::gap(first, self.next - 1, GapReason::SpoolCorrupt);
            self.entries.push_back(hole);
        }
    }

    /// Whether the first readable report names another host: this one was enrolled again.
    fn belongs_to_another_host(&mut self) -> io::Result<bool> {
        let first = self.entries.iter().position(|entry| !matches!(entry.body, Body::Gap(_)));
        let Some(index) = first else { return Ok(false) };
        let record =
            self.frame_of(index)?.and_then(|line| Record::decode(line.trim_ascii_end()).ok());
        Ok(record.is_some_and(|record| record.head().host_id != self.host_id))
    }

    /// Ends the stream and begins another with everything that is not acknowledged, in its order.
    ///
    /// A report that was sent and not acknowledged may be stored already, and will then be stored
    /// again: nobody can tell which of two writers stored what stands at its place. Twice rather than
    /// not at all; they are counted.
    pub(super) fn begin_stream(&mut self) -> Result<(), NewStreamError> {
        let fail = |step, error| NewStreamError { step, error };
        if !self.marked {
            // Which of two directories counts must be known before there are two.
            write_mark(&self.dir, self.stream_id).map_err(|error| fail("mark the old", error))?;
            self.marked = true;
        }
        let old = self.stream_id;
        let stream_id = Uuid::new_v4();
        let dir = directory(&self.dir, stream_id);
        let sent = self
            .entries
            .range(self.head()..)
            .filter(|entry| entry.last <= self.known && !matches!(entry.body, Body::Gap(_)));
        let repeated = sent.count() as u64;
        let copied = self.copy_to(&dir, stream_id);
        let (entries, segments, last) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                remove_stream(&self.dir, stream_id);
                return Err(fail("copy the reports to the new", error));
            }
        };
        if let Err(error) = write_mark(&self.dir, stream_id) {
            remove_stream(&self.dir, stream_id);
            return Err(fail("mark the new", error));
        }
        self.stream_id = stream_id;
        self.doubtful = false;
        self.writer = None;
        self.entries = entries;
        self.segments = segments;
        self.next = last + 1;
        self.acknowledged = 0;
        self.known = 0;
        self.offered = 0;
        self.memory_bytes = 0;
        self.epoch += 1;
        remove_stream(&self.dir, old);
        REPORTS_REPEATED.add(repeated);
        let records = self.entries.len();
        tracing::info!(%old, new = %stream_id, records, repeated, "new stream");
        Ok(())
    }

    fn copy_to(
        &mut self,
        dir: &Path,
        stream_id: Uuid,
    ) -> io::Result<(VecDeque<Entry>, VecDeque<Segment>, u64)> {
        let mut entries = VecDeque::new();
        let mut segments = VecDeque::new();
        let mut last = 0;
        let mut index = self.head();
        while index < self.entries.len() {
            let mut records = Vec::new();
            let id = last + 1;
            while index < self.entries.len() && (records.len() as u64) < self.limits.segment_bytes {
                let (mut entry, frame) = self.restamp(index, stream_id, last)?;
                segment::push_record(&mut records, &entry.header(), &frame);
                entry.segment = Some(id);
                if let Body::Stored { offset, .. } = &mut entry.body {
                    let end = format::SEGMENT_HEADER_BYTES + records.len();
                    *offset = (end - frame.len()) as u64;
                }
                last = entry.last;
                entries.push_back(entry);
                index += 1;
            }
            let mut writer = Writer::create(dir, id)?;
            writer.append(&records)?;
            segments.push_back(Segment {
                first: id,
                last,
                bytes: writer.bytes,
                thinned: false,
                gap_only: false,
                acknowledged_at: None,
            });
        }
        Ok((entries, segments, last))
    }

    /// The entry at `index` as it stands in the new stream after `last`, and its frame.
    fn restamp(
        &mut self,
        index: usize,
        stream_id: Uuid,
        last: u64,
    ) -> io::Result<(Entry, Vec<u8>)> {
        let restamped = self.frame_of(index)?.and_then(|line| match Record::decode(&line) {
            Ok(Record::Report(mut report)) => {
                report.host_id = self.host_id;
                report.stream_id = stream_id;
                report.sequence = last + 1;
                Some(Record::Report(report).encode())
            }
            Ok(Record::Gap(Gap { .. })) | Err(_) => None,
        });
        let entry = &self.entries[index];
        let Some(line) = restamped else {
            let reason = match &entry.body {
                Body::Gap(reason) => *reason,
                Body::Stored { .. } | Body::Memory { .. } => GapReason::SpoolCorrupt,
            };
            let width = entry.last - entry.first.max(self.acknowledged + 1) + 1;
            if !matches!(entry.body, Body::Gap(_)) {
                self.count_loss(reason, 1);
            }
            return Ok((Entry::gap(last + 1, last + width, reason), Vec::new()));
        };
        let frame = queue::compress(&line);
        let body = Body::Stored {
            offset: 0,
            bytes: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            inflated: u32::try_from(line.len()).unwrap_or(u32::MAX),
            crc: crc32c::crc32c(&frame),
        };
        let sampled_at_ms = entry.sampled_at_ms;
        Ok((Entry { first: last + 1, last: last + 1, sampled_at_ms, segment: None, body }, frame))
    }

    /// The line of a report. Null: a gap, or damaged.
    fn frame_of(&mut self, index: usize) -> io::Result<Option<Vec<u8>>> {
        if matches!(self.entries[index].body, Body::Gap(_)) {
            return Ok(None);
        }
        let frame = self.frame(index)?;
        Ok(frame.and_then(|(frame, inflated)| zstd::bulk::decompress(&frame, inflated).ok()))
    }
}

fn remove_stream(spool: &Path, stream_id: Uuid) {
    let dir = directory(spool, stream_id);
    if let Err(error) = fs::remove_dir_all(&dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %dir.display(), %error, "cannot remove an old stream");
    }
}
