//! Processes that ended: from the kernel's events to the report.
//!
//! A thread takes the events as they come ([`watch`] from BPF programs, tier A; [`listener`] from netlink, tier B);
//! between ticks everything waits, bounded, in a [`log::Log`]. At a tick, after the pass over all
//! processes, [`Exits::settle`] takes the interval's exits and says what CPU they used that no row has said
//! yet; [`Exits::report`] then describes them ([`describing`]).
//!
//! **Rows add up.** An exit comes with the totals of a life; what earlier rows of the instance said is
//! taken off. A process that was seen before and is not there any more, but whose exit has not come
//! (the kernel tells it a moment after the process can no longer be seen), is remembered for
//! [`MAX_WAIT`]. On tier B the residual is what parents waited for ([`super::ended`]), as without exits.
//!
//! An exit is told when the process is gone: ended **and waited for**. A zombie still is a process,
//! with rows. `exit_time` is when its last thread ended.

pub mod connector;
mod describing;
mod listener;
mod log;
pub mod taskstats;
mod threads;
mod watch;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared_model::{FieldSource, ProcessId, Tier, Timestamp};
use uuid::Uuid;

use self::describing::Describing;
use self::listener::Listener;
use self::log::{Ended, Interval, Totals};
use self::watch::Watch;
use super::cgroups::Cgroups;
use super::dictionary::{Dictionary, Entry, Table};
use super::ended::Cpu;
use super::live::{Live, Units};
use super::selection;
use super::tasks::start_ticks;
use crate::bpf::Bpf;
use crate::bpf::records::Used;
use crate::collectors::{Batch, Setup};
use crate::metrics::EXITS_MISSED;
use crate::procfs::pid::Io;

/// How long, and for how many ticks at least, a process that vanished waits for its exit.
const MAX_WAIT: Duration = Duration::from_secs(4);
const MIN_WAITS: u32 = 4;
/// How often what runs is described again: the server forgets what nobody describes.
const DESCRIBE_EVERY: Duration = Duration::from_hours(6);
/// Processes remembered as described, beyond those that live.
const MAX_DESCRIBED: usize = 4096;
/// How much later than `/proc` says a process may seem to have begun, ns: its end takes as long as giving back its memory.
const MAX_LATE_NS: u64 = 2_000_000_000;
/// The same of one that began just before a tick and had a row.
const JUST_NS: u64 = 50_000_000;

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

/// What tells exits.
#[derive(Debug)]
enum Source {
    /// Nothing, and why.
    Nothing(String),
    Traced(Watch),
    /// And why not the other.
    Heard(Listener, String),
}

/// A walk over all processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Its number, see [`Live::seen`].
    pub(super) walk: u64,
    /// When it began, clock ticks since boot.
    pub(super) at_ticks: u64,
    /// Start of the youngest process seen, ns since boot, where that is known exactly.
    pub(super) newest_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Exits {
    boot_id: Uuid,
    units: Units,
    bpf: Arc<Bpf>,
    source: Source,
    /// Vanished, and for how many ticks, and since which time since boot.
    waiting: HashMap<(u32, u64), (Live, u32, Duration)>,
    interval: Interval,
    /// Ended, but still there: nobody waited for them yet.
    held: Vec<Ended>,
    described: HashSet<ProcessId>,
    /// Time since boot when `described` was empty.
    described_since: Duration,
    cgroups: Cgroups,
}

/// What those who ended used that no row has said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) cpu: Cpu,
    pub(super) disk: Disk,
}

/// Bytes read and written; `None`: nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) read_bytes: Option<u64>,
    pub(super) write_bytes: Option<u64>,
}

impl Disk {
    /// Adds one life less what was seen of it `before`.
    fn add(&mut self, totals: &Totals, before: Option<Io>) {
        let Some(before) = before.filter(|_| totals.has_io) else { return };
        let used = &totals.used;
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        let written = grown(used.write_bytes, before.write_bytes);
        let cancelled = grown(used.cancelled_write_bytes, before.cancelled_write_bytes);
        selection::add(&mut self.read_bytes, Some(grown(used.read_bytes, before.read_bytes)));
        selection::add(&mut self.write_bytes, Some(written.saturating_sub(cancelled)));
    }
}

