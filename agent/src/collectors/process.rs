//! Processes: one walk of `/proc` per tick.
//!
//! 1. **Walk**: `stat`, `statm` and `io` of every process ([`files`]), differences against what each
//!    instance counted before ([`live`]). An instance is (boot, pid, start time); one that is seen for
//!    the first time and was born since the walk before counts from its birth, any other from its next
//!    sample. What ends between two steps is no error.
//!    What those who ended used since then goes to the residual ([`ended`]): only so do rows add up to
//!    the host where many processes live for less than an interval.
//!    What each moved over the network is joined to its row ([`network`], [`crate::sockets`]).
//! 2. **Select** what gets a row of its own; the rest is summed ([`selection`]). Patterns match the
//!    redacted command line, so with patterns every new instance's is read first.
//! 3. **Complete the kept rows** with what is too costly for all: open descriptors, fresh swap.
//! 4. **Describe** what the server may not know ([`dictionary`], [`details`]).
//!
//! Unknown here, in tier B: run-queue delay and context switches. `/proc/<pid>/status` and
//! `schedstat` count the first thread only, which is wrong for every process with more; the sum of the
//! live threads falls when one ends. Descriptors are counted for kept rows only (the residual's are
//! null). **Swap**: while the host has none in use, 0 for all and no file read; else `status` of kept rows in every
//! tick and of the others now and then ([`swap`]).
//!
//! Without the right to read other users' `io` their disk fields are null; if that is most of them
//! the run is tier C.

mod cgroups;
pub mod command_line;
mod details;
mod dictionary;
mod ended;
pub mod exits;
mod files;
mod live;
mod network;
mod owners;
pub mod redaction;
mod selection;
mod source;
mod swap;
mod tasks;
pub mod titles;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use shared_model::{FieldSource, ProcessSample, Tier};
use uuid::Uuid;

use self::dictionary::{Dictionary, Table};
use self::ended::Ended;
use self::exits::{Clock, Exits};
use self::files::Files;
use self::live::Units;
use self::network::Lifetimes;
use self::source::Source;
use self::walk::Walk;
use super::{Batch, CollectError, Collector, Setup, Tick};
use crate::bpf::Bpf;
use crate::procfs::boot::parse_btime;
use crate::procfs::{Reader, Root};
use crate::profile::Profile;
use crate::sockets::Sockets;

/// Processes without a row whose command lines are read ahead, for their exit: so many per second of the
/// interval, and in one tick. Reading one costs as much as counting ten.
const DETAILS_AHEAD_PER_SECOND: u64 = 8;
const MAX_DETAILS_AHEAD: u64 = 256;

/// Builds the collector.
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(Processes::new(setup))
}

struct Processes {
    root: Root,
    boot_id: Uuid,
    bpf: Arc<Bpf>,
    units: Units,
    source: Source,
    files: Option<Files>,
    reader: Reader,
    table: Table,
    dictionary: Dictionary,
    ended: Ended,
    sockets: Sockets,
    lifetimes: Lifetimes,
    exits: Exits,
    previous: Option<Walk>,
    /// Between the last two walks.
    interval: Option<Duration>,
    /// Samples of this tick, and whose.
    rows: Vec<ProcessSample>,
    pids: Vec<u32>,
    denial_logged: bool,
    /// Why the iterator was not read in this tick.
    fallback: Option<String>,
    fallback_logged: bool,
    /// The memory of the rows lacks no CPU's share.
    is_exact: bool,
    /// Start of the youngest process seen, ns since boot.
    newest_ns: u64,
    /// Clock ticks since boot at the first walk.
    first_ticks: u64,
}

impl Processes {
    fn new(setup: &Setup) -> Self {
        let source = Source::of(&setup.bpf);
        let units = Units {
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            cpu_per_second: source.cpu_per_second(),
            page_bytes: rustix::param::page_size() as u64,
        };
        Self {
            root: setup.root.clone(),
            boot_id: setup.boot_id,
            bpf: Arc::clone(&setup.bpf),
            units,
            source,
            files: None,
            reader: Reader::default(),
            table: Table::new(),
            dictionary: Dictionary::new(setup),
            ended: Ended::default(),
            lifetimes: Lifetimes::default(),
            sockets: Sockets::new(&setup.root, &setup.bpf, setup.boot_id),
            exits: Exits::new(setup, units),
            previous: None,
            interval: None,
            rows: Vec::new(),
            pids: Vec::new(),
            denial_logged: false,
            fallback: None,
            fallback_logged: false,
            is_exact: true,
            newest_ns: 0,
            first_ticks: 0,
        }
    }
}

