//! Lives and ends of processes against ground truth: control groups, the clock of a process's CPU, and the
//! states that this file puts processes into.
//!
//! As root, on a kernel with BPF where the test is of tier A.

mod reuse;
mod states;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::agent::{Agent, Moment};
use agent::config::Config;
use agent::procfs::Root;
use agent::spool::SpoolStats;
use rustix::time::{ClockId, clock_gettime};
use shared_model::{FieldSource, ProcessExit, ProcessId, ProcessSample, Report, Tier, Timestamp};
use uuid::Uuid;

use crate::support::wait_for;

/// `[collect] tier`.
const TIERS: [&str; 2] = ["auto", "proc"];

/// An agent without a server, and everything it ever said.
struct Sampler {
    agent: Agent,
    started: Instant,
    reports: Vec<Report>,
    command_lines: HashMap<ProcessId, String>,
}

impl Sampler {
    fn start(config: &str) -> Self {
        let config = Config::parse(config).unwrap();
        let mut agent = Agent::new(Root::system(), &config, Uuid::nil()).unwrap();
        let started = Instant::now();
        agent.baseline(&moment(started, false));
        let mut sampler =
            Self { agent, started, reports: Vec::new(), command_lines: HashMap::new() };
        // On a busy machine the first looks may be late, and are thrown away.
        wait_for("processes with deltas", || {
            let rows = &sampler.tick().processes;
            rows.iter().any(|row| row.cpu_user_us.is_some()).then_some(())
        });
        sampler
    }

    /// One more report, valid by the protocol's rules.
    fn tick(&mut self) -> &Report {
        let report = wait_for("an interval long enough", || {
            // The baseline described everything to nobody.
            let moment = moment(self.started, self.reports.is_empty());
            self.agent.tick(&moment, &SpoolStats::default())
        });
        let mut record = report.clone();
        record.sequence = 1;
        shared_model::Record::Report(Box::new(record)).validate().unwrap();
        for definition in &report.process_definitions {
            self.command_lines.insert(definition.process_id, definition.command_line.clone());
        }
        self.reports.push(report);
        self.reports.last().unwrap()
    }

    fn source(&self, fields: &str) -> FieldSource {
        let sources = &self.reports.last().unwrap().agent.sources;
        sources.iter().find(|source| source.fields == fields).unwrap().clone()
    }

    fn loss(&self, place: &str) -> u64 {
        self.reports.last().unwrap().agent.losses.get(place).copied().unwrap_or(0)
    }

    /// The newest command line of `pid`.
    fn command_line(&self, pid: u32) -> Option<&str> {
        let definitions = self.reports.iter().rev().flat_map(|it| &it.instance_definitions);
        let definition = definitions.into_iter().find(|definition| definition.pid == pid)?;
        self.command_lines.get(&definition.process_id).map(String::as_str)
    }

    /// How many exits were told of children of `parent`, and their CPU, µs.
    fn exits_by_parent(&self, parent: u32) -> (u64, u64) {
        let definitions = self.reports.iter().flat_map(|it| &it.instance_definitions);
        let children: HashSet<_> = definitions
            .filter(|it| it.parent_pid == Some(parent))
            .map(|it| it.instance_id)
            .collect();
        let exits = self.reports.iter().flat_map(|it| &it.exits);
        let exits = exits.filter(|it| children.contains(&it.instance_id)).map(|it| &it.totals);
        let folds = self.reports.iter().flat_map(|it| &it.exit_folds);
        let folds = folds.filter(|it| it.parent_pid == Some(parent)).map(|it| &it.totals);
        exits.chain(folds).fold((0, 0), |(count, cpu), totals| {
            let used = totals.cpu_user_us.unwrap_or(0) + totals.cpu_system_us.unwrap_or(0);
            (count + u64::from(totals.process_count), cpu + used)
        })
    }

