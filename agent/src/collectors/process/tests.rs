//! The collector over made trees: identity, births, deaths, descriptions, the dictionary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use shared_model::{InstanceId, ProcessDefinition, ProcessId, Timestamp};

use super::walk::in_ticks;
use super::*;
use crate::collectors::settings::Settings;
use crate::profile::Pattern;

/// A tree of `/proc` that is removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let directory = format!("procfleet-process-{name}-{}", std::process::id());
        let tree = Self(std::env::temp_dir().join(directory));
        tree.write("proc/stat", "cpu  1 2 3\nbtime 1700000000\n");
        tree.write("proc/meminfo", "SwapTotal: 0 kB\nSwapFree: 0 kB\n");
        tree.write("etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n");
        tree.uptime(1000);
        tree
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn uptime(&self, seconds: u64) {
        self.write("proc/uptime", format!("{seconds}.00 5.00\n"));
    }

    /// A user process with `ticks` of user time that started at `start` ticks.
    fn process(&self, pid: u32, (comm, image): (&str, u64), start: u64, ticks: u64) {
        let stat = format!(
            "{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 0 9 0 {image} 0 5\n"
        );
        self.write(&format!("proc/{pid}/stat"), stat);
        self.write(&format!("proc/{pid}/statm"), "9 25 1 1 0 1 0\n");
        let io = "rchar: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n";
        self.write(&format!("proc/{pid}/io"), io);
        let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nVmSize:\t36 kB\nVmSwap:\t8 kB\n";
        self.write(&format!("proc/{pid}/status"), status);
        self.write(&format!("proc/{pid}/cgroup"), "0::/system.slice/x.service\n");
        self.write(&format!("proc/{pid}/cmdline"), format!("/bin/{comm}\0--password=x\0"));
    }

    fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.0.join(format!("proc/{pid}"))).unwrap();
    }

    fn collector(&self) -> Sampler {
        Sampler { collector: Processes::new(&setup(&self.0)), seconds: 0, profile: keep_all() }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

fn setup(root: &Path) -> Setup {
    Setup {
        root: Root::at(root),
        boot_id: Uuid::from_u128(7),
        bpf: Arc::new(crate::bpf::Bpf::none(crate::bpf::OBJECTS, "a test")),
        titles: crate::collectors::process::titles::Options::default(),
    }
}

fn keep_all() -> Profile {
    Profile { keep_all: true, ..Profile::default() }
}

struct Sampler {
    collector: Processes,
    seconds: u64,
    profile: Profile,
}

impl Sampler {
    /// One tick, ten seconds after the one before.
    fn tick(&mut self, describe_all: bool) -> Batch {
        self.seconds += 10;
        let tick = Tick {
            clock_offset: time::Duration::ZERO,
            sampled_at: Timestamp::UNIX_EPOCH,
            monotonic: Duration::from_secs(self.seconds),
            describe_all,
            settings: Arc::new(Settings { profile: self.profile.clone(), ..Settings::default() }),
        };
        let mut batch = Batch::default();
        self.collector.collect(&tick, &mut batch).unwrap();
        batch
    }
}

fn id(pid: u32, start: u64) -> InstanceId {
    InstanceId::of(Uuid::from_u128(7), pid, start)
}

#[track_caller]
fn row(batch: &Batch, instance_id: InstanceId) -> &ProcessSample {
    batch.processes.iter().find(|row| row.instance_id == instance_id).expect("a row")
}

#[test]
fn births_deaths_and_reuse() {
    let tree = Tree::new("births");
    tree.process(10, ("old", 1), 500, 700);
    let mut sampler = tree.collector();
    let batch = sampler.tick(false);
    assert_eq!(row(&batch, id(10, 500)).cpu_user_us, None, "a baseline");
    assert_eq!(row(&batch, id(10, 500)).memory_usage_bytes, Some(25 * 4096));

    tree.uptime(1010);
    tree.process(10, ("old", 1), 500, 750);
    tree.process(11, ("born", 1), 100_500, 20);
    tree.process(12, ("hidden before", 1), 99_000, 20);
    let batch = sampler.tick(false);
    assert_eq!(row(&batch, id(10, 500)).cpu_user_us, Some(500_000));
    assert_eq!(row(&batch, id(11, 100_500)).cpu_user_us, Some(200_000), "since its birth");
    assert_eq!(row(&batch, id(12, 99_000)).cpu_user_us, None, "its past is unknown");

    tree.uptime(1020);
    tree.remove(12);
    // The number 10 is reused within the interval: another instance, not a fall of the counters.
    tree.process(10, ("new", 2), 101_500, 3);
    let batch = sampler.tick(false);
    assert_eq!(batch.processes.len(), 2);
    assert_eq!(row(&batch, id(10, 101_500)).cpu_user_us, Some(30_000));
    assert_eq!(row(&batch, id(11, 100_500)).cpu_user_us, Some(0));
}

#[test]
fn an_instance_is_described_once_and_when_it_changes() {
    let tree = Tree::new("described");
    tree.process(10, ("a", 1), 500, 0);
    tree.process(11, ("a", 2), 600, 0);
    let mut sampler = tree.collector();
    let batch = sampler.tick(false);
    assert_eq!(batch.process_definitions.len(), 1, "one process, two instances");
    let process = &batch.process_definitions[0];
    assert_eq!(process.command_line, "/bin/a --password=***");
    assert_eq!(process.process_id, ProcessId::of("/bin/a --password=***"));
    assert_eq!(batch.instance_definitions.len(), 2);
    let instance = batch.instance_definitions.iter().find(|instance| instance.pid == 10).unwrap();
    assert_eq!(instance.instance_id, id(10, 500));
    assert_eq!(instance.executable_name.as_deref(), Some("a"));
    assert_eq!((instance.user_id, instance.owner.as_deref()), (Some(1000), Some("alice")));
    assert_eq!(instance.systemd_unit.as_deref(), Some("x.service"));
    assert_eq!(instance.creation_time.unix_timestamp(), 1_700_000_005);
    assert_eq!((instance.parent_pid, instance.start_ticks), (Some(1), 500));

    assert!(sampler.tick(false).instance_definitions.is_empty());
    tree.process(11, ("b", 3), 600, 0);
    let batch = sampler.tick(false);
    assert_eq!(batch.process_definitions[0].command_line, "/bin/b --password=***");
    assert_eq!(batch.instance_definitions.len(), 1, "the same instance runs another program");
    assert_eq!(batch.instance_definitions[0].instance_id, id(11, 600));

    let batch = sampler.tick(true);
    assert_eq!((batch.process_definitions.len(), batch.instance_definitions.len()), (2, 2));
    sampler.seconds += 6 * 3600;
    let batch = sampler.tick(false);
    assert_eq!((batch.process_definitions.len(), batch.instance_definitions.len()), (0, 2));
    tree.remove(11);
    sampler.tick(false);
    tree.process(12, ("b", 1), 700, 0);
    let batch = sampler.tick(false);
    assert_eq!(batch.process_definitions.len(), 1, "forgotten with its last instance");
}

#[test]
fn only_rows_are_described_and_patterns_keep() {
    let tree = Tree::new("patterns");
    tree.process(10, ("busy", 1), 500, 0);
    tree.process(11, ("idle", 1), 600, 0);
    let mut sampler = tree.collector();
    sampler.profile = Profile { top: 0, ..Profile::default() };
    let batch = sampler.tick(false);
    assert_eq!(batch.processes.len(), 1);
    let residual = row(&batch, InstanceId::RESIDUAL);
    assert_eq!((residual.process_count, residual.memory_usage_bytes), (2, Some(2 * 25 * 4096)));
    assert!(batch.instance_definitions.is_empty() && batch.process_definitions.is_empty());

    tree.process(10, ("busy", 1), 500, 500);
    let batch = sampler.tick(false);
    assert_eq!(row(&batch, id(10, 500)).cpu_user_us, Some(5_000_000));
    assert_eq!(row(&batch, InstanceId::RESIDUAL).cpu_user_us, Some(0));
    assert_eq!(batch.instance_definitions.len(), 1);

    let pattern = Pattern::try_from("bin/id[l]e".to_owned()).unwrap();
    sampler.profile.always_keep = vec![pattern];
    let batch = sampler.tick(false);
    assert_eq!(row(&batch, id(11, 600)).cpu_user_us, Some(0));
    assert_eq!(row(&batch, InstanceId::RESIDUAL).process_count, 1);
    sampler.profile.always_keep.clear();
    assert_eq!(row(&sampler.tick(false), InstanceId::RESIDUAL).process_count, 2);
}

#[test]
fn swap_is_read_while_the_host_uses_some() {
    let tree = Tree::new("swap");
    tree.process(10, ("a", 1), 500, 0);
    let mut sampler = tree.collector();
    assert_eq!(row(&sampler.tick(false), id(10, 500)).memory_swap_bytes, Some(0));
    tree.write("proc/meminfo", "SwapTotal: 100 kB\nSwapFree: 20 kB\n");
    assert_eq!(row(&sampler.tick(false), id(10, 500)).memory_swap_bytes, Some(8 << 10));
    tree.write("proc/10/status", "VmSize: 1 kB\nVmSwap: 12 kB\n");
    assert_eq!(row(&sampler.tick(false), id(10, 500)).memory_swap_bytes, Some(12 << 10));
    tree.write("proc/10/status", "VmSize: 1 kB\n");
    sampler.seconds += 600;
    assert_eq!(row(&sampler.tick(false), id(10, 500)).memory_swap_bytes, None);
}

#[test]
fn damage_and_emptiness_are_not_numbers() {
    let tree = Tree::new("damage");
    tree.process(10, ("a", 1), 500, 0);
    tree.process(11, ("b", 1), 500, 0);
    tree.write("proc/11/stat", "11 (b) S");
    tree.write("proc/10/statm", "x");
    tree.write("proc/10/io", "read_bytes: x\n");
    tree.write("proc/10/cmdline", "");
    let batch = tree.collector().tick(false);
    assert_eq!(batch.processes.len(), 1);
    let row = row(&batch, id(10, 500));
    assert_eq!((row.memory_usage_bytes, row.disk_read_bytes), (None, None));
    assert_eq!(batch.process_definitions[0].command_line, "[a]");
}

#[test]
fn a_command_line_that_hangs_delays_only_itself() {
    let tree = Tree::new("hangs");
    tree.process(10, ("stuck", 1), 500, 0);
    tree.process(11, ("free", 1), 600, 0);
    let pipe = tree.0.join("proc/10/cmdline");
    fs::remove_file(&pipe).unwrap();
    // Opening a pipe to read hangs until somebody opens it to write.
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let line = |batch: &Batch, pid: u32| {
        let instance = batch.instance_definitions.iter().find(|instance| instance.pid == pid)?;
        let is_it = |process: &&ProcessDefinition| process.process_id == instance.process_id;
        Some(batch.process_definitions.iter().find(is_it)?.command_line.clone())
    };
    let mut sampler = tree.collector();
    let batch = sampler.tick(false);
    assert_eq!(batch.processes.len(), 2);
    assert_eq!(line(&batch, 10).as_deref(), Some("[stuck]"));
    assert_eq!(line(&batch, 11).as_deref(), Some("/bin/free --password=***"));
    let batch = sampler.tick(false);
    assert_eq!((batch.processes.len(), batch.instance_definitions.len()), (2, 0));

    fs::write(&pipe, "/bin/stuck\0now free\0").unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let late = loop {
        if let Some(late) = line(&sampler.tick(false), 10) {
            break late;
        }
        assert!(Instant::now() < deadline, "the late answer never came");
        std::thread::park_timeout(Duration::from_millis(5));
    };
    assert_eq!(late, "/bin/stuck now free");
}

#[test]
fn times_in_clock_ticks() {
    assert_eq!(in_ticks(Duration::from_millis(12_345_670), 100), 1_234_567);
    assert_eq!(in_ticks(Duration::from_millis(12_345_670), 1000), 12_345_670);
    assert_eq!(in_ticks(Duration::from_secs(u64::MAX), 100), u64::MAX);
    assert_eq!(from_ticks(150, 100), Duration::from_millis(1500));
}

#[test]
fn an_iterator_that_fails_is_replaced_by_proc_for_the_tick() {
    let tree = Tree::new("fallback");
    tree.process(10, ("a", 1), 500, 700);
    let mut sampler = tree.collector();
    // As if the programs had been loaded, and could not be read now.
    sampler.collector.source = Source::Tasks(Vec::new());
    sampler.collector.units.cpu_per_second = 1_000_000;
    let failed = crate::metrics::BPF_ITERATORS_FAILED.get();
    sampler.tick(false);
    tree.uptime(1010);
    tree.process(10, ("a", 1), 500, 750);
    tree.process(11, ("b", 1), 100_500, 20);
    let batch = sampler.tick(false);
    assert_eq!(row(&batch, id(10, 500)).cpu_user_us, Some(500_000), "in the unit of the iterator");
    assert_eq!(row(&batch, id(11, 100_500)).cpu_user_us, Some(200_000));
    assert_eq!(row(&batch, id(10, 500)).run_queue_delay_us, None);
    assert!(crate::metrics::BPF_ITERATORS_FAILED.get() >= failed + 2);
    assert_eq!(batch.tier, Some(Tier::B));
    let source = batch.sources.iter().find(|it| it.fields == "processes").unwrap();
    let reason = source.reason.as_deref().unwrap();
    assert!(source.tier == Some(Tier::B) && reason.contains("not loaded"), "{reason}");
}

mod descriptions;
mod ended;
mod kernels;
mod live;
