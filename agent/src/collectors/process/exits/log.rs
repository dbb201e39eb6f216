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

use crate::bpf::records::{Comm, Event, Exit, Subject, Used};
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

/// One process that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// What it ran last, if it was seen to begin that.
    pub(super) line: Option<Line>,
    /// Its parent when it began that, else at its end.
    pub(super) parent_pid: u32,
}

/// What is folded together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) line: Option<Line>,
    pub(super) comm: Comm,
    pub(super) parent_pid: u32,
    pub(super) cgroup: u64,
}

/// Exits of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fold {
    pub(super) count: u32,
    pub(super) failed: u32,
    pub(super) user_id: u32,
    pub(super) lifetime_ns: u64,
    pub(super) peak_pages: u64,
    pub(super) has_io: bool,
    pub(super) used: Used,
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
    parent_pid: u32,
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
    /// An event of the kernel.
    pub(super) fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Exec(exec) => self.began(&exec.of, exec.line),
            Event::Exit(exit) => self.ended(exit),
        }
    }

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

    fn began(&mut self, of: &Subject, line: &[u8]) {
        let Some(line) = self.intern(line) else {
            self.programs.remove(&of.pid);
            PROGRAMS_FORGOTTEN.add(1);
            return;
        };
        let parent_pid = of.parent_pid;
        let program = Program { start_ns: of.start_ns, parent_pid, comm: of.comm, line };
        if self.programs.len() < MAX_PROGRAMS || self.programs.contains_key(&of.pid) {
            self.programs.insert(of.pid, program);
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

    fn ended(&mut self, exit: Exit) {
        let of = &exit.of;
        let own = self.programs.remove(&of.pid).filter(|program| program.start_ns == of.start_ns);
        let (line, parent_pid) = if let Some(program) = own {
            (Some(program.line), program.parent_pid)
        } else {
            let parent = self.programs.get(&of.parent_pid);
            let same = parent.filter(|parent| parent.comm == of.comm);
            (same.map(|parent| Arc::clone(&parent.line)), of.parent_pid)
        };
        if of.start_ns < self.since_ns {
            self.old += 1;
            if self.old > MAX_OLD {
                EXITS_SHED.add(1);
            } else {
                self.interval.ended.push(Ended { exit, line, parent_pid });
            }
            return;
        }
        let kind = Kind { line, comm: of.comm, parent_pid, cgroup: of.cgroup };
        let same = self.same.get(&kind).copied().unwrap_or(0);
        let is_one = same < MAX_SAME || exit.used.runtime_ns >= MUCH_NS;
        if is_one && self.interval.ended.len() - self.old < MAX_EXITS {
            self.same.insert(kind.clone(), same + 1);
            self.interval.ended.push(Ended { exit, line: kind.line, parent_pid });
            return;
        }
        let folds = &mut self.interval.folds;
        let kind =
            (folds.len() < MAX_FOLDS || folds.contains_key(&Some(kind.clone()))).then_some(kind);
        folds.entry(kind).or_default().add(&exit);
    }
}

impl Fold {
    fn add(&mut self, exit: &Exit) {
        if self.count == 0 {
            (self.user_id, self.has_io) = (exit.of.user_id, true);
        }
        self.count = self.count.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(exit.status != 0));
        let lifetime = exit.of.at_ns.saturating_sub(exit.of.start_ns);
        self.lifetime_ns = self.lifetime_ns.saturating_add(lifetime);
        self.peak_pages = self.peak_pages.max(exit.peak_pages);
        self.has_io &= exit.has_io;
        self.used = self.used.plus(&exit.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::records::Exec;

    fn subject(pid: u32, comm: [u8; 2]) -> Subject {
        let mut name = [0; 16];
        name[..2].copy_from_slice(&comm);
        let start_ns = 1000 + u64::from(pid);
        Subject {
            pid,
            parent_pid: 1,
            start_ns,
            at_ns: 5000,
            comm: Comm(name),
            ..Subject::default()
        }
    }

    fn exit(of: Subject, runtime_ns: u64) -> Event<'static> {
        let used = Used { runtime_ns, ..Used::default() };
        Event::Exit(Exit { of, status: 0, flags: 0, peak_pages: 3, has_io: true, used })
    }

    #[test]
    fn storms_are_folded_and_counted() {
        let mut log = Log::default();
        for pid in 10..1010 {
            let of = subject(pid, *b"ls");
            log.take(Event::Exec(Exec { of, line: b"ls\0-l\0" }));
            log.take(exit(of, if pid == 900 { MUCH_NS } else { 10 }));
        }
        let interval = log.interval(9999);
        assert_eq!(interval.ended.len(), MAX_SAME as usize + 1, "one used much");
        let (kind, fold) = interval.folds.iter().next().unwrap();
        assert_eq!(kind.as_ref().unwrap().line.as_deref(), Some(&b"ls\0-l\0"[..]));
        assert_eq!((fold.count, fold.used.runtime_ns), (1000 - 17, (1000 - 17) * 10));
        assert_eq!(log.interval(9999).ended.len(), 0);
        drop(interval);
        log.interval(9999);
        assert!(log.lines.is_empty() && log.programs.is_empty() && log.line_bytes == 0);
    }

    #[test]
    fn kinds_beyond_the_limit_share_one_fold() {
        let mut log = Log::default();
        let all = MAX_EXITS + MAX_FOLDS + 10;
        for pid in 0..u32::try_from(all).unwrap() {
            let of = Subject { cgroup: pid.into(), ..subject(pid, *b"ls") };
            log.take(exit(of, 1));
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
            log.take(exit(subject(pid, *b"ls"), 1));
        }
        assert_eq!(log.interval(9999).ended.len(), 100);
    }

    #[test]
    fn a_fork_runs_what_its_parent_runs() {
        let mut log = Log::default();
        let parent = subject(7, *b"sh");
        log.take(Event::Exec(Exec { of: parent, line: b"sh\0-c\0x\0" }));
        log.take(exit(Subject { parent_pid: 7, ..subject(8, *b"sh") }, 1));
        log.take(exit(Subject { parent_pid: 7, ..subject(9, *b"cc") }, 1));
        let reused = Subject { start_ns: 77, ..subject(7, *b"sh") };
        log.take(exit(reused, 1));
        let lines: Vec<_> =
            log.interval(0).ended.into_iter().map(|ended| ended.line.is_some()).collect();
        assert_eq!(lines, [true, false, false], "another name, another start: not the same");
    }
}
