use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::*;
use crate::collectors::settings::Settings;
use crate::procfs::Root;

/// Longer than anything in these tests takes: only a test that fails waits for it.
const LONG: Duration = Duration::from_mins(1);
/// The deadline of collectors that are made to miss it.
const SHORT: Duration = Duration::from_millis(20);

fn setup() -> Setup {
    Setup {
        root: Root::system(),
        boot_id: uuid::Uuid::nil(),
        bpf: Arc::new(crate::bpf::Bpf::none(crate::bpf::OBJECTS, "a test")),
        titles: crate::collectors::process::titles::Options::default(),
    }
}

fn tick() -> Tick {
    Tick {
        clock_offset: time::Duration::ZERO,
        sampled_at: shared_model::Timestamp::UNIX_EPOCH,
        monotonic: Duration::ZERO,
        describe_all: false,
        settings: Arc::new(Settings::default()),
    }
}

fn line(name: &'static str, deadline: Duration, build: crate::collectors::Build) -> Registration {
    Registration { name, tier: Tier::B, deadline, build }
}

fn outcomes(runs: &[CollectorRun]) -> Vec<CollectorOutcome> {
    runs.iter().map(|run| run.outcome).collect()
}

/// Says in `uptime_s` how often this very collector ran.
struct Counts(u64);
impl Collector for Counts {
    fn collect(&mut self, _: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        self.0 += 1;
        batch.host.uptime_s = Some(self.0);
        Ok(())
    }
}

/// Hangs until the test sends, or drops, its end of the channel.
struct Hangs(u32);
static RELEASE: OnceLock<Mutex<Receiver<()>>> = OnceLock::new();
impl Collector for Hangs {
    fn collect(&mut self, _: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let _released = RELEASE.get().unwrap().lock().unwrap().recv();
        self.0 += 1;
        batch.host.cpu_count = Some(self.0);
        Ok(())
    }
}

#[test]
fn a_collector_that_hangs_is_late_skipped_and_built_again() {
    let (release, released) = sync_channel::<()>(0);
    RELEASE.set(Mutex::new(released)).unwrap();
    let registry = [
        line("hangs", SHORT, |_| Box::new(Hangs(0))),
        line("counts", LONG, |_| Box::new(Counts(0))),
    ];
    let mut runner = Runner::start(&registry, &setup()).unwrap();

    let (batch, runs) = runner.run(&tick(), LONG);
    assert_eq!(outcomes(&runs), [CollectorOutcome::Late, CollectorOutcome::Ok]);
    assert_eq!((batch.host.uptime_s, batch.host.cpu_count), (Some(1), None), "its part is missing");
    assert_eq!(runs[0].duration_us, 20_000, "the deadline");

    let skipped = COLLECTOR_SKIPPED.get();
    let (batch, runs) = runner.run(&tick(), LONG);
    assert_eq!(outcomes(&runs), [CollectorOutcome::Late, CollectorOutcome::Ok]);
    assert_eq!(batch.host.uptime_s, Some(2), "the others go on");
    assert_eq!(COLLECTOR_SKIPPED.get(), skipped + 1);

    let late = COLLECTOR_LATE_RESULTS.get();
    release.send(()).unwrap();
    // From here on it does not wait any more.
    drop(release);
    let (batch, _) = loop {
        let (batch, runs) = runner.run(&tick(), LONG);
        if runs[0].outcome == CollectorOutcome::Ok {
            break (batch, runs);
        }
        thread::yield_now();
    };
    assert_eq!(batch.host.cpu_count, Some(1), "a new collector, not the late one");
    assert!(COLLECTOR_LATE_RESULTS.get() > late, "the late result was thrown away");
}

struct Panics;
static BUILT: AtomicU32 = AtomicU32::new(0);
impl Collector for Panics {
    fn collect(&mut self, _: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        batch.host.cpu_count = Some(7);
        assert!(BUILT.load(Ordering::SeqCst) > 1, "no luck with {}", "this one");
        Ok(())
    }
}