    /// Every exit of the number `pid`, in the order of the reports.
    fn exits_of_pid(&self, pid: u32) -> Vec<&ProcessExit> {
        let definitions = self.reports.iter().flat_map(|it| &it.instance_definitions);
        let ids: HashSet<_> =
            definitions.filter(|it| it.pid == pid).map(|it| it.instance_id).collect();
        let exits = self.reports.iter().flat_map(|it| &it.exits);
        exits.filter(|exit| ids.contains(&exit.instance_id)).collect()
    }

    /// What every exit told of `cgroup`: how many, and their CPU, µs, by command line.
    fn exits_of(&self, cgroup: &str) -> HashMap<String, (u64, u64)> {
        let mut sums: HashMap<String, (u64, u64)> = HashMap::new();
        let mut add = |process: ProcessId, totals: &ProcessSample| {
            let sum = sums.entry(self.command_lines[&process].clone()).or_default();
            sum.0 += u64::from(totals.process_count);
            sum.1 += totals.cpu_user_us.unwrap() + totals.cpu_system_us.unwrap();
        };
        let mut groups = HashMap::new();
        for report in &self.reports {
            for definition in &report.instance_definitions {
                groups.insert(definition.instance_id, definition.cgroup.clone());
            }
            for exit in &report.exits {
                if groups[&exit.instance_id].as_deref() == Some(cgroup) {
                    add(exit.process_id, &exit.totals);
                }
            }
            for fold in report.exit_folds.iter().filter(|it| it.cgroup.as_deref() == Some(cgroup)) {
                add(fold.process_id.unwrap(), &fold.totals);
            }
        }
        sums
    }
}

#[expect(clippy::disallowed_methods, reason = "the test is the loop that owns the clock")]
fn moment(started: Instant, describe_all: bool) -> Moment {
    Moment {
        clock_offset: time::Duration::ZERO,
        sampled_at: Timestamp::now_utc(),
        monotonic: started.elapsed(),
        at_most: Duration::from_secs(30),
        describe_all,
    }
}

/// A control group of this test's own in the unified hierarchy, whose `cpu.stat` is the truth.
struct Cgroup {
    directory: PathBuf,
    path: String,
}

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let mount = mounts.into_iter().find(|it| it.join("cgroup.procs").exists()).unwrap();
        let path = format!("/procfleet-{name}-{}", std::process::id());
        let directory = mount.join(&path[1..]);
        fs::create_dir(&directory).unwrap();
        Self { directory, path }
    }

    /// A shell in the group that becomes `script`.
    fn run(&self, script: &str) -> Running {
        let procs = self.directory.join("cgroup.procs");
        let script = format!("echo $$ > {}; {script}", procs.display());
        Running(Command::new("bash").args(["-c", &script]).spawn().unwrap())
    }

    /// CPU of all that ever ran in it, µs.
    fn cpu_us(&self) -> u64 {
        let stat = fs::read_to_string(self.directory.join("cpu.stat")).unwrap();
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_for("the group to be empty", || fs::remove_dir(&self.directory).ok());
    }
}

/// A child that ends with the test even if that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `part` is within `percent` of `whole`.
fn assert_close(part: u64, whole: u64, percent: u64, what: &str) {
    let difference = part.abs_diff(whole);
    assert!(difference * 100 <= whole * percent, "{what}: {part}, in truth {whole}");
}