impl Collector for Processes {
    fn collect(&mut self, tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let mut files = match self.files.take() {
            Some(files) => files,
            None => Files::open(&self.root.proc)?,
        };
        self.walk(tick, &mut files)?;
        let (ended, disk) = self.use_of_ended();
        let rows = (&mut self.rows[..], &self.pids[..]);
        let network = network::read(&mut self.sockets, rows, tick, self.interval);
        self.lifetimes.add(&network, &self.rows);
        if network.by_instance.is_some() || !network.listening.is_empty() {
            Dictionary::listen(&mut self.table, &network.listening);
        }
        self.name_source(&files, batch);
        let kept = self.select(&tick.settings.profile);
        self.complete(&mut files, &kept, tick.monotonic);
        self.files = Some(files);
        let owners = network::owners(&network);
        let named = self.rows.iter().map(|row| owners.contains(&row.instance_id));
        let described: Vec<bool> =
            kept.iter().zip(named).map(|(kept, named)| *kept || named).collect();
        self.describe(tick, &described, batch)?;
        let sockets = &self.sockets;
        self.lifetimes.complete(&mut batch.exits, &self.rows, |bytes| sockets.of_life(bytes));
        batch.host.processes_total = u32::try_from(self.rows.len()).ok();
        let left_over = self.rows.iter().zip(&kept).filter(|(_, kept)| !**kept).map(|(row, _)| row);
        let mut residual = selection::residual(left_over, ended);
        network::add_ended(&mut residual, network.of_ended());
        selection::add_disk(&mut residual, disk);
        batch.processes.extend(residual);
        network::deliver(network, batch);
        batch
            .processes
            .extend(self.rows.drain(..).zip(kept).filter(|(_, kept)| *kept).map(|(row, _)| row));
        Ok(())
    }
}

impl Processes {
    /// User and system CPU, µs, of processes that ended since the walk before, `None` if there was none; and what
    /// they read and wrote, where exits tell it.
    fn use_of_ended(&mut self) -> (Option<(u64, u64)>, exits::Disk) {
        let mut told = exits::Told::default();
        if let Some(walk) = self.previous {
            let (at_ticks, newest_ns) = (walk.uptime_ticks, self.newest_ns);
            let seen = exits::Seen { walk: walk.number, at_ticks, newest_ns };
            told = self.exits.settle(&mut self.table, seen);
            if self.interval.is_none() {
                self.exits.forget();
            }
        }
        let Some(interval) = self.interval else { return (None, exits::Disk::default()) };
        if self.exits.is_exact() {
            return (Some((told.cpu.user_ticks, told.cpu.system_ticks)), told.disk);
        }
        (Some(self.cpu_of_unseen(interval)), told.disk)
    }

    /// User and system CPU, µs, of processes that ended in the interval, by who waited for them.
    fn cpu_of_unseen(&mut self, interval: Duration) -> (u64, u64) {
        let units = self.units;
        let path = self.root.sys.join("devices/system/cpu/online");
        let cpus = self.reader.read(&path).ok().and_then(ended::count_cpus);
        let all = cpus.and_then(|cpus| interval.checked_mul(u32::try_from(cpus).ok()?));
        let of =
            |row: &ProcessSample| row.cpu_user_us.unwrap_or(0) + row.cpu_system_us.unwrap_or(0);
        let rows = Duration::from_micros(self.rows.iter().map(of).sum());
        let limit = all.map_or(u64::MAX, |all| units.ticks(all.saturating_sub(rows)));
        let ended = self.ended.balance(&self.table, limit);
        (units.microseconds(ended.user_ticks), units.microseconds(ended.system_ticks))
    }

    /// Says where this run's data came from.
    fn name_source(&mut self, files: &Files, batch: &mut Batch) {
        let reason = match &self.source {
            Source::Tasks(_) => self.fallback.clone(),
            Source::Proc(reason) => Some(reason.clone()),
        };
        let tier = match reason {
            None => Tier::A,
            Some(_) => self.proc_tier(files).unwrap_or(Tier::B),
        };
        batch.tier = Some(tier);
        let fields = "processes".to_owned();
        batch.sources.push(FieldSource { fields, tier: Some(tier), reason });
        batch.sources.push(self.exits.source());
        batch.sources.extend(self.sockets.sources());
    }

