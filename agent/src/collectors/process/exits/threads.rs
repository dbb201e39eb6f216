//! From the ends of threads to the end of their process, where the kernel tells only the first (tier B).
//!
//! A process ends with its last thread. Newer kernels mark it; older ones sum up the CPU of a process
//! that had several threads in the record of its last one, so what has no such sum and is the first
//! thread is all there was, unless `/proc` still shows others. Threads that end side by side tell it in any
//! order: a process is told [`REST_NS`] after its last thread.
//!
//! What threads used that ended before anybody listened is in no record. Of such a process only the CPU is known
//! (from the kernel's sum), the rest is not.

use std::collections::HashMap;

use super::log::{Exit, Group, Life, Totals};
use super::taskstats::Record;
use crate::metrics::EXITS_SHED;

/// How long the end of a process waits for threads that ended just before.
pub(super) const REST_NS: u64 = 20_000_000;
/// Processes with ended threads that are remembered.
const MAX_PROCESSES: usize = 16_384;

/// One thread's end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    pub(super) tid: u32,
    pub(super) pid: u32,
    /// Ns since boot.
    pub(super) at_ns: u64,
    /// As wait(2) gives it, if this thread decides.
    pub(super) status: u32,
    /// `None`: no totals came.
    pub(super) record: Option<Record>,
}

/// A process that lost threads.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Its first thread ended.
    has_first: bool,
    start_ns: Option<u64>,
    at_ns: u64,
    status: u32,
    /// What describes it best: the first thread's record, else the latest.
    record: Option<Record>,
    totals: Totals,
    group_runtime_ns: Option<u64>,
    /// How many threads ended, and how many of them without a record.
    threads: u32,
    unknown: u32,
    /// When its last thread's end was seen.
    died_ns: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Threads {
    pub(super) processes: HashMap<u32, Process>,
    /// When listening began.
    pub(super) since_ns: u64,
    pub(super) page_bytes: u64,
}

impl Threads {
    /// A thread ended. `has_others` looks whether a process still has more than one.
    pub(super) fn ended(&mut self, end: &End, has_others: impl Fn(u32) -> bool) -> Option<Exit> {
        let pid = end.pid;
        let is_first = end.tid == pid;
        // A second first thread: the number is another's.
        let is_reused =
            is_first && self.processes.get(&pid).is_some_and(|process| process.has_first);
        let before = if is_reused { self.finish(pid) } else { None };
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&pid) {
            EXITS_SHED.add(1);
            return before;
        }
        let process = self.processes.entry(pid).or_default();
        process.add(end, self.page_bytes);
        let is_last = match end.record {
            Some(Record { group: Some((_, is_last)), .. }) => is_last,
            Some(Record { group_runtime_ns: Some(_), .. }) => true,
            Some(_) => is_first && !has_others(pid),
            None => process.has_first && !has_others(pid),
        };
        if is_last {
            process.died_ns = Some(end.at_ns);
        }
        before
    }

    /// The processes whose last thread ended [`REST_NS`] before `now_ns`, in the order of their ends.
    pub(super) fn gone(&mut self, now_ns: u64) -> Vec<Exit> {
        let is_gone = |process: &Process| {
            // Single threads have nobody to wait for.
            let rest = if process.threads == 1 && process.group_runtime_ns.is_none() {
                process.record.is_none_or(|record| record.group.is_none())
            } else {
                true
            };
            process.died_ns.is_some_and(|died| !rest || now_ns.saturating_sub(died) >= REST_NS)
        };
        let gone: Vec<u32> =
            self.processes.iter().filter(|(_, it)| is_gone(it)).map(|(pid, _)| *pid).collect();
        let mut gone: Vec<Exit> = gone.into_iter().filter_map(|pid| self.finish(pid)).collect();
        gone.sort_by_key(|exit| exit.of.at_ns);
        gone
    }

    /// Ends were lost: forgets the processes that are not there any more.
    pub(super) fn forget(&mut self, is_there: impl Fn(u32) -> bool) {
        self.processes.retain(|pid, process| process.died_ns.is_some() || is_there(*pid));
    }

    fn finish(&mut self, pid: u32) -> Option<Exit> {
        let process = self.processes.remove(&pid)?;
        Some(process.exit(pid, self.since_ns))
    }
}

impl Process {
    fn add(&mut self, end: &End, page_bytes: u64) {
        let is_first = end.tid == end.pid;
        self.has_first |= is_first;
        self.threads += 1;
        self.at_ns = self.at_ns.max(end.at_ns);
        // The first thread's decides, unless all were ended together later.
        if self.status == 0 || is_first && end.status != 0 {
            self.status = end.status;
        }
        let Some(record) = end.record else {
            self.unknown += 1;
            return;
        };
        let totals = totals(&record, page_bytes);
        let both = |before: &Totals| totals.plus(before);
        self.totals = self.record.as_ref().map_or(totals, |_| both(&self.totals));
        if is_first {
            let elapsed = record.elapsed_us.saturating_mul(1000);
            self.start_ns = Some(end.at_ns.saturating_sub(elapsed));
        }
        if is_first || self.record.is_none() {
            self.record = Some(record);
        }
        self.group_runtime_ns = record.group_runtime_ns.max(self.group_runtime_ns);
    }

