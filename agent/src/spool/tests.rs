use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use shared_model::{AgentSample, Gap, GapReason, HostFacts, HostSample, Record, Report};
use uuid::Uuid;

use super::*;

const HOST: Uuid = Uuid::from_u128(7);
const ALL: PeekLimits =
    PeekLimits { bytes: usize::MAX, inflated_bytes: usize::MAX, records: usize::MAX };

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
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

fn small() -> Limits {
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
fn report(position: Position, id: u64, size: usize) -> Record {
    let mut noise = String::new();
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while noise.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        write!(noise, "{state:016x}").unwrap();
    }
    Record::Report(Box::new(Report {
        version: shared_model::PROTOCOL_VERSION,
        host_id: HOST,
        stream_id: position.stream_id,
        sequence: position.sequence,
        boot_id: Uuid::from_u128(u128::from(id)),
        sampled_at: time::OffsetDateTime::UNIX_EPOCH,
        interval_ms: 30_000,
        facts: Some(HostFacts { host_name: noise, ..HostFacts::default() }),
        host: HostSample::default(),
        filesystems: Vec::new(),
        block_devices: Vec::new(),
        network_interfaces: Vec::new(),
        processes: Vec::new(),
        connections: Vec::new(),
        exits: Vec::new(),
        exit_folds: Vec::new(),
        process_definitions: Vec::new(),
        instance_definitions: Vec::new(),
        agent: AgentSample::default(),
    }))
}

fn id_of(report: &Report) -> u64 {
    u64::try_from(report.boot_id.as_u128()).unwrap()
}

fn decode(record: &SpooledRecord) -> Record {
    let line = zstd::bulk::decompress(&record.frame, 1 << 20).unwrap();
    assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
    let decoded = Record::decode(line.trim_ascii_end()).unwrap();
    let head = decoded.head();
    assert_eq!((head.first_sequence, head.sequence), (record.first_sequence, record.sequence));
    decoded
}

/// A server: one cursor per stream, and what was stored under which sequences.
#[derive(Default)]
struct Server {
    streams: BTreeMap<Uuid, Stream>,
}

#[derive(Default)]
struct Stream {
    cursor: u64,
    stored: BTreeMap<u64, Record>,
}

