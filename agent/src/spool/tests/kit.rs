//! A spool on a disk of its own, and a server that stores what it is sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use shared_model::{Gap, HostFacts, Record, Report};
use uuid::Uuid;

use crate::spool::*;

pub(super) const HOST: Uuid = Uuid::from_u128(7);
pub(super) const ALL: PeekLimits =
    PeekLimits { bytes: usize::MAX, inflated_bytes: usize::MAX, records: usize::MAX };

pub(super) struct TempDir(pub(super) PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("procfleet-spool-{}", Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) fn small() -> Limits {
    Limits {
        max_bytes: 1 << 20,
        max_free_percent: 100,
        segment_bytes: 4096,
        memory_bytes: 32 << 10,
        keep_for: Duration::from_secs(100),
        keep_bytes: 64 << 10,
    }
}

/// A report that can be told from every other by `id`, with `size` bytes that do not compress.
pub(super) fn report(position: Position, id: u64, size: usize) -> Record {
    let mut noise = String::new();
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while noise.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        write!(noise, "{state:016x}").unwrap();
    }
    let mut record = crate::testing::report(position);
    let Record::Report(report) = &mut record else { unreachable!("it is a report") };
    (report.host_id, report.boot_id) = (HOST, Uuid::from_u128(u128::from(id)));
    report.facts = Some(HostFacts { host_name: noise, ..HostFacts::default() });
    record
}

pub(super) fn id_of(report: &Report) -> u64 {
    u64::try_from(report.boot_id.as_u128()).unwrap()
}

pub(super) fn decode(record: &SpooledRecord) -> Record {
    let line = zstd::bulk::decompress(&record.frame, 1 << 20).unwrap();
    assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
    let decoded = Record::decode(line.trim_ascii_end()).unwrap();
    let head = decoded.head();
    assert_eq!((head.first_sequence, head.sequence), (record.first_sequence, record.sequence));
    decoded
}

/// A server: one cursor per stream, and what was stored under which sequences.
#[derive(Default)]
pub(super) struct Server {
    pub(super) streams: BTreeMap<Uuid, Stream>,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) cursor: u64,
    pub(super) stored: BTreeMap<u64, Record>,
}

impl Server {
    /// As the real one decides: in order, without holes, a repeat must be the same.
    pub(super) fn receive(&mut self, records: &[SpooledRecord]) {
        for record in records {
            let decoded = decode(record);
            let stream = self.streams.entry(decoded.head().stream_id).or_default();
            if record.sequence <= stream.cursor {
                if let Some(stored) = stream.stored.get(&record.sequence) {
                    assert_eq!(stored, &decoded, "a sequence was given to other content");
                }
                continue;
            }
            assert_eq!(record.first_sequence, stream.cursor + 1, "a hole or an overlap");
            stream.cursor = record.sequence;
            stream.stored.insert(record.sequence, decoded);
        }
    }

    pub(super) fn cursor(&self, stream_id: Uuid) -> u64 {
        self.streams.get(&stream_id).map_or(0, |stream| stream.cursor)
    }

    pub(super) fn lose_after(&mut self, stream_id: Uuid, cursor: u64) {
        if let Some(stream) = self.streams.get_mut(&stream_id) {
            // A cursor stands at the end of a record.
            let cursor = stream.stored.range(..=cursor).next_back().map_or(0, |(&last, _)| last);
            stream.stored.retain(|&sequence, _| sequence <= cursor);
            stream.cursor = cursor;
        }
    }

    pub(super) fn stored_ids(&self) -> Vec<u64> {
        let records = self.streams.values().flat_map(|stream| stream.stored.values());
        records
            .filter_map(|record| match record {
                Record::Report(report) => Some(id_of(report)),
                Record::Gap(_) => None,
            })
            .collect()
    }

    pub(super) fn gaps(&self) -> Vec<&Gap> {
        let records = self.streams.values().flat_map(|stream| stream.stored.values());
        records
            .filter_map(|record| match record {
                Record::Gap(gap) => Some(gap),
                Record::Report(_) => None,
            })
            .collect()
    }
}

/// Ends a spool as SIGKILL would: without its last flush.
pub(super) fn kill(spool: Spool) {
    let mut queue = spool.queue();
    queue.entries.clear();
    queue.doubtful = true;
    drop(queue);
    drop(spool);
}

/// First contact, as the uplink does it.
pub(super) fn contact(spool: &Spool, server: &Server, now: Instant) {
    if spool.acknowledge(server.cursor(spool.stream_id()), now) == Standing::NewStreamNeeded {
        spool.begin_stream().unwrap();
        let cursor = server.cursor(spool.stream_id());
        assert_eq!(spool.acknowledge(cursor, now), Standing::Continues);
    }
}

pub(super) fn drain(spool: &Spool, server: &mut Server, now: Instant) {
    contact(spool, server, now);
    loop {
        let records = spool.peek(PeekLimits { records: 7, ..ALL });
        if records.is_empty() {
            break;
        }
        server.receive(&records);
        spool.acknowledge(server.cursor(spool.stream_id()), now);
    }
}

pub(super) fn segments(dir: &Path, stream_id: Uuid) -> Vec<PathBuf> {
    let dir = stream::directory(dir, stream_id);
    let firsts = if dir.exists() { segment::list(&dir).unwrap() } else { Vec::new() };
    firsts.into_iter().map(|first| segment::path(&dir, first)).collect()
}

pub(super) fn open(dir: &TempDir) -> Spool {
    Spool::open(&dir.0, small(), HOST).unwrap()
}

pub(super) fn append(spool: &Spool, ids: std::ops::RangeInclusive<u64>, size: usize) {
    for id in ids {
        spool.append(|position| report(position, id, size));
    }
}
