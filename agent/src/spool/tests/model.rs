//! Any sequence of what can happen to a host: the promises of the spool hold.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use shared_model::Record;

use super::kit::*;
use crate::spool::*;

#[derive(Clone, Debug)]
enum Operation {
    Append {
        size: usize,
    },
    /// Peek so many records; the server takes `of_eight` eighths of them, and the answer may be lost.
    Send {
        records: usize,
        of_eight: usize,
        answered: bool,
    },
    /// The server forgets its last so many sequences.
    ServerLoses {
        sequences: u64,
    },
    Reject,
    Wait,
    Restart,
    /// SIGKILL in the middle of a write: so many bytes of a record reached the disk.
    Torn {
        bytes: usize,
    },
    /// SIGKILL, then one bit of the disk flips.
    Flip {
        at: u64,
        bit: u8,
    },
    BeginStream,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0_usize..2500).prop_map(|size| Operation::Append { size }),
        6 => (1_usize..40, 0_usize..=8, any::<bool>())
            .prop_map(|(records, of_eight, answered)| Operation::Send { records, of_eight, answered }),
        1 => (0_u64..30).prop_map(|sequences| Operation::ServerLoses { sequences }),
        1 => Just(Operation::Reject),
        1 => Just(Operation::Wait),
        1 => Just(Operation::Restart),
        1 => (1_usize..600).prop_map(|bytes| Operation::Torn { bytes }),
        1 => (any::<u64>(), 0_u8..8).prop_map(|(at, bit)| Operation::Flip { at, bit }),
        1 => Just(Operation::BeginStream),
    ]
}

/// Everything that happens to one host.
struct World {
    dir: TempDir,
    limits: Limits,
    spool: Option<Spool>,
    server: Server,
    now: Instant,
    appended: u64,
    /// Reports that the server stored once and lost again, or that were damaged or refused.
    may_be_missing: BTreeSet<u64>,
    /// An answer was lost, or the stream ended between request and answer.
    may_repeat: bool,
    unanswered: bool,
}

impl World {
    fn new(limits: Limits) -> Self {
        let dir = TempDir::new();
        let spool = Spool::open(&dir.0, limits.clone(), HOST).unwrap();
        Self {
            dir,
            limits,
            spool: Some(spool),
            server: Server::default(),
            now: Instant::now(),
            appended: 0,
            may_be_missing: BTreeSet::new(),
            may_repeat: false,
            unanswered: false,
        }
    }