#[test]
fn a_panic_is_a_failure_of_one_run() {
    let registry = [
        line("panics", LONG, |_| {
            BUILT.fetch_add(1, Ordering::SeqCst);
            Box::new(Panics)
        }),
        line("counts", LONG, |_| Box::new(Counts(0))),
    ];
    let mut runner = Runner::start(&registry, &setup()).unwrap();
    let (batch, runs) = runner.run(&tick(), LONG);
    assert_eq!(outcomes(&runs), [CollectorOutcome::Failed, CollectorOutcome::Ok]);
    assert_eq!(runs[0].error.as_deref(), Some("panicked: no luck with this one"));
    assert_eq!((batch.host.cpu_count, batch.host.uptime_s), (None, Some(1)));

    let (batch, runs) = runner.run(&tick(), LONG);
    assert_eq!(outcomes(&runs), [CollectorOutcome::Ok, CollectorOutcome::Ok], "built again");
    assert_eq!((batch.host.cpu_count, batch.host.uptime_s), (Some(7), Some(2)));
}

struct Absent;
impl Collector for Absent {
    fn collect(&mut self, _: &Tick, _: &mut Batch) -> Result<(), CollectError> {
        Err(CollectError::NoData)
    }
}

/// Fails every second run.
struct Fails(u32);
impl Collector for Fails {
    fn collect(&mut self, _: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        self.0 += 1;
        batch.tier = Some(Tier::C);
        batch.host.cpu_count = Some(self.0);
        if self.0 == 2 {
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(CollectError::Call { call: "sched_getaffinity", source });
        }
        Ok(())
    }
}

#[test]
fn no_data_is_no_failure_and_a_failure_starts_anew() {
    let registry =
        [line("absent", LONG, |_| Box::new(Absent)), line("fails", LONG, |_| Box::new(Fails(0)))];
    let mut runner = Runner::start(&registry, &setup()).unwrap();
    let (batch, runs) = runner.run(&tick(), LONG);
    assert_eq!(outcomes(&runs), [CollectorOutcome::NoData, CollectorOutcome::Ok]);
    assert_eq!((runs[0].tier, runs[1].tier), (Tier::B, Tier::C));
    assert_eq!(batch.host.cpu_count, Some(1));
    let (batch, runs) = runner.run(&tick(), LONG);
    assert_eq!(runs[1].outcome, CollectorOutcome::Failed);
    assert_eq!(runs[1].error.as_deref(), Some("sched_getaffinity failed: permission denied"));
    assert_eq!(batch.host.cpu_count, None, "no half of a part");
    let (batch, _) = runner.run(&tick(), LONG);
    assert_eq!(batch.host.cpu_count, Some(1), "a new baseline");
}

/// Counts its ends.
struct Ends;
static ENDED: AtomicU32 = AtomicU32::new(0);
impl Drop for Ends {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::SeqCst);
    }
}
impl Collector for Ends {
    fn collect(&mut self, _: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        batch.host.cpu_count = Some(1);
        Ok(())
    }
}

#[test]
fn a_disabled_collector_says_so_holds_nothing_and_begins_anew() {
    let registry =
        [line("ends", LONG, |_| Box::new(Ends)), line("counts", LONG, |_| Box::new(Counts(0)))];
    let mut runner = Runner::start(&registry, &setup()).unwrap();
    let disabled = vec!["ends".to_owned(), "counts".to_owned()];
    let off = Settings { disabled, ..Settings::default() };
    let off = Tick { settings: Arc::new(off), ..tick() };
    assert_eq!(runner.run(&tick(), LONG).0.host.uptime_s, Some(1));
    for _ in 0..3 {
        let (batch, runs) = runner.run(&off, LONG);
        assert_eq!(outcomes(&runs), [CollectorOutcome::Disabled; 2]);
        assert_eq!((batch.host.cpu_count, batch.host.uptime_s), (None, None));
    }
    // Each begins anew on a thread of its own, and one may be ready a tick before the other.
    let (mut ends, mut counts) = (None, None);
    while ends.is_none() || counts.is_none() {
        let (batch, _) = runner.run(&tick(), LONG);
        ends = ends.or(batch.host.cpu_count);
        counts = counts.or(batch.host.uptime_s);
        thread::yield_now();
    }
    assert_eq!((ends, counts), (Some(1), Some(1)), "a new baseline");
    assert_eq!(ENDED.load(Ordering::SeqCst), 1, "once, when it was disabled");
}
