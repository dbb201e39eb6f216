//! Against the running kernel, with children whose use is known.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};
use shared_model::limits::MAX_COMMAND_LINE_BYTES;

use super::*;

/// A shell in its own process group, killed and reaped with it.
pub(super) struct Shell(Child);

impl Shell {
    pub(super) fn start(script: &str, arguments: &[&str]) -> Self {
        let child = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The next line it prints, and not a byte of the one after.
    pub(super) fn line(&mut self) -> String {
        let stdout = self.0.stdout.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets its next `read` return.
    pub(super) fn tell(&mut self) {
        std::io::Write::write_all(self.0.stdin.as_mut().unwrap(), b"go\n").unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).unwrap_or_default();
        self.0.wait().unwrap();
    }
}

pub(super) fn live_sampler() -> Sampler {
    let mut setup = setup(Path::new("/"));
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    setup.boot_id = boot_id.trim().parse().unwrap();
    Sampler { collector: Processes::new(&setup), seconds: 0, profile: keep_all() }
}

pub(super) fn row_of(sampler: &Sampler, batch: &Batch, pid: u32) -> ProcessSample {
    row(batch, sampler.collector.table[&pid].id).clone()
}

fn command_line(sampler: &Sampler, batch: &Batch, pid: u32) -> String {
    let id = sampler.collector.table[&pid].id;
    let is_it = |instance: &&shared_model::InstanceDefinition| instance.instance_id == id;
    let process_id = batch.instance_definitions.iter().find(is_it).unwrap().process_id;
    let mut processes = batch.process_definitions.iter();
    processes.find(|process| process.process_id == process_id).unwrap().command_line.clone()
}

#[test]
fn cpu_of_a_child_is_what_it_says_itself() {
    let mut sampler = live_sampler();
    sampler.tick(false);
    let script = "for ((i = 0; i < 1000000; i++)); do :; done; times; read";
    let mut shell = Shell::start(script, &[]);
    // `0m1.234s 0m0.056s`: user and system of the shell.
    let times = shell.line();
    let seconds = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let truth: f64 = times.split_whitespace().map(seconds).sum();
    let batch = sampler.tick(false);
    let row = row_of(&sampler, &batch, shell.pid());
    let told = row.cpu_user_us.unwrap() + row.cpu_system_us.unwrap();
    let told = std::time::Duration::from_micros(told).as_secs_f64();
    assert!(truth > 0.3, "{times}");
    assert!((told - truth).abs() <= truth * 0.03 + 0.02, "told {told}, truth {truth}");
    let batch = sampler.tick(false);
    assert_eq!(row_of(&sampler, &batch, shell.pid()).cpu_user_us, Some(0), "it sleeps");
}

#[test]
fn bytes_written_are_counted() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../target/written-{}", std::process::id()));
    let mut sampler = live_sampler();
    let mut shell = Shell::start(
        "echo; read; for i in {1..8}; do printf '%1048576s' ''; done > \"$1\"; sync \"$1\"; echo; read",
        &[file.to_str().unwrap()],
    );
    shell.line();
    sampler.tick(false);
    shell.tell();
    shell.line();
    let batch = sampler.tick(false);
    let row = row_of(&sampler, &batch, shell.pid());
    fs::remove_file(file).unwrap();
    let written = row.disk_write_bytes.unwrap();
    assert!((8 << 20..(8 << 20) + (256 << 10)).contains(&written), "{written}");
    assert!(row.paging_faults_minor.unwrap() > 0);
}

#[test]
fn any_command_line_arrives_clean_and_capped() {
    let long = "é".repeat(50 << 10);
    let shell = Shell::start("read", &["q'u\"o", "grüße", "two\nlines", "", &long]);
    let mut sampler = live_sampler();
    let batch = sampler.tick(false);
    let line = command_line(&sampler, &batch, shell.pid());
    assert!(line.starts_with("bash -c read bash q'u\"o grüße two lines  éé"), "{line}");
    assert!(line.len() > MAX_COMMAND_LINE_BYTES - 2 && line.len() <= MAX_COMMAND_LINE_BYTES);
    assert!(line.ends_with('é'));
}

#[test]
fn an_exec_is_noticed_even_with_the_same_name() {
    let mut sampler = live_sampler();
    let script = "echo; read; exec -a bash bash -c 'echo; read' other --token=x";
    let mut shell = Shell::start(script, &[]);
    shell.line();
    sampler.tick(false);
    shell.tell();
    shell.line();
    let batch = sampler.tick(false);
    assert_eq!(command_line(&sampler, &batch, shell.pid()), "bash -c echo; read other --token=***");
}