    fn exit(self, pid: u32, since_ns: u64) -> Exit {
        let mut totals = self.record.map(|_| self.totals).filter(|_| self.unknown == 0);
        let is_older = self.start_ns.is_none_or(|start| start < since_ns);
        if let Some(known) = &mut totals {
            let used = &mut known.used;
            used.runtime_ns = used.runtime_ns.max(self.group_runtime_ns.unwrap_or(0));
            // Some of its threads may have ended before anybody listened.
            if is_older && self.group_runtime_ns.is_some() {
                (known.has_io, known.has_counts, known.has_delay) = (false, false, false);
            }
        }
        let record = self.record;
        Exit {
            of: Life {
                pid,
                start_ns: self.start_ns.unwrap_or(self.at_ns),
                at_ns: self.at_ns,
                parent_pid: record.map(|record| record.parent_pid),
                user_id: record.map(|record| record.user_id),
                group: Group::Unknown,
                comm: record.map(|record| record.comm).unwrap_or_default(),
            },
            status: Some(self.status),
            is_kernel_thread: record.is_some_and(|record| record.peak_bytes == 0),
            totals,
            is_start_unknown: self.start_ns.is_none(),
        }
    }
}

fn totals(record: &Record, page_bytes: u64) -> Totals {
    Totals {
        used: record.used,
        peak_pages: Some(record.peak_bytes / page_bytes.max(1)),
        has_io: true,
        has_delay: record.has_delay,
        has_counts: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::records::Used;

    fn threads() -> Threads {
        Threads { page_bytes: 4096, ..Threads::default() }
    }

    /// Of a kernel with marks.
    fn record(tid: u32, pid: u32, is_last: bool) -> Record {
        let used = Used { runtime_ns: 10, user_ns: 4, faults_minor: 1, ..Used::default() };
        let group = Some((pid, is_last));
        Record { tid, group, elapsed_us: 2, used, peak_bytes: 8192, ..Record::default() }
    }

    fn end(tid: u32, pid: u32, at_ns: u64, record: Option<Record>) -> End {
        End { tid, pid, at_ns, status: 0, record }
    }

    fn gone(threads: &mut Threads, at_ns: u64) -> Vec<(u32, Option<u64>)> {
        let runtime = |exit: Exit| (exit.of.pid, exit.totals.map(|it| it.used.runtime_ns));
        threads.gone(at_ns).into_iter().map(runtime).collect()
    }

    #[test]
    fn a_process_ends_with_its_last_thread_and_has_all_they_used() {
        let mut threads = threads();
        for (tid, is_last) in [(7, false), (8, true), (9, false)] {
            let end = end(tid, 7, 9_000, Some(record(tid, 7, is_last)));
            assert!(threads.ended(&end, |_| true).is_none());
        }
        assert_eq!(gone(&mut threads, 9_000), [], "others may be on their way");
        let exit = threads.gone(9_000 + REST_NS).remove(0);
        assert_eq!((exit.of.start_ns, exit.of.at_ns), (7_000, 9_000));
        let totals = exit.totals.unwrap();
        assert_eq!((totals.used.runtime_ns, totals.used.faults_minor), (30, 3));
        assert_eq!((totals.peak_pages, totals.has_counts), (Some(2), true));
        assert_eq!(gone(&mut threads, u64::MAX), [], "once");
    }

    #[test]
    fn a_first_thread_that_goes_first_is_not_the_end() {
        let mut threads = threads();
        let old = |tid| Some(Record { group: None, ..record(tid, 7, false) });
        threads.ended(&end(7, 7, 9_000, old(7)), |_| true);
        assert_eq!(gone(&mut threads, u64::MAX), []);
        let last = Record { group_runtime_ns: Some(99), ..old(8).unwrap() };
        let last = End { status: 0x300, ..end(8, 7, 10_000, Some(last)) };
        threads.ended(&last, |_| false);
        let exit = threads.gone(10_000 + REST_NS).remove(0);
        assert_eq!((exit.status, exit.of.start_ns), (Some(0x300), 7_000));
        assert_eq!(exit.totals.unwrap().used.runtime_ns, 99, "what the kernel summed");
        // Without records only /proc tells.
        threads.ended(&end(7, 7, 11_000, None), |_| true);
        threads.ended(&end(8, 7, 12_000, None), |_| false);
        assert_eq!(gone(&mut threads, u64::MAX), [(7, None)]);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let mut threads = threads();
        let old = Some(Record { group: None, ..record(7, 7, false) });
        assert!(threads.ended(&end(7, 7, 9_000, old), |_| false).is_none());
        let first = threads.ended(&end(7, 7, 12_000, old), |_| false).unwrap();
        assert_eq!((first.of.start_ns, first.of.at_ns), (7_000, 9_000));
        assert_eq!(threads.gone(u64::MAX)[0].of.start_ns, 10_000);
        let single = end(7, 7, 15_000, Some(record(7, 7, true)));
        threads.ended(&single, |_| true);
        assert_eq!(gone(&mut threads, 15_000), [(7, Some(10))], "nobody to wait for");
    }

    #[test]
    fn what_ended_before_anybody_listened_is_unknown() {
        let mut threads = Threads { since_ns: 8_000, ..threads() };
        let last = Record { group_runtime_ns: Some(500), ..record(7, 7, true) };
        threads.ended(&end(7, 7, 9_000, Some(last)), |_| false);
        let totals = threads.gone(u64::MAX).remove(0).totals.unwrap();
        assert_eq!(totals.used.runtime_ns, 500);
        assert!(!totals.has_counts && !totals.has_io && !totals.has_delay);
    }
}
