//! One look at every process: who is there, who is new, who is gone.

use std::time::Duration;

use super::files::{Files, Kept, Reading};
use super::live::{Live, Totals};
use super::source::Source;
use super::{Processes, tasks};
use crate::bpf::{BpfError, records};
use crate::causes::chain;
use crate::collectors::{CollectError, Tick};
use crate::metrics::BPF_ITERATORS_FAILED;
use crate::procfs::ProcfsError;
use crate::procfs::boot::parse_uptime;

/// When a walk began.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    pub(super) number: u64,
    /// Clock ticks since boot: what start times compare with.
    pub(super) uptime_ticks: u64,
    pub(super) monotonic: Duration,
}

impl Processes {
    /// Samples every process into `rows`, whose process ids are then `pids`.
    pub(super) fn walk(&mut self, tick: &Tick, files: &mut Files) -> Result<(), CollectError> {
        let before = self.previous;
        let walk = Walk {
            number: before.map_or(1, |before| before.number + 1),
            uptime_ticks: self.uptime_ticks()?,
            monotonic: tick.monotonic,
        };
        let kept = self.table.values().filter_map(|live| live.files.as_ref());
        files.begin(kept.map(Kept::count).sum());
        let ended = self.exits.waiting_entries();
        let entries = self.table.values_mut().map(|live| &mut live.entry).chain(ended);
        self.dictionary.hide(&tick.settings.redaction_patterns, entries);
        self.dictionary.begin(&mut self.table, tick.describe_all, tick.monotonic);
        self.ended.begin();
        self.rows.clear();
        self.fallback = None;
        match std::mem::replace(&mut self.source, Source::Proc(String::new())) {
            Source::Tasks(mut tasks) => {
                let read = self.walk_tasks(walk, &mut tasks);
                self.source = Source::Tasks(tasks);
                if let Err(error) = read {
                    self.fall_back(&error);
                    self.walk_proc(walk, files)?;
                }
            }
            proc @ Source::Proc(_) => {
                self.source = proc;
                self.walk_proc(walk, files)?;
            }
        }
        let gone: Vec<_> = self.table.extract_if(|_, live| live.seen != walk.number).collect();
        for (pid, live) in gone {
            self.gone(pid, live);
        }
        for (pid, live) in &self.table {
            self.ended.grew(*pid, live.reaped);
        }
        if matches!(self.source, Source::Proc(_)) || self.fallback.is_some() {
            self.add_swap(files, tick.monotonic);
        }
        self.interval = before.map(|before| walk.monotonic.saturating_sub(before.monotonic));
        if before.is_none() {
            self.first_ticks = walk.uptime_ticks;
        }
        self.previous = Some(walk);
        Ok(())
    }

    /// One pass of the iterator.
    fn walk_tasks(
        &mut self,
        walk: Walk,
        tasks: &mut Vec<records::Process>,
    ) -> Result<(), BpfError> {
        self.pids.clear();
        tasks::read(&self.bpf, tasks)?;
        self.is_exact =
            tasks.iter().all(|process| process.thread.is_exact || process.thread.pages.is_none());
        for process in tasks {
            let reading = tasks::reading(process, self.units.ticks_per_second);
            self.take(process.thread.tgid, walk, &reading, None);
            self.newest_ns = self.newest_ns.max(process.start_ns);
            self.pids.push(process.thread.tgid);
        }
        Ok(())
    }

    /// The iterator failed: `/proc` for this tick.
    fn fall_back(&mut self, error: &BpfError) {
        BPF_ITERATORS_FAILED.add(1);
        if !self.fallback_logged {
            self.fallback_logged = true;
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "processes are read from /proc where the BPF iterator fails");
        }
        self.fallback = Some(chain(error));
        self.is_exact = true;
    }

    /// One walk of `/proc`.
    fn walk_proc(&mut self, walk: Walk, files: &mut Files) -> Result<(), CollectError> {
        let mut pids = std::mem::take(&mut self.pids);
        files.list(&mut pids)?;
        let mut failure = None;
        pids.retain(|&pid| match self.read(pid, walk, files) {
            Ok(seen) => seen,
            Err(error) => {
                failure.get_or_insert(error);
                false
            }
        });
        self.pids = pids;
        // One process that cannot be read is not the end of the others.
        match failure.filter(|_| self.rows.is_empty()) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Samples one process. False: it is gone.
    fn read(&mut self, pid: u32, walk: Walk, files: &mut Files) -> Result<bool, ProcfsError> {
        let mut known = self.table.get_mut(&pid);
        let mut kept = known.as_mut().and_then(|live| live.files.take());
        let Some(mut reading) = files.read(pid, &mut kept)? else { return Ok(false) };
        // Into the unit of the iterator, if this is instead of it.
        let scale = self.units.cpu_per_second / self.units.ticks_per_second;
        let stat = &mut reading.stat;
        stat.user_ticks = stat.user_ticks.saturating_mul(scale);
        stat.system_ticks = stat.system_ticks.saturating_mul(scale);
        stat.children_user_ticks = stat.children_user_ticks.saturating_mul(scale);
        stat.children_system_ticks = stat.children_system_ticks.saturating_mul(scale);
        self.newest_ns = self.newest_ns.max(self.units.nanoseconds(stat.start_ticks + 1));
        self.take(pid, walk, &reading, kept);
        Ok(true)
    }

    /// An instance is not there any more.
    fn gone(&mut self, pid: u32, live: Live) {
        self.ended.gone(pid, &live);
        if self.exits.is_watching() && !live.has_ended {
            self.exits.vanished(pid, live);
        } else {
            self.dictionary.forget(&live.entry);
        }
    }

    /// Makes the row of a process out of what was read of it.
    fn take(&mut self, pid: u32, walk: Walk, reading: &Reading<'_>, kept: Option<Kept>) {
        let stat = &reading.stat;
        let is_known =
            self.table.get(&pid).is_some_and(|live| live.start_ticks == stat.start_ticks);
        if !is_known {
            let is_born =
                self.previous.is_some_and(|before| stat.start_ticks >= before.uptime_ticks);
            let totals = is_born.then_some(Totals::BIRTH);
            let new = Live::new(self.boot_id, pid, stat, totals);
            if let Some(reused) = self.table.insert(pid, new) {
                self.gone(pid, reused);
            }
        }
        if let Some(live) = self.table.get_mut(&pid) {
            live.seen = walk.number;
            live.files = kept;
            self.rows.push(live.update(reading, self.units));
        }
    }

    fn uptime_ticks(&mut self) -> Result<u64, ProcfsError> {
        let path = self.root.proc.join("uptime");
        let file = self.reader.read(&path)?;
        let uptime = parse_uptime(file).map_err(|error| error.of(path))?;
        Ok(in_ticks(uptime, self.units.ticks_per_second))
    }
}

/// Whole clock ticks of a time since boot.
pub(super) fn in_ticks(uptime: Duration, ticks_per_second: u64) -> u64 {
    let part = u64::from(uptime.subsec_millis()) * ticks_per_second / 1000;
    uptime.as_secs().saturating_mul(ticks_per_second).saturating_add(part)
}