    fn spool(&self) -> &Spool {
        self.spool.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.spool = Some(Spool::open(&self.dir.0, self.limits.clone(), HOST).unwrap());
        contact(self.spool(), &self.server, self.now);
        self.unanswered = false;
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Append { size } => {
                self.appended += 1;
                let id = self.appended;
                let appended = self.spool().append(|position| report(position, id, size));
                assert_eq!(appended, Appended::Durable);
            }
            Operation::Send { records, of_eight, answered } => {
                let records = self.spool().peek(PeekLimits { records, ..ALL });
                let taken = records.len() * of_eight / 8;
                self.server.receive(&records[..taken]);
                self.unanswered |= !answered && taken > 0;
                if answered {
                    let cursor = self.server.cursor(self.spool().stream_id());
                    let standing = self.spool().acknowledge(cursor, self.now);
                    assert_eq!(standing, Standing::Continues);
                    self.unanswered = false;
                }
            }
            Operation::ServerLoses { sequences } => {
                self.may_be_missing.extend(self.server.stored_ids());
                let stream_id = self.spool().stream_id();
                let cursor = self.server.cursor(stream_id).saturating_sub(sequences);
                self.server.lose_after(stream_id, cursor);
                contact(self.spool(), &self.server, self.now);
                self.unanswered = false;
            }
            Operation::Reject => {
                contact(self.spool(), &self.server, self.now);
                if let [head] = &self.spool().peek(PeekLimits { records: 1, ..ALL })[..] {
                    if let Record::Report(report) = decode(head) {
                        self.may_be_missing.insert(id_of(&report));
                    }
                    self.spool().reject(head.sequence);
                }
            }
            Operation::Wait => self.now += Duration::from_mins(1),
            Operation::Restart => {
                self.spool = None;
                self.reopen();
            }
            Operation::Torn { bytes } => self.torn(bytes),
            Operation::Flip { at, bit } => self.flip(at, bit),
            Operation::BeginStream => {
                self.may_repeat |= self.unanswered;
                self.spool().begin_stream().unwrap();
                self.unanswered = false;
            }
        }
    }

    fn torn(&mut self, bytes: usize) {
        let stream_id = self.spool().stream_id();
        let sequence = self.spool().stats().last_sequence + 1;
        kill(self.spool.take().unwrap());
        let frame = queue::compress(&report(Position { stream_id, sequence }, 0, 2000).encode());
        let entry = queue::Entry {
            first: sequence,
            last: sequence,
            sampled_at_ms: 0,
            segment: None,
            body: queue::Body::Memory { frame: frame.clone(), inflated: 0 },
        };
        let mut record = Vec::new();
        segment::push_record(&mut record, &entry.header(), &frame);
        if let Some(path) = segments(&self.dir.0, stream_id).last() {
            let mut content = fs::read(path).unwrap();
            // Room is made before a record is written, so a torn one lies within the bound too.
            let on_disk: u64 = segments(&self.dir.0, stream_id)
                .iter()
                .map(|path| fs::metadata(path).unwrap().len())
                .sum();
            let room = usize::try_from(self.limits.max_bytes - on_disk).unwrap();
            content.extend_from_slice(&record[..bytes.min(record.len() - 1).min(room)]);
            fs::write(path, content).unwrap();
        }
        self.reopen();
    }

    fn flip(&mut self, at: u64, bit: u8) {
        let stream_id = self.spool().stream_id();
        // The server must know what it knows before: what was sent and is damaged now changes.
        contact(self.spool(), &self.server, self.now);
        kill(self.spool.take().unwrap());
        let paths = segments(&self.dir.0, stream_id);
        if !paths.is_empty() {
            let path = &paths[usize::try_from(at % paths.len() as u64).unwrap()];
            let mut content = fs::read(path).unwrap();
            let index = usize::try_from(at / 64 % content.len() as u64).unwrap();
            content[index] ^= 1 << bit;
            fs::write(path, content).unwrap();
        }
        self.reopen();
    }

    fn check_bounds(&self) {
        let stats = self.spool().stats();
        assert!(stats.bytes <= self.limits.max_bytes, "{stats:?}");
        let on_disk: u64 = segments(&self.dir.0, self.spool().stream_id())
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        assert_eq!(on_disk, stats.bytes, "the spool knows its size");
        assert_eq!(stats.memory_bytes, 0);
    }

    fn check_end(&mut self) {
        drain(self.spool.as_ref().unwrap(), &mut self.server, self.now);
        assert_eq!(self.spool().stats().reports, 0);
        let ids = self.server.stored_ids();
        let stored: BTreeSet<u64> = ids.iter().copied().collect();
        if !self.may_repeat {
            assert_eq!(stored.len(), ids.len(), "a report was stored twice");
        }
        let gaps: u64 =
            self.server.gaps().iter().map(|gap| gap.sequence - gap.first_sequence + 1).sum();
        let missing = (1..=self.appended)
            .filter(|id| !stored.contains(id) && !self.may_be_missing.contains(id))
            .count() as u64;
        assert!(missing <= gaps, "{missing} reports are missing, gaps tell of {gaps}");
        for stream in self.server.streams.values() {
            let mut ids = 0;
            for record in stream.stored.values() {
                if let Record::Report(report) = record {
                    let id = id_of(report);
                    assert!(id > ids, "out of order");
                    ids = id;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeps_its_promises_whatever_happens(
        operations in prop::collection::vec(operation(), 1..150),
        max_bytes in prop_oneof![Just(1_u64 << 20), 40_000_u64..120_000],
    ) {
        let mut world = World::new(Limits { max_bytes, ..small() });
        for operation in operations {
            world.apply(&operation);
            world.check_bounds();
        }
        world.check_end();
    }
}
