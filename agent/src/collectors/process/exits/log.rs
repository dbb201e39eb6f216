//! What began to run and what ended since the last tick, bounded.
//!
//! **Command lines** are kept from exec to exit, each text once. A process that only forked runs what
//! its parent runs, if it still has its name. What began before the agent did has none here.
//!
//! **Exits** are kept one by one up to [`MAX_SAME`] of a kind (command line, parent, cgroup) and
//! [`MAX_EXITS`] in all; what used much CPU has no limit of its kind. Beyond that they are added to
//! the fold of their kind, of which there are [`MAX_FOLDS`]; the kinds beyond share one. So every exit
//! is counted, whatever the storm. Who began before the last tick is never folded: it may have a row,
//! and its CPU up to then is counted already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::tasks::KERNEL_THREAD;
use crate::bpf::records::{self, Comm, Used};
use crate::metrics::{EXITS_SHED, PROGRAMS_FORGOTTEN};

/// Live processes whose command lines are kept.
const MAX_PROGRAMS: usize = 65_536;
/// Bytes of different command lines kept.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Exits kept one by one in one interval.
pub(super) const MAX_EXITS: usize = 1024;
/// Of these, of one kind.
pub(super) const MAX_SAME: u32 = 16;
/// Exits in one interval of processes that began before it.
const MAX_OLD: usize = 65_536;
/// Kinds folded in one interval.
pub(super) const MAX_FOLDS: usize = 1024;
/// CPU that makes an exit one of its own, ns.
const MUCH_NS: u64 = 50_000_000;

/// A command line as the kernel holds it, arguments NUL-terminated.
pub(super) type Line = Arc<[u8]>;

/// Which cgroup, as far as the source of the event tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// It does not.
    #[default]
    Unknown,
    /// By its number in the unified hierarchy.
    Number(u64),
    /// By its path.
    Path(Arc<str>),
}

impl Group {
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Unknown | Self::Path(_) => None,
        }
    }
}

/// Whose event.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) pid: u32,
    /// Start, ns since boot, time asleep included.
    pub(super) start_ns: u64,
    /// Moment, on the same clock.
    pub(super) at_ns: u64,
    pub(super) parent_pid: Option<u32>,
    /// Effective user.
    pub(super) user_id: Option<u32>,
    pub(super) group: Group,
    /// Empty: unknown.
    pub(super) comm: Comm,
}

/// What a process used from its start to its end, all threads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) used: Used,
    pub(super) peak_pages: Option<u64>,
    /// I/O is known.
    pub(super) has_io: bool,
    /// The run-queue delay is known.
    pub(super) has_delay: bool,
    /// Faults and switches are known.
    pub(super) has_counts: bool,
}

/// One exit, whoever told it.
#[derive(Clone, Debug, Default)]
pub(super) struct Exit {
    /// `at_ns` is when its last thread ended.
    pub(super) of: Life,
    /// As wait(2) gives it.
    pub(super) status: Option<u32>,
    pub(super) is_kernel_thread: bool,
    pub(super) totals: Option<Totals>,
    /// `start_ns` is not when it began.
    pub(super) is_start_unknown: bool,
}

/// One process that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// What it ran last, if it was seen to begin that.
    pub(super) line: Option<Line>,
}

/// What is folded together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) line: Option<Line>,
    pub(super) comm: Comm,
    pub(super) parent_pid: Option<u32>,
    pub(super) group: Group,
}

/// Exits of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fold {
    pub(super) count: u32,
    /// `None`: not known of all.
    pub(super) failed: Option<u32>,
    pub(super) user_id: Option<u32>,
    /// `None`: not known of all.
    pub(super) lifetime_ns: Option<u64>,
    /// `None`: not known of all.
    pub(super) totals: Option<Totals>,
}

/// An interval's exits.
#[derive(Debug, Default)]
pub(super) struct Interval {
    pub(super) ended: Vec<Ended>,
    /// `None`: the kinds beyond the limit.
    pub(super) folds: HashMap<Option<Kind>, Fold>,
}

#[derive(Debug)]
struct Program {
    start_ns: u64,
    parent_pid: Option<u32>,
    group: Group,
    comm: Comm,
    line: Line,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: HashSet<Line>,
    line_bytes: usize,
    programs: HashMap<u32, Program>,
    interval: Interval,
    same: HashMap<Kind, u32>,
    old: usize,
    /// Who began before this may have a row.
    since_ns: u64,
}

impl Log {
    /// What happened since the last call. Who began before `since_ns` may have a row by now.
    pub(super) fn interval(&mut self, since_ns: u64) -> Interval {
        self.same.clear();
        self.old = 0;
        self.since_ns = since_ns;
        let interval = std::mem::take(&mut self.interval);
        let (mut bytes, mut kept) = (0, HashSet::new());
        // One that nobody but this set holds is of no use any more.
        for line in self.lines.drain().filter(|line| Arc::strong_count(line) > 1) {
            bytes += line.len();
            kept.insert(line);
        }
        (self.lines, self.line_bytes) = (kept, bytes);
        interval
    }