#[test]
fn ten_thousand_short_lives_are_counted_with_their_cpu() {
    const LIVES: u64 = 10_000;
    let mut sampler = Sampler::start("");
    let group = Cgroup::new("storm");
    let mut shell = group.run(&format!("for ((i = 0; i < {LIVES}; i++)); do /bin/true; done"));
    assert!(shell.0.wait().unwrap().success());
    let truth = group.cpu_us();
    // The kernel lets go of the last ones a moment after they were waited for.
    let (lives, cpu, folded) = wait_for("the last exit", || {
        sampler.tick();
        let exits = sampler.exits_of(&group.path);
        let shell = exits.keys().any(|line| line.starts_with("bash -c"));
        let lives = exits.get("/bin/true").map_or(0, |(count, _)| *count);
        let is_all = lives + sampler.loss("exits_dropped") >= LIVES;
        let cpu: u64 = exits.values().map(|(_, cpu)| cpu).sum();
        let folds = sampler.reports.iter().flat_map(|report| &report.exit_folds);
        (shell && is_all).then(|| (lives, cpu, folds.count()))
    });
    let unfreed = sampler.loss("exits_unfreed");
    println!(
        "{lives} lives, {cpu} µs of {truth} µs, {folded} folds, {unfreed} not seen to be freed"
    );
    assert_eq!(sampler.source("exits").tier, Some(Tier::A));
    assert_eq!(lives + sampler.loss("exits_dropped"), LIVES, "none twice");
    assert!(folded >= 1, "a storm is folded");
    let one_by_one: usize = sampler.reports.iter().map(|report| report.exits.len()).sum();
    assert!(one_by_one < 5000, "{one_by_one} exits one by one");
    if sampler.loss("exits_dropped") == 0 {
        assert_close(cpu, truth, 5, "CPU of the group, µs");
    }
}

#[test]
fn a_short_life_between_two_ticks_has_its_command_line_and_cpu() {
    for tier in TIERS {
        let mut sampler = Sampler::start(&format!("[collect]\ntier = \"{tier}\""));
        let group = Cgroup::new(&format!("burner-{tier}"));
        let burn = "for ((i = 0; i < 100000; i++)); do :; done";
        let mut shell = group.run(&format!(
            "exec bash -c '{burn}; read -t 0.05 < /dev/zero; exit 3' --password=geheim"
        ));
        assert_eq!(shell.0.wait().unwrap().code(), Some(3));
        let (truth, pid) = (group.cpu_us(), shell.0.id());
        let found = wait_for("its exit", || {
            let exits = sampler.tick().exits.clone();
            let line = sampler.command_line(pid)?.to_owned();
            let exit = exits.into_iter().find(|exit| exit.exit_code == Some(3))?;
            Some((exit, line))
        });
        let (exit, line) = found;
        let cpu = exit.totals.cpu_user_us.unwrap() + exit.totals.cpu_system_us.unwrap();
        println!("{tier}: {cpu} µs of {truth} µs, lived {:?} µs", exit.lifetime_us);
        assert_close(cpu, truth, 10, "CPU, µs");
        assert!(exit.lifetime_us.unwrap() >= cpu);
        assert!(line.starts_with("bash -c for ") && line.contains("--password="), "{line}");
        assert!(!line.contains("geheim"), "{line}");
        assert_eq!(exit.exit_signal, None);
    }
}

/// The rows of an interval and its exits stand for the same CPU as the host's counters.
#[test]
fn rows_add_up_to_the_host_through_a_storm() {
    let mut sampler = Sampler::start("");
    let script = "for ((i = 0; i < 300; i++)); do (for ((j = 0; j < 2000; j++)); do :; done); done";
    let mut shell = Running(Command::new("bash").args(["-c", script]).spawn().unwrap());
    while shell.0.try_wait().unwrap().is_none() {
        sampler.tick();
        std::thread::park_timeout(Duration::from_millis(300));
    }
    for _rest in 0..3 {
        sampler.tick();
    }
    let (mut host, mut rows) = (0, 0);
    for report in &sampler.reports {
        host += report.host.cpu_user_us.unwrap() + report.host.cpu_system_us.unwrap();
        for row in &report.processes {
            rows += row.cpu_user_us.unwrap_or(0) + row.cpu_system_us.unwrap_or(0);
        }
    }
    println!("host {host} µs, rows {rows} µs");
    assert_close(rows, host, 5, "CPU of all rows, µs");
}