#[test]
fn cpu_of_threads_that_ended_stays() {
    let mut sampler = live_sampler();
    sampler.tick(false);
    let pid = std::process::id();
    let anomalies = crate::metrics::PROCESS_ANOMALIES.get();
    let mut sum = 0;
    for _ in 0..3 {
        let burn = || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(60) {
                std::hint::spin_loop();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(burn);
            }
        });
        let batch = sampler.tick(false);
        let row = row_of(&sampler, &batch, pid);
        sum += row.cpu_user_us.unwrap() + row.cpu_system_us.unwrap();
    }
    assert!(sum >= 100_000, "{sum}");
    assert_eq!(crate::metrics::PROCESS_ANOMALIES.get(), anomalies, "nothing fell");
}

#[test]
fn a_thousand_sleepers_are_all_discovered() {
    let script = "for ((i = 0; i < 1000; i++)); do sleep 600 & echo $!; done; echo; read";
    let mut shell = Shell::start(script, &[]);
    let pids: Vec<u32> = BufReader::new(shell.0.stdout.take().unwrap())
        .lines()
        .map_while(|line| line.unwrap().parse().ok())
        .collect();
    assert_eq!(pids.len(), 1000);
    let mut sampler = live_sampler();
    let batch = sampler.tick(false);
    for pid in pids {
        row_of(&sampler, &batch, pid);
    }
    sampler.profile.keep_all = false;
    let batch = sampler.tick(false);
    let counted: u32 = batch.processes.iter().map(|row| row.process_count).sum();
    assert_eq!(counted as usize, sampler.collector.table.len());
    assert!(row(&batch, InstanceId::RESIDUAL).process_count > 900);
}

#[test]
fn this_process_has_its_descriptors_and_its_memory() {
    let mut sampler = live_sampler();
    let batch = sampler.tick(false);
    let row = row_of(&sampler, &batch, std::process::id());
    if let Some(descriptors) = row.file_descriptor_count {
        let listed = fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(listed.abs_diff(descriptors as usize) < 16, "{listed} {descriptors}");
    }
    assert!(row.memory_usage_bytes.unwrap() > 1 << 20);
    assert!(row.thread_count.unwrap() >= 2);
    let kthreadd = row_of(&sampler, &batch, 2);
    assert_eq!((kthreadd.memory_usage_bytes, kthreadd.disk_read_bytes), (Some(0), None));
    assert_eq!(command_line(&sampler, &batch, 2), "[kthreadd]");
}

#[test]
fn an_iterator_that_fails_once_costs_no_counter() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut setup = setup(Path::new("/"));
    setup.bpf = Arc::new(crate::bpf::Bpf::load(crate::bpf::OBJECTS));
    let mut sampler =
        Sampler { collector: Processes::new(&setup), seconds: 0, profile: keep_all() };
    sampler.tick(false);
    let mut shell =
        Shell::start("while read; do for ((i = 0; i < 300000; i++)); do :; done; times; done", &[]);
    let mut rows = Vec::new();
    let mut said = String::new();
    for is_broken in [false, true, false, false] {
        sampler.collector.bpf = if is_broken {
            Arc::new(crate::bpf::Bpf::none(crate::bpf::OBJECTS, "gone"))
        } else {
            Arc::clone(&setup.bpf)
        };
        shell.tell();
        said = shell.line();
        shell.line();
        let batch = sampler.tick(false);
        assert_eq!(batch.tier, Some(if is_broken { Tier::B } else { Tier::A }));
        rows.push(row_of(&sampler, &batch, shell.pid()));
    }
    let cpu: u64 =
        rows.iter().map(|row| row.cpu_user_us.unwrap() + row.cpu_system_us.unwrap()).sum();
    // As `0m1.234s 0m0.012s`.
    let truth: u64 = said
        .split(' ')
        .map(|time| {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
            let (seconds, milliseconds) = seconds.split_once('.').unwrap();
            let parse = |text: &str| text.parse::<u64>().unwrap();
            parse(minutes) * 60_000_000 + parse(seconds) * 1_000_000 + parse(milliseconds) * 1000
        })
        .sum();
    assert!(cpu.abs_diff(truth) * 50 <= truth, "{cpu} µs of {truth} µs");
    assert_eq!(rows[1].run_queue_delay_us, None);
    assert!(rows[3].run_queue_delay_us.is_some());
}
