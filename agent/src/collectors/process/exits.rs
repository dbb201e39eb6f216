//! Processes that ended: from the kernel's events to the report.
//!
//! A thread drains the ring of events as soon as it fills ([`watch`]); between ticks everything waits,
//! bounded, in a [`log::Log`]. At a tick, after the pass over all processes, [`Exits::settle`] takes the
//! interval's exits and says what CPU they used that no row has said yet; [`Exits::report`] then
//! describes them.
//!
//! **Rows add up.** An exit comes with the totals of a life; what earlier rows of the instance said is
//! taken off. A process that was seen before and is not there any more, but whose exit has not come
//! (the kernel tells it a moment after the process can no longer be seen), is remembered for
//! [`MAX_WAITS`] ticks.
//!
//! An exit is told when the process is gone: ended **and waited for**. A zombie still is a process,
//! with rows. `exit_time` is when its last thread ended.

mod log;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use shared_model::{
    ExitFold, FieldSource, InstanceDefinition, InstanceId, ProcessDefinition, ProcessExit,
    ProcessId, ProcessSample, Tier, Timestamp,
};
use uuid::Uuid;

use self::log::{Ended, Fold, Interval, Kind};
use self::watch::Watch;
use super::cgroups::Cgroups;
use super::command_line::{executable_name, without_cut_url};
use super::dictionary::{Dictionary, Table};
use super::ended::Cpu;
use super::live::{Live, Units};
use super::tasks::{KERNEL_THREAD, start_ticks};
use crate::bpf::Bpf;
use crate::bpf::records::{Comm, Used};
use crate::collectors::{Batch, Setup};
use crate::metrics::EXITS_MISSED;
use crate::procfs::cgroup::{parse_cgroup, systemd_unit};

/// Ticks for which a process that vanished waits for its exit.
const MAX_WAITS: u32 = 4;
/// How often what runs is described again: the server forgets what nobody describes.
const DESCRIBE_EVERY: Duration = Duration::from_hours(6);
/// Processes remembered as described, beyond those that live.
const MAX_DESCRIBED: usize = 4096;
/// Arguments that the kernel's event holds, bytes: one that is as long was cut.
const CUT_LINE_BYTES: usize = 4096;

/// What turns the kernel's times into the report's, and what the tick asks for.
pub(super) struct Clock {
    /// Wall clock at the tick.
    pub(super) sampled_at: Timestamp,
    /// Time since boot at the tick.
    pub(super) uptime: Duration,
    /// Wall clock at the boot.
    pub(super) booted_at: Timestamp,
    /// Describe everything again: the server may have missed it.
    pub(super) describe_all: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Exits {
    boot_id: Uuid,
    units: Units,
    bpf: Arc<Bpf>,
    watch: Option<Watch>,
    /// Vanished, and for how many ticks.
    waiting: HashMap<(u32, u64), (Live, u32)>,
    interval: Interval,
    described: HashSet<ProcessId>,
    /// Time since boot when `described` was empty.
    described_since: Duration,
    cgroups: Cgroups,
}

impl Exits {
    pub(super) fn new(setup: &Setup, units: Units) -> Self {
        Self {
            boot_id: setup.boot_id,
            units,
            bpf: Arc::clone(&setup.bpf),
            watch: Watch::start(&setup.bpf),
            waiting: HashMap::new(),
            interval: Interval::default(),
            described: HashSet::new(),
            described_since: Duration::ZERO,
            cgroups: Cgroups::new(&setup.root.sys),
        }
    }

    /// Where exits come from, for the report.
    pub(super) fn source(&self) -> FieldSource {
        let bpf = &self.bpf;
        // Without the last one the short-lived have no command lines.
        let programs = ["tasks", "freed", "executed"];
        let refused = programs.into_iter().find_map(|program| bpf.refusal(program));
        FieldSource {
            fields: "exits".to_owned(),
            tier: self.is_watching().then_some(Tier::A),
            reason: refused.map(str::to_owned),
        }
    }

    /// Whether exits are told here.
    pub(super) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// An instance was not seen any more.
    pub(super) fn vanished(&mut self, pid: u32, live: Live) {
        self.waiting.insert((pid, live.start_ticks), (live, 0));
    }

    /// Takes the exits since the last call. What CPU they used that no row has said; `since_ns` is after
    /// the start of every process with a row.
    pub(super) fn settle(&mut self, table: &mut Table, since_ns: u64) -> Cpu {
        let Some(watch) = &mut self.watch else { return Cpu::default() };
        let (interval, lost_ns) = watch.interval(since_ns);
        let mut sum = Cpu { user_ticks: lost_ns / 1000, system_ticks: 0 };
        for ended in &interval.ended {
            let key = self.units.key(ended);
            let live = match table.get_mut(&key.0).filter(|live| live.start_ticks == key.1) {
                Some(live) => {
                    live.has_ended = true;
                    Some(&*live)
                }
                None => self.waiting.get(&key).map(|(live, _)| live),
            };
            let before = live.map_or_else(Cpu::default, Live::cpu);
            sum = sum.plus(cpu_of(&ended.exit.used, before).minus(before));
        }
        for fold in interval.folds.values() {
            sum = sum.plus(cpu_of(&fold.used, Cpu::default()));
        }
        self.interval = interval;
        sum
    }