    fn proc_tier(&mut self, files: &Files) -> Option<Tier> {
        if files.io_denied > 0 && !self.denial_logged {
            self.denial_logged = true;
            tracing::info!(
                denied = files.io_denied,
                asked = files.io_asked,
                "the disk I/O of some processes may not be read; it stays unknown"
            );
        }
        (files.io_denied * 2 > files.io_asked).then_some(Tier::C)
    }

    /// Whether each row is kept.
    fn select(&mut self, profile: &Profile) -> Vec<bool> {
        let patterns = &profile.always_keep;
        self.dictionary.set_patterns(&mut self.table, patterns);
        let mut matches = Vec::new();
        if !patterns.is_empty() {
            self.dictionary.read_details(&mut self.table, self.pids.iter().copied());
            matches.extend(self.pids.iter().map(|pid| {
                self.table.get_mut(pid).is_some_and(|live| Dictionary::matches(live, patterns))
            }));
        }
        let is_match = |row: usize| matches.get(row).is_some_and(|matches| *matches);
        selection::select(&self.rows, is_match, profile, self.interval)
    }

    /// Reads what only kept rows are worth.
    fn complete(&mut self, files: &mut Files, kept: &[bool], now: Duration) {
        let rows = self.rows.iter_mut().zip(&self.pids).zip(kept);
        for ((row, pid), _) in rows.filter(|(_, kept)| **kept) {
            if row.file_descriptor_count.is_none() {
                row.file_descriptor_count = files.count_descriptors(*pid);
            }
            if !self.is_exact {
                let pages = files.read_resident(*pid);
                let bytes = pages.map(|pages| pages.saturating_mul(self.units.page_bytes));
                row.memory_usage_bytes = bytes.or(row.memory_usage_bytes);
            }
            let Some(live) = self.table.get_mut(pid) else { continue };
            if live.swap.is_some_and(|(_, at)| at < now) {
                live.swap = files.read_swap(*pid).map(|bytes| (bytes, now)).or(live.swap);
                row.memory_swap_bytes = live.swap.map(|(bytes, _)| bytes);
            }
        }
    }

    /// Describes the marked rows, and what is due again.
    fn describe(
        &mut self,
        tick: &Tick,
        marked: &[bool],
        batch: &mut Batch,
    ) -> Result<(), CollectError> {
        let wanted = self.pids.iter().zip(marked).filter(|(_, is)| **is).map(|(pid, _)| *pid);
        Dictionary::want(&mut self.table, wanted);
        let mut due = Dictionary::wanted(&self.table);
        if self.exits.is_watching() {
            // What began before the programs were there has no command line when its exit is told.
            let ahead = self.interval.map_or(0, |interval| {
                let ahead = interval.as_secs() * DETAILS_AHEAD_PER_SECOND;
                ahead.clamp(DETAILS_AHEAD_PER_SECOND, MAX_DETAILS_AHEAD)
            });
            due.extend(Dictionary::unread(&self.table, self.first_ticks, ahead));
        }
        self.dictionary.read_details(&mut self.table, due.into_iter());
        if !Dictionary::is_due(&self.table) && !self.exits.is_watching() {
            return Ok(());
        }
        let path = self.root.proc.join("stat");
        let booted_at = parse_btime(self.reader.read(&path)?).map_err(|error| error.of(path))?;
        let booted_at = booted_at + tick.clock_offset;
        let ticks_per_second = self.units.ticks_per_second;
        let since_boot = |ticks: u64| from_ticks(ticks, ticks_per_second);
        let started_at = |ticks: u64| booted_at + since_boot(ticks);
        self.dictionary.describe(&mut self.table, batch, tick.monotonic, started_at);
        let uptime = since_boot(self.previous.map_or(0, |walk| walk.uptime_ticks));
        let clock = Clock {
            sampled_at: tick.sampled_at,
            uptime,
            booted_at,
            describe_all: tick.describe_all,
        };
        self.exits.report(&self.table, &mut self.dictionary, &clock, batch);
        Ok(())
    }
}

fn from_ticks(ticks: u64, ticks_per_second: u64) -> Duration {
    Duration::from_secs(ticks / ticks_per_second)
        + Duration::from_secs(1) * u32::try_from(ticks % ticks_per_second).unwrap_or(0)
            / u32::try_from(ticks_per_second).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