    /// The start of what `pid` was seen to execute, ns since boot.
    pub(super) fn start_of(&self, pid: u32) -> Option<u64> {
        self.programs.get(&pid).map(|program| program.start_ns)
    }

    /// `of` began to run `line`.
    pub(super) fn began(&mut self, of: Life, line: &[u8]) {
        let pid = of.pid;
        let Some(line) = self.intern(line) else {
            self.programs.remove(&pid);
            PROGRAMS_FORGOTTEN.add(1);
            return;
        };
        let Life { start_ns, parent_pid, group, comm, .. } = of;
        let program = Program { start_ns, parent_pid, group, comm, line };
        if self.programs.len() < MAX_PROGRAMS || self.programs.contains_key(&pid) {
            self.programs.insert(pid, program);
        } else {
            PROGRAMS_FORGOTTEN.add(1);
        }
    }

    fn intern(&mut self, line: &[u8]) -> Option<Line> {
        if let Some(known) = self.lines.get(line) {
            return Some(Arc::clone(known));
        }
        if self.line_bytes + line.len() > MAX_LINE_BYTES {
            return None;
        }
        self.line_bytes += line.len();
        let line: Line = line.into();
        self.lines.insert(Arc::clone(&line));
        Some(line)
    }

    /// A process ended.
    pub(super) fn ended(&mut self, mut exit: Exit) {
        let of = &mut exit.of;
        // The number may be another's by now: what that began stays.
        let is_own = self.programs.get(&of.pid).is_some_and(|it| it.start_ns == of.start_ns);
        let own = if is_own { self.programs.remove(&of.pid) } else { None };
        let line = if let Some(program) = own {
            of.parent_pid = program.parent_pid.or(of.parent_pid);
            if of.group == Group::Unknown {
                of.group = program.group;
            }
            Some(program.line)
        } else {
            let parent = of.parent_pid.and_then(|parent| self.programs.get(&parent));
            let same = parent.filter(|parent| parent.comm == of.comm);
            same.map(|parent| Arc::clone(&parent.line))
        };
        if of.start_ns < self.since_ns {
            self.old += 1;
            if self.old > MAX_OLD {
                EXITS_SHED.add(1);
            } else {
                self.interval.ended.push(Ended { exit, line });
            }
            return;
        }
        let (comm, parent_pid, group) = (of.comm, of.parent_pid, of.group.clone());
        let kind = Kind { line, comm, parent_pid, group };
        let same = self.same.get(&kind).copied().unwrap_or(0);
        let runtime_ns = exit.totals.map_or(0, |totals| totals.used.runtime_ns);
        let is_one = same < MAX_SAME || runtime_ns >= MUCH_NS;
        if is_one && self.interval.ended.len() - self.old < MAX_EXITS {
            self.same.insert(kind.clone(), same + 1);
            self.interval.ended.push(Ended { exit, line: kind.line });
            return;
        }
        let folds = &mut self.interval.folds;
        let kind =
            (folds.len() < MAX_FOLDS || folds.contains_key(&Some(kind.clone()))).then_some(kind);
        folds.entry(kind).or_default().add(&exit);
    }
}

impl Exit {
    /// From its start to its end.
    pub(super) fn lifetime_ns(&self) -> Option<u64> {
        let lifetime = self.of.at_ns.saturating_sub(self.of.start_ns);
        (!self.is_start_unknown).then_some(lifetime)
    }
}

impl Totals {
    /// Both together; known is what is known of both.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let peaks = self.peak_pages.zip(other.peak_pages);
        Self {
            used: self.used.plus(&other.used),
            peak_pages: peaks.map(|(one, other)| one.max(other)),
            has_io: self.has_io && other.has_io,
            has_delay: self.has_delay && other.has_delay,
            has_counts: self.has_counts && other.has_counts,
        }
    }
}

impl Fold {
    fn add(&mut self, exit: &Exit) {
        let failed = exit.status.map(|status| u32::from(status != 0));
        let lifetime = exit.lifetime_ns();
        if self.count == 0 {
            (self.user_id, self.failed, self.totals) = (exit.of.user_id, failed, exit.totals);
            self.lifetime_ns = lifetime;
        } else {
            let both = self.failed.zip(failed);
            self.failed = both.map(|(all, failed)| all.saturating_add(failed));
            let both = self.totals.zip(exit.totals);
            self.totals = both.map(|(all, one)| all.plus(&one));
            let both = self.lifetime_ns.zip(lifetime);
            self.lifetime_ns = both.map(|(all, one)| all.saturating_add(one));
        }
        self.count = self.count.saturating_add(1);
    }
}