    /// Forgets the interval: it began before anybody looked.
    pub(super) fn forget(&mut self) {
        self.interval = Interval::default();
    }

    /// Puts the exits into `batch`, with what the server may not know of them.
    pub(super) fn report(
        &mut self,
        table: &Table,
        dictionary: &mut Dictionary,
        clock: &Clock,
        batch: &mut Batch,
    ) {
        let is_old = clock.uptime.saturating_sub(self.described_since) >= DESCRIBE_EVERY;
        if clock.describe_all || is_old || self.described.len() > MAX_DESCRIBED {
            self.described.clear();
            self.described_since = clock.uptime;
        }
        let interval = std::mem::take(&mut self.interval);
        if !interval.ended.is_empty() || !interval.folds.is_empty() {
            dictionary.refresh_owners();
            let cgroups = interval.ended.iter().map(|ended| ended.exit.of.cgroup);
            let folded = interval.folds.keys().flatten().map(|kind| kind.cgroup);
            self.cgroups.find(cgroups.chain(folded));
            let mut report = Describing {
                defined: HashMap::new(),
                in_batch: batch.process_definitions.iter().map(|it| it.process_id).collect(),
                dictionary,
                exits: self,
                clock,
                batch,
            };
            for ended in &interval.ended {
                report.exit(ended, table);
            }
            for (kind, fold) in &interval.folds {
                report.fold(kind.as_ref(), fold, table);
            }
        }
        for ended in &interval.ended {
            if let Some((live, _)) = self.waiting.remove(&self.units.key(ended)) {
                dictionary.forget(&live.entry);
            }
        }
        self.waiting.retain(|_, (live, ticks)| {
            *ticks += 1;
            if *ticks > MAX_WAITS {
                EXITS_MISSED.add(1);
                dictionary.forget(&live.entry);
            }
            *ticks <= MAX_WAITS
        });
    }
}

impl Units {
    fn key(self, ended: &Ended) -> (u32, u64) {
        let of = &ended.exit.of;
        (of.pid, start_ticks(of.start_ns, self.ticks_per_second))
    }
}

/// User and system CPU of a life, µs; neither below what was said `before`.
fn cpu_of(used: &Used, before: Cpu) -> Cpu {
    let sampled = Cpu { user_ticks: used.user_ns / 1000, system_ticks: used.system_ns / 1000 };
    sampled.scaled(used.runtime_ns / 1000, before)
}

/// What a process runs that only forked: what its parent does, if it has its name.
fn inherited(table: &Table, parent_pid: u32, comm: Comm) -> Option<ProcessDefinition> {
    let parent = table.get(&parent_pid).filter(|parent| *parent.comm == *comm.bytes())?;
    Dictionary::known(parent).0.cloned()
}

/// One report's descriptions.
struct Describing<'a> {
    /// What was defined from a line and a name already.
    defined: HashMap<(Option<log::Line>, Comm), ProcessId>,
    in_batch: HashSet<ProcessId>,
    dictionary: &'a Dictionary,
    exits: &'a mut Exits,
    clock: &'a Clock,
    batch: &'a mut Batch,
}

