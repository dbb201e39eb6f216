mod kit;
mod model;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use shared_model::GapReason;

use self::kit::*;
use super::*;

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