impl Server {
    /// As the real one decides: in order, without holes, a repeat must be the same.
    fn receive(&mut self, records: &[SpooledRecord]) {
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

    fn cursor(&self, stream_id: Uuid) -> u64 {
        self.streams.get(&stream_id).map_or(0, |stream| stream.cursor)
    }

    fn lose_after(&mut self, stream_id: Uuid, cursor: u64) {
        if let Some(stream) = self.streams.get_mut(&stream_id) {
            // A cursor stands at the end of a record.
            let cursor = stream.stored.range(..=cursor).next_back().map_or(0, |(&last, _)| last);
            stream.stored.retain(|&sequence, _| sequence <= cursor);
            stream.cursor = cursor;
        }
    }

    fn stored_ids(&self) -> Vec<u64> {
        let records = self.streams.values().flat_map(|stream| stream.stored.values());
        records
            .filter_map(|record| match record {
                Record::Report(report) => Some(id_of(report)),
                Record::Gap(_) => None,
            })
            .collect()
    }

    fn gaps(&self) -> Vec<&Gap> {
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
fn kill(spool: Spool) {
    let mut queue = spool.queue();
    queue.entries.clear();
    queue.doubtful = true;
    drop(queue);
    drop(spool);
}

/// First contact, as the uplink does it.
fn contact(spool: &Spool, server: &Server, now: Instant) {
    if spool.acknowledge(server.cursor(spool.stream_id()), now) == Standing::NewStreamNeeded {
        spool.begin_stream().unwrap();
        let cursor = server.cursor(spool.stream_id());
        assert_eq!(spool.acknowledge(cursor, now), Standing::Continues);
    }
}

fn drain(spool: &Spool, server: &mut Server, now: Instant) {
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

fn segments(dir: &Path, stream_id: Uuid) -> Vec<PathBuf> {
    let dir = stream::directory(dir, stream_id);
    let firsts = if dir.exists() { segment::list(&dir).unwrap() } else { Vec::new() };
    firsts.into_iter().map(|first| segment::path(&dir, first)).collect()
}

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

fn open(dir: &TempDir) -> Spool {
    Spool::open(&dir.0, small(), HOST).unwrap()
}

fn append(spool: &Spool, ids: std::ops::RangeInclusive<u64>, size: usize) {
    for id in ids {
        spool.append(|position| report(position, id, size));
    }
}

#[test]
fn two_agents_never_share_a_spool() {
    let dir = TempDir::new();
    let spool = open(&dir);
    assert!(matches!(Spool::open(&dir.0, small(), HOST), Err(SpoolError::InUse(_))));
    drop(spool);
    open(&dir);
}

#[test]
fn goes_on_in_its_stream_after_a_restart() {
    let dir = TempDir::new();
    let spool = open(&dir);
    append(&spool, 1..=10, 1000);
    let stream_id = spool.stream_id();
    let before = spool.peek(ALL);
    kill(spool);
    let spool = open(&dir);
    assert_eq!(spool.stream_id(), stream_id);
    assert_eq!(spool.peek(ALL), before);
    assert_eq!(spool.stats().last_sequence, 10);
    assert_eq!(spool.dictionary_epoch(), 0);
}

#[test]
fn a_full_spool_thins_its_older_half_then_drops_its_oldest() {
    let dir = TempDir::new();
    let limits = Limits { max_bytes: 128 << 10, segment_bytes: 8 << 10, ..small() };
    let spool = Spool::open(&dir.0, limits, HOST).unwrap();
    append(&spool, 1..=150, 1000);
    let lost = spool.stats().lost["spool_full"];
    assert!(lost > 0);
    assert!(spool.dictionary_epoch() > 0);
    append(&spool, 151..=600, 1000);
    let mut server = Server::default();
    drain(&spool, &mut server, Instant::now());
    let ids = server.stored_ids();
    let gaps = server.gaps();
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::SpoolFull));
    let lost: u64 = gaps.iter().map(|gap| gap.sequence - gap.first_sequence + 1).sum();
    assert_eq!(lost + ids.len() as u64, 600);
    assert_eq!(spool.stats().lost["spool_full"], lost);
    assert_eq!(gaps[0].first_sequence, 1);
    // The newest are whole, older ones stand alone between gaps of five.
    assert!((571..=600).all(|id| ids.contains(&id)));
    assert!(gaps.iter().filter(|gap| gap.sequence - gap.first_sequence + 1 == 5).count() >= 1);
}

#[test]
fn what_was_sent_is_not_shed_before_the_server_answered() {
    let dir = TempDir::new();
    let spool = Spool::open(&dir.0, Limits { max_bytes: 64 << 10, ..small() }, HOST).unwrap();
    append(&spool, 1..=8, 1000);
    let sent = spool.peek(PeekLimits { records: 5, ..ALL });
    append(&spool, 9..=300, 1000);
    assert_eq!(spool.peek(PeekLimits { records: 5, ..ALL }), sent);
}

#[test]
fn a_failed_over_server_is_refilled_and_what_is_not_kept_is_a_gap() {
    let dir = TempDir::new();
    let spool = Spool::open(&dir.0, Limits { keep_bytes: 20 << 10, ..small() }, HOST).unwrap();
    append(&spool, 1..=20, 1000);
    let mut server = Server::default();
    let now = Instant::now();
    drain(&spool, &mut server, now);
    server.lose_after(spool.stream_id(), 18);
    drain(&spool, &mut server, now);
    assert_eq!(server.stored_ids(), (1..=20).collect::<Vec<_>>());
    assert!(server.gaps().is_empty());

    append(&spool, 21..=60, 1000);
    drain(&spool, &mut server, now);
    let epoch = spool.dictionary_epoch();
    server.lose_after(spool.stream_id(), 2);
    drain(&spool, &mut server, now);
    let [gap] = server.gaps()[..] else { panic!("one gap") };
    assert_eq!((gap.first_sequence, gap.reason), (3, GapReason::ServerLostData));
    let kept = (gap.sequence + 1..=60).collect::<Vec<_>>();
    assert_eq!(server.stored_ids(), [vec![1, 2], kept].concat());
    assert!(spool.dictionary_epoch() > epoch);
}

#[test]
fn acknowledged_records_go_after_their_time() {
    let dir = TempDir::new();
    let spool = open(&dir);
    append(&spool, 1..=40, 1000);
    let now = Instant::now();
    let mut server = Server::default();
    drain(&spool, &mut server, now);
    assert!(spool.stats().bytes > 30_000);
    spool.acknowledge(40, now + Duration::from_secs(101));
    assert!(spool.stats().bytes < 10_000);
}

#[test]
fn a_disk_that_forgot_what_was_sent_ends_the_stream() {
    let dir = TempDir::new();
    let mut server = Server::default();
    let limits = Limits { segment_bytes: 64 << 10, ..small() };
    let spool = Spool::open(&dir.0, limits, HOST).unwrap();
    append(&spool, 1..=9, 300);
    drain(&spool, &mut server, Instant::now());
    let stream_id = spool.stream_id();
    kill(spool);
    // The machine comes back from a snapshot taken after the fifth report.
    let path = segments(&dir.0, stream_id).pop().unwrap();
    let content = fs::read(&path).unwrap();
    let format::Found::Record { header, offset } = format::scan(&content)[4] else { panic!() };
    fs::write(&path, &content[..usize::try_from(offset).unwrap() + header.frame_bytes as usize])
        .unwrap();

    let spool = open(&dir);
    append(&spool, 10..=20, 300);
    assert_eq!(spool.stats().last_sequence, 16, "sequences 6 to 9 are given out again, unsent");
    drain(&spool, &mut server, Instant::now());
    assert_ne!(spool.stream_id(), stream_id);
    assert_eq!(server.streams[&stream_id].cursor, 9);
    let mut ids = server.stored_ids();
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_lost_mark_ends_the_stream_at_first_contact() {
    let dir = TempDir::new();
    let mut server = Server::default();
    let spool = open(&dir);
    append(&spool, 1..=5, 300);
    server.receive(&spool.peek(PeekLimits { records: 3, ..ALL }));
    let stream_id = spool.stream_id();
    kill(spool);
    fs::remove_file(stream::mark(&dir.0)).unwrap();
    let spool = open(&dir);
    append(&spool, 6..=6, 300);
    drain(&spool, &mut server, Instant::now());
    assert_ne!(spool.stream_id(), stream_id);
    assert_eq!(server.cursor(stream_id), 3);
    let mut ids = server.stored_ids();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    kill(spool);
    assert_eq!(open(&dir).stats().last_sequence, 3);
}

#[test]
fn reports_of_an_earlier_identity_move_to_the_new_one() {
    let dir = TempDir::new();
    let spool = open(&dir);
    append(&spool, 1..=3, 100);
    drop(spool);
    let host_id = Uuid::from_u128(8);
    let spool = Spool::open(&dir.0, small(), host_id).unwrap();
    assert_eq!(spool.acknowledge(0, Instant::now()), Standing::NewStreamNeeded);
    spool.begin_stream().unwrap();
    let records = spool.peek(ALL);
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| decode(record).head().host_id == host_id));
}

#[test]
fn a_larger_record_than_a_peek_allows_comes_alone() {
    let dir = TempDir::new();
    let spool = open(&dir);
    append(&spool, 1..=3, 2000);
    let records = spool.peek(PeekLimits { bytes: 10, ..ALL });
    assert_eq!(records.len(), 1);
    let records = spool.peek(PeekLimits { inflated_bytes: 5000, ..ALL });
    assert_eq!(records.len(), 2);
}

/// Runs itself again inside a mount namespace with a tmpfs of 256 KiB as the spool's disk.
#[test]
fn a_full_disk_keeps_reports_in_memory_and_goes_back() {
    const VARIABLE: &str = "PROCFLEET_TEST_TINY_DISK";
    if let Some(disk) = std::env::var_os(VARIABLE) {
        return on_a_full_disk(Path::new(&disk));
    }
    let dir = TempDir::new();
    let script = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(&dir.0)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "spool::tests::a_full_disk_keeps_reports_in_memory_and_goes_back"])
        .env(VARIABLE, &dir.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn on_a_full_disk(disk: &Path) {
    let mut server = Server::default();
    let now = Instant::now();
    let path = disk.join("spool");
    let limits = Limits { memory_bytes: 16 << 10, ..small() };
    let spool = Spool::open(&path, limits.clone(), HOST).unwrap();
    append(&spool, 1..=3, 1000);
    // Full, by someone else: first kept in memory, then sent from there.
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    let outcome = spool.append(|position| report(position, 4, 9000));
    assert_eq!(outcome, Appended::Volatile);
    assert!(!stream::mark(&path).exists());
    drain(&spool, &mut server, now);
    assert_eq!(server.stored_ids(), [1, 2, 3, 4]);
    assert_eq!(spool.stats().memory_bytes, 0, "acknowledged reports leave memory");
    // More than fits in memory: the oldest go, and are counted.
    append(&spool, 5..=24, 3000);
    let stats = spool.stats();
    assert!(stats.memory_bytes <= 16 << 10, "{stats:?}");
    let lost = stats.lost["spool_unwritable"];
    assert!(lost > 5, "{stats:?}");
    // Room again: the next append takes everything to disk.
    fs::remove_file(&filler).unwrap();
    let outcome = spool.append(|position| report(position, 25, 100));
    assert_eq!(outcome, Appended::Durable);
    assert_eq!(spool.stats().memory_bytes, 0);
    assert!(stream::mark(&path).exists());
    let stream_id = spool.stream_id();
    kill(spool);
    let spool = Spool::open(&path, limits.clone(), HOST).unwrap();
    drain(&spool, &mut server, now);
    assert_eq!(spool.stream_id(), stream_id);
    let [gap] = server.gaps()[..] else { panic!("one gap: {:?}", server.gaps()) };
    assert_eq!(gap.reason, GapReason::SpoolUnwritable);
    assert_eq!(gap.sequence - gap.first_sequence + 1, lost);
    // Killed while sending from memory: the sequences are not given out again.
    fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    append(&spool, 26..=27, 9000);
    server.receive(&spool.peek(ALL));
    kill(spool);
    fs::remove_file(&filler).unwrap();
    let spool = Spool::open(&path, limits, HOST).unwrap();
    append(&spool, 28..=30, 100);
    drain(&spool, &mut server, now);
    assert_ne!(spool.stream_id(), stream_id);
    let ids = server.stored_ids();
    assert!((25..=30).all(|id| ids.contains(&id)), "{ids:?}");
}

#[test]
fn what_cannot_be_read_now_is_not_given_up() {
    let dir = TempDir::new();
    let spool = Spool::open(&dir.0, small(), HOST).unwrap();
    for id in 1..=3 {
        spool.append(|position| report(position, id, 100));
    }
    let stream = dir.0.join(spool.stream_id().to_string());
    let segment = fs::read_dir(&stream).unwrap().next().unwrap().unwrap().path();
    let aside = dir.0.join("aside");
    // As when the host is out of file descriptors: opening fails, and nothing is wrong with the file.
    fs::rename(&segment, &aside).unwrap();
    std::os::unix::fs::symlink(&segment, &segment).unwrap();
    assert!(spool.peek(ALL).is_empty());
    spool.begin_stream().unwrap_err();
    assert!(spool.stats().lost.is_empty());
    drop(spool);
    assert!(matches!(Spool::open(&dir.0, small(), HOST), Err(SpoolError::Io { .. })));
    fs::rename(&aside, &segment).unwrap();
    let spool = Spool::open(&dir.0, small(), HOST).unwrap();
    assert_eq!(spool.peek(ALL).len(), 3);
    assert!(spool.stats().lost.is_empty());
}