impl Describing<'_> {
    fn exit(&mut self, ended: &Ended, table: &Table) {
        let exit = &ended.exit;
        let key = self.exits.units.key(ended);
        let instance_id = InstanceId::of(self.exits.boot_id, key.0, key.1);
        let live = table.get(&key.0).filter(|live| live.start_ticks == key.1);
        let live = live.or_else(|| self.exits.waiting.get(&key).map(|(live, _)| live));
        let (known, is_described) = live.map_or((None, false), Dictionary::known);
        let known = match (known, &ended.line) {
            (None, None) => inherited(table, ended.parent_pid, exit.of.comm),
            (known, _) => known.cloned(),
        };
        let process_id = match known {
            Some(definition) => self.define(definition),
            None => self.process(ended.line.as_ref(), exit.of.comm, exit.flags),
        };
        if !is_described {
            let definition = self.instance(ended, instance_id, process_id);
            self.batch.instance_definitions.push(definition);
        }
        let (signal, code) = (exit.status & 0x7f, exit.status >> 8 & 0xff);
        let age = self.clock.uptime.saturating_sub(Duration::from_nanos(exit.of.at_ns));
        self.batch.exits.push(ProcessExit {
            instance_id,
            process_id,
            exit_time: self.clock.sampled_at - age,
            lifetime_us: Some(exit.of.at_ns.saturating_sub(exit.of.start_ns) / 1000),
            exit_code: (signal == 0).then_some(code),
            exit_signal: (signal != 0).then_some(signal),
            totals: ProcessSample {
                instance_id,
                process_count: 1,
                ..self.totals(&exit.used, exit.peak_pages, exit.has_io)
            },
        });
    }

    fn fold(&mut self, kind: Option<&Kind>, fold: &Fold, table: &Table) {
        let process_id = kind.map(|kind| {
            let known = match kind.line {
                None => inherited(table, kind.parent_pid, kind.comm),
                Some(_) => None,
            };
            match known {
                Some(definition) => self.define(definition),
                None => self.process(kind.line.as_ref(), kind.comm, 0),
            }
        });
        self.batch.exit_folds.push(ExitFold {
            process_id,
            parent_pid: kind.map(|kind| kind.parent_pid),
            user_id: kind.map(|_| fold.user_id),
            cgroup: kind.and_then(|kind| self.exits.cgroups.path(kind.cgroup)).map(str::to_owned),
            failed_count: Some(fold.failed),
            lifetime_us: Some(fold.lifetime_ns / 1000),
            totals: ProcessSample {
                process_count: fold.count,
                ..self.totals(&fold.used, fold.peak_pages, fold.has_io)
            },
        });
    }

    fn totals(&self, used: &Used, peak_pages: u64, has_io: bool) -> ProcessSample {
        let cpu = cpu_of(used, Cpu::default());
        let written = used.write_bytes.saturating_sub(used.cancelled_write_bytes);
        ProcessSample {
            cpu_user_us: Some(cpu.user_ticks),
            cpu_system_us: Some(cpu.system_ticks),
            memory_usage_bytes: Some(peak_pages.saturating_mul(self.exits.units.page_bytes)),
            disk_read_bytes: has_io.then_some(used.read_bytes),
            disk_write_bytes: has_io.then_some(written),
            run_queue_delay_us: Some(used.run_delay_ns / 1000),
            paging_faults_minor: Some(used.faults_minor),
            paging_faults_major: Some(used.faults_major),
            context_switches_voluntary: Some(used.switches_voluntary),
            context_switches_involuntary: Some(used.switches_involuntary),
            ..ProcessSample::default()
        }
    }

    /// What runs the arguments `line` under the name `comm`.
    fn process(&mut self, line: Option<&log::Line>, comm: Comm, flags: u32) -> ProcessId {
        let key = (line.cloned(), comm);
        if let Some(&known) = self.defined.get(&key) {
            return known;
        }
        let raw = line.map_or(&[][..], |line| {
            if line.len() == CUT_LINE_BYTES { without_cut_url(line) } else { line }
        });
        let is_kernel_thread = flags & KERNEL_THREAD != 0;
        let definition = self.dictionary.define(raw, comm.bytes(), is_kernel_thread);
        let process_id = self.define(definition);
        self.defined.insert(key, process_id);
        process_id
    }

    /// Puts `definition` into the report unless the server was told before.
    fn define(&mut self, definition: ProcessDefinition) -> ProcessId {
        let process_id = definition.process_id;
        let is_known = self.dictionary.is_described(process_id)
            || self.exits.described.contains(&process_id)
            || self.in_batch.contains(&process_id);
        if !is_known {
            self.in_batch.insert(process_id);
            self.exits.described.insert(process_id);
            self.batch.process_definitions.push(definition);
        }
        process_id
    }

    fn instance(
        &self,
        ended: &Ended,
        instance_id: InstanceId,
        process_id: ProcessId,
    ) -> InstanceDefinition {
        let of = &ended.exit.of;
        let start = self.exits.units.key(ended).1;
        let path = self.exits.cgroups.path(of.cgroup);
        let entry = path.map(|path| format!("0::{path}\n"));
        let cgroup = entry.as_deref().and_then(|entry| parse_cgroup(entry.as_bytes()));
        InstanceDefinition {
            instance_id,
            process_id,
            pid: of.pid,
            parent_pid: Some(ended.parent_pid),
            start_ticks: start,
            creation_time: self.clock.booted_at
                + super::from_ticks(start, self.exits.units.ticks_per_second),
            user_id: Some(of.user_id),
            owner: self.dictionary.owner(of.user_id).map(str::to_owned),
            executable_name: Some(executable_name(
                of.comm.bytes(),
                ended.exit.flags & KERNEL_THREAD != 0,
            )),
            executable_path: None,
            cgroup: path.map(str::to_owned),
            systemd_unit: path.and_then(systemd_unit).map(str::to_owned),
            container_id: cgroup.as_ref().and_then(|it| it.container_id).map(str::to_owned),
            pod_uid: cgroup.as_ref().and_then(|it| it.pod_uid.clone()),
            service_ports: None,
        }
    }
}