/// Runs in a process of its own, started by the test below.
#[test]
#[ignore = "not a test: what another one measures"]
fn workload_of_a_hundred_threads() {
    let burn = |_| {
        let until = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        while until() < Duration::from_millis(30) {
            std::hint::black_box(0);
        }
    };
    let threads: Vec<_> = (0..100).map(|index| std::thread::spawn(move || burn(index))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    println!("used {}", used.as_micros());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn nothing_falls_when_a_hundred_threads_end_one_by_one() {
    for tier in TIERS {
        let mut sampler =
            Sampler::start(&format!("[collect]\ntier = \"{tier}\"\n[profile]\nkeep_all = true"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "lives::workload_of_a_hundred_threads"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map(Running)
            .unwrap();
        let output = BufReader::new(child.0.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let used = output.lines().map_while(Result::ok).find_map(|line| {
                line.split_once("used ").and_then(|(_, used)| used.trim().parse::<u64>().ok())
            });
            used.unwrap()
        });
        wait_for("its threads to end", || {
            sampler.tick();
            reader.is_finished().then_some(())
        });
        let truth = reader.join().unwrap();
        sampler.tick();
        let pid = child.0.id();
        let definitions = sampler.reports.iter().flat_map(|it| &it.instance_definitions);
        let id = definitions.into_iter().find(|it| it.pid == pid).unwrap().instance_id;
        let rows = sampler.reports.iter().flat_map(|report| &report.processes);
        let rows: Vec<_> = rows.filter(|row| row.instance_id == id).collect();
        let cpu: u64 =
            rows.iter().map(|row| row.cpu_user_us.unwrap() + row.cpu_system_us.unwrap()).sum();
        let most = rows.iter().map(|row| row.thread_count.unwrap()).max().unwrap();
        println!("{tier}: {cpu} µs of {truth} µs in {} rows, {most} threads", rows.len());
        assert!(rows.len() > 2 && most > 10, "the end of threads was seen");
        assert_close(cpu, truth, 2, "CPU, µs");
        let delay: Option<u64> = rows.iter().map(|row| row.run_queue_delay_us).sum();
        let switches: Option<u64> = rows.iter().map(|row| row.context_switches_involuntary).sum();
        let is_known = (delay.is_some_and(|it| it > 0), switches.is_some_and(|it| it > 0));
        assert_eq!(is_known, (tier == "auto", tier == "auto"), "{tier}: {delay:?} {switches:?}");
        drop(child);
        let exit = wait_for("its exit", || {
            sampler.tick();
            sampler.exits_of_pid(pid).first().map(|exit| (*exit).clone())
        });
        let cpu = exit.totals.cpu_user_us.unwrap() + exit.totals.cpu_system_us.unwrap();
        println!("{tier}: {cpu} µs at its exit");
        assert_close(cpu, truth, 5, "CPU of its life, µs");
        assert_eq!(exit.exit_signal, Some(9));
    }
}

/// Who lived for a moment is counted, but the kernel tells what it used before it gave its memory back.
#[test]
fn without_bpf_a_storm_is_counted_or_the_drops_are() {
    const LIVES: u64 = 10_000;
    let mut sampler = Sampler::start("[collect]\ntier = \"proc\"");
    let group = Cgroup::new("heard");
    let mut shell = group.run(&format!("for ((i = 0; i < {LIVES}; i++)); do /bin/true; done"));
    assert!(shell.0.wait().unwrap().success());
    let (truth, parent) = (group.cpu_us(), shell.0.id());
    let (lives, cpu) = wait_for("the last exit", || {
        sampler.tick();
        let children = sampler.exits_by_parent(parent);
        let shell = sampler.exits_of_pid(parent);
        let shell = &shell.first()?.totals;
        let shell = shell.cpu_user_us.unwrap() + shell.cpu_system_us.unwrap();
        let children = (children.0, children.1 + shell);
        let is_lost = ["exit_overruns", "exits_shed"].iter().any(|place| sampler.loss(place) > 0);
        (children.0 >= LIVES || is_lost).then_some(children)
    });
    println!("{lives} lives, {cpu} µs of {truth} µs");
    let source = sampler.source("exits");
    assert_eq!(
        (source.tier, source.reason),
        (Some(Tier::B), Some("collect.tier is proc".to_owned()))
    );
    assert_eq!(sampler.source("processes").tier, Some(Tier::B));
    assert!(lives <= LIVES, "none twice");
    assert!(cpu > 0 && cpu <= truth, "{cpu} µs of {truth} µs");
}