impl From<&records::Subject> for Life {
    fn from(of: &records::Subject) -> Self {
        Self {
            pid: of.pid,
            start_ns: of.start_ns,
            at_ns: of.at_ns,
            parent_pid: Some(of.parent_pid),
            user_id: Some(of.user_id),
            group: Group::Number(of.cgroup),
            comm: of.comm,
        }
    }
}

impl From<&records::Exit> for Exit {
    fn from(exit: &records::Exit) -> Self {
        let totals = Totals {
            used: exit.used,
            peak_pages: Some(exit.peak_pages),
            has_io: exit.has_io,
            has_delay: true,
            has_counts: true,
        };
        Self {
            of: Life::from(&exit.of),
            status: Some(exit.status),
            is_kernel_thread: exit.flags & KERNEL_THREAD != 0,
            totals: Some(totals),
            is_start_unknown: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(pid: u32, comm: [u8; 2]) -> Life {
        let mut name = [0; 16];
        name[..2].copy_from_slice(&comm);
        let start_ns = 1000 + u64::from(pid);
        let parent_pid = Some(1);
        Life { pid, parent_pid, start_ns, at_ns: 5000, comm: Comm(name), ..Life::default() }
    }

    fn exit(of: Life, runtime_ns: u64) -> Exit {
        let used = Used { runtime_ns, ..Used::default() };
        let totals = Some(Totals { used, ..Totals::default() });
        Exit { of, status: Some(0), totals, ..Exit::default() }
    }

    #[test]
    fn storms_are_folded_and_counted() {
        let mut log = Log::default();
        for pid in 10..1010 {
            let of = life(pid, *b"ls");
            log.began(of.clone(), b"ls\0-l\0");
            log.ended(exit(of, if pid == 900 { MUCH_NS } else { 10 }));
        }
        let interval = log.interval(9999);
        assert_eq!(interval.ended.len(), MAX_SAME as usize + 1, "one used much");
        let (kind, fold) = interval.folds.iter().next().unwrap();
        assert_eq!(kind.as_ref().unwrap().line.as_deref(), Some(&b"ls\0-l\0"[..]));
        let used = fold.totals.unwrap().used;
        assert_eq!((fold.count, used.runtime_ns), (1000 - 17, (1000 - 17) * 10));
        assert_eq!(fold.failed, Some(0));
        assert_eq!(log.interval(9999).ended.len(), 0);
        drop(interval);
        log.interval(9999);
        assert!(log.lines.is_empty() && log.programs.is_empty() && log.line_bytes == 0);
    }

    #[test]
    fn a_sum_with_an_unknown_part_is_unknown() {
        let mut log = Log::default();
        for pid in 0..100 {
            let known = exit(life(pid, *b"ls"), 10);
            log.ended(if pid == 50 { Exit { totals: None, status: None, ..known } } else { known });
        }
        let interval = log.interval(9999);
        let fold = interval.folds.values().next().unwrap();
        assert_eq!(fold.count, 100 - MAX_SAME);
        assert!(fold.totals.is_none() && fold.failed.is_none());
    }

    #[test]
    fn kinds_beyond_the_limit_share_one_fold() {
        let mut log = Log::default();
        let all = MAX_EXITS + MAX_FOLDS + 10;
        for pid in 0..u32::try_from(all).unwrap() {
            let of = Life { group: Group::Number(pid.into()), ..life(pid, *b"ls") };
            log.ended(exit(of, 1));
        }
        let interval = log.interval(9999);
        assert_eq!((interval.ended.len(), interval.folds.len()), (MAX_EXITS, MAX_FOLDS + 1));
        assert_eq!(interval.folds[&None].count, 10);
    }

    #[test]
    fn who_began_before_is_never_folded() {
        let mut log = Log::default();
        log.interval(9999);
        for pid in 0..100 {
            log.ended(exit(life(pid, *b"ls"), 1));
        }
        assert_eq!(log.interval(9999).ended.len(), 100);
    }

    #[test]
    fn a_fork_runs_what_its_parent_runs() {
        let mut log = Log::default();
        log.began(life(7, *b"sh"), b"sh\0-c\0x\0");
        let child = |pid, comm| Life { parent_pid: Some(7), ..life(pid, comm) };
        log.ended(exit(child(8, *b"sh"), 1));
        log.ended(exit(child(9, *b"cc"), 1));
        log.ended(exit(Life { start_ns: 77, ..life(7, *b"sh") }, 1));
        log.ended(exit(life(7, *b"sh"), 1));
        let lines: Vec<_> =
            log.interval(0).ended.into_iter().map(|ended| ended.line.is_some()).collect();
        assert_eq!(lines, [true, false, false, true], "another name, another start: not the same");
    }
}