impl Exits {
    pub(super) fn new(setup: &Setup, units: Units) -> Self {
        Self {
            boot_id: setup.boot_id,
            units,
            bpf: Arc::clone(&setup.bpf),
            source: Source::open(setup, units),
            waiting: HashMap::new(),
            interval: Interval::default(),
            held: Vec::new(),
            described: HashSet::new(),
            described_since: Duration::ZERO,
            cgroups: Cgroups::new(&setup.root.sys),
        }
    }

    /// Where exits come from, for the report.
    pub(super) fn source(&self) -> FieldSource {
        let (tier, reason) = match &self.source {
            Source::Nothing(reason) => (None, Some(reason.clone())),
            // Without it the short-lived have no command lines.
            Source::Traced(_) => (Some(Tier::A), self.bpf.refusal("executed").map(str::to_owned)),
            Source::Heard(_, reason) => (Some(Tier::B), Some(reason.clone())),
        };
        FieldSource { fields: "exits".to_owned(), tier, reason }
    }

    /// Whether exits are told here.
    pub(super) fn is_watching(&self) -> bool {
        !matches!(self.source, Source::Nothing(_))
    }

    /// Whether what exits used and what rows say add up.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self.source, Source::Traced(_))
    }

    /// An instance was not seen any more.
    pub(super) fn vanished(&mut self, pid: u32, live: Live) {
        self.waiting.insert((pid, live.start_ticks), (live, 0, Duration::ZERO));
    }

    /// Takes the exits since the last call, made after the walk `seen`. What they used that no row has said.
    pub(super) fn settle(&mut self, table: &mut Table, seen: Seen) -> Told {
        let walked_ns = self.units.nanoseconds(seen.at_ticks);
        let units = self.units;
        let is_there = |pid: u32, start_ns: u64| {
            let start_ticks = start_ticks(start_ns, units.ticks_per_second);
            let live = table.get(&pid).filter(|live| live.start_ticks == start_ticks);
            live.is_some_and(|live| live.seen == seen.walk)
        };
        let (mut interval, lost_ns) = match &mut self.source {
            Source::Nothing(_) => return Told::default(),
            Source::Traced(watch) => watch.interval(seen.newest_ns + 1, walked_ns, is_there),
            Source::Heard(listener, _) => (listener.interval(walked_ns + JUST_NS), 0),
        };
        if !self.is_exact() {
            let mut taken: HashSet<_> = self.held.iter().map(|it| self.units.key(it)).collect();
            for ended in &mut interval.ended {
                let live = self.recognise(ended, table, seen.walk, walked_ns);
                let key = live.map(|live| (ended.exit.of.pid, live.start_ticks));
                // One instance ends once; the number may have been used again.
                if let Some(key) = key.filter(|key| taken.insert(*key)) {
                    ended.exit.of.start_ns = self.units.nanoseconds(key.1);
                    ended.exit.is_start_unknown = false;
                }
            }
            interval.ended.splice(..0, self.held.drain(..));
            let is_held = |ended: &mut Ended| is_there(ended.exit.of.pid, ended.exit.of.start_ns);
            self.held = interval.ended.extract_if(.., is_held).collect();
        }
        let mut sum = Cpu { user_ticks: lost_ns / 1000, system_ticks: 0 };
        let mut disk = Disk::default();
        for ended in &interval.ended {
            let key = self.units.key(ended);
            let live = match table.get_mut(&key.0).filter(|live| live.start_ticks == key.1) {
                Some(live) => {
                    live.has_ended = true;
                    Some(&*live)
                }
                None => self.waiting.get(&key).map(|(live, ..)| live),
            };
            let before = live.map_or_else(Cpu::default, Live::cpu);
            if let Some(totals) = &ended.exit.totals {
                sum = sum.plus(cpu_of(&totals.used, before).minus(before));
                // What nobody saw counts from its birth.
                disk.add(totals, live.map_or_else(|| Some(Io::default()), Live::io));
            }
        }
        for totals in interval.folds.values().filter_map(|fold| fold.totals) {
            sum = sum.plus(cpu_of(&totals.used, Cpu::default()));
            disk.add(&totals, Some(Io::default()));
        }
        self.interval = interval;
        Told { cpu: sum, disk }
    }

    /// What was found to run of instances that vanished and whose exit was not told yet.
    pub(super) fn waiting_entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.waiting.values_mut().map(|(live, ..)| &mut live.entry)
    }

    /// The instance that an exit is of whose start was calculated, if one was seen.
    fn recognise<'a>(
        &'a self,
        ended: &Ended,
        table: &'a Table,
        walk: u64,
        walked_ns: u64,
    ) -> Option<&'a Live> {
        let (pid, at_ns) = (ended.exit.of.pid, ended.exit.of.at_ns);
        let (began_ns, is_unknown) = (ended.exit.of.start_ns, ended.exit.is_start_unknown);
        let is_it = |live: &Live| {
            let start_ns = self.units.nanoseconds(live.start_ticks);
            let tick_ns = self.units.nanoseconds(2);
            let is_near = (start_ns.saturating_sub(tick_ns)..=start_ns + MAX_LATE_NS + tick_ns)
                .contains(&began_ns);
            // One that was alive at the walk did not end before it.
            let was_alive = live.seen == walk && at_ns + tick_ns < walked_ns;
            !live.has_ended && (is_unknown || is_near) && !was_alive
        };
        let vanished =
            self.waiting.iter().filter(|(key, _)| key.0 == pid).map(|(_, (live, ..))| live);
        let candidates = vanished.chain(table.get(&pid)).filter(|live| is_it(live));
        candidates.min_by_key(|live| live.start_ticks)
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
            let groups = interval.ended.iter().map(|ended| &ended.exit.of.group);
            let folded = interval.folds.keys().flatten().map(|kind| &kind.group);
            self.cgroups.find(groups.chain(folded).filter_map(log::Group::number));
            let mut report = Describing::new(dictionary, self, clock, batch);
            for ended in &interval.ended {
                report.exit(ended, table);
            }
            for (kind, fold) in &interval.folds {
                report.fold(kind.as_ref(), fold, table);
            }
        }
        for ended in &interval.ended {
            if let Some((live, ..)) = self.waiting.remove(&self.units.key(ended)) {
                dictionary.forget(&live.entry);
            }
        }
        self.waiting.retain(|_, (live, ticks, since)| {
            *ticks += 1;
            if *since == Duration::ZERO {
                *since = clock.uptime;
            }
            let waits = *ticks <= MIN_WAITS || clock.uptime.saturating_sub(*since) <= MAX_WAIT;
            if !waits {
                EXITS_MISSED.add(1);
                dictionary.forget(&live.entry);
            }
            waits
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

impl Source {
    fn open(setup: &Setup, units: Units) -> Self {
        // Lives seen in another unit of CPU than their ends would not add up.
        let refused = ["freed", "tasks"].into_iter().find_map(|name| setup.bpf.refusal(name));
        let reason = match refused {
            None => match Watch::start(&setup.bpf) {
                Some(watch) => return Self::Traced(watch),
                None => "no thread for the events of BPF programs".to_owned(),
            },
            Some(reason) => reason.to_owned(),
        };
        if setup.root.proc != Path::new("/proc") {
            return Self::Nothing(reason);
        }
        match Listener::start(&setup.root.proc, &setup.root.sys, units) {
            Ok(listener) if listener.has_totals => Self::Heard(listener, reason),
            Ok(listener) => Self::Heard(listener, format!("{reason}; no taskstats: no totals")),
            Err(other) => {
                tracing::info!(reason = other, "the ends of processes stay unknown");
                Self::Nothing(format!("{reason}; {other}"))
            }
        }
    }
}
