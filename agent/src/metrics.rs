//! The agent's own counters: every loss and every anomaly, each with the name of its place.
//!
//! They are process-wide, grow only, and travel in every report as `agent.losses`. Whoever sheds
//! something adds to the counter of that place; nothing else may be logged per event. A new counter
//! costs a `static` and a line in [`ALL`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of things lost or found odd since the agent's start.
#[derive(Debug)]
pub struct Counter {
    /// Its name in `agent.losses`.
    pub name: &'static str,
    value: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str) -> Self {
        Self { name, value: AtomicU64::new(0) }
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Counters of the kernel that fell, of a whole host, a device or an interface (unknown in the report).
pub static COUNTER_ANOMALIES: Counter = Counter::new("counter_anomalies");
/// Counters of a process that fell or contradicted another.
pub static PROCESS_ANOMALIES: Counter = Counter::new("process_anomalies");
/// Processes whose command line could not be read in time (described later).
pub static PROCESS_DETAILS_LATE: Counter = Counter::new("process_details_late");
/// Rows of processes beyond what one report carries (in the residual instead).
pub static PROCESS_ROWS_SHED: Counter = Counter::new("process_rows_shed");
/// Attempts to read a BPF iterator that the kernel asked to repeat.
pub static BPF_ITERATOR_RETRIES: Counter = Counter::new("bpf_iterator_retries");
/// Exits that the kernel had no room to tell (their CPU is in the residual).
pub static EXITS_DROPPED: Counter = Counter::new("exits_dropped");
/// Executed programs that the kernel had no room to tell (no command line at their exit).
pub static PROGRAMS_DROPPED: Counter = Counter::new("programs_dropped");
/// Programs whose command lines were not kept for their exit: too many, or too long together.
pub static PROGRAMS_FORGOTTEN: Counter = Counter::new("programs_forgotten");
/// Exits beyond what one interval holds.
pub static EXITS_SHED: Counter = Counter::new("exits_shed");
/// Processes that vanished and whose exit never came.
pub static EXITS_MISSED: Counter = Counter::new("exits_missed");
/// Exits whose process was seen to end, but never to be freed (told with what it had used by then).
pub static EXITS_UNFREED: Counter = Counter::new("exits_unfreed");
/// Times the kernel dropped exits, or what ended processes had used, because nobody read them in time.
pub static EXIT_OVERRUNS: Counter = Counter::new("exit_overruns");
/// Exits told without what their processes had used.
pub static EXIT_TOTALS_LOST: Counter = Counter::new("exit_totals_lost");
/// Reads of a BPF iterator that failed (processes were read from `/proc` instead).
pub static BPF_ITERATORS_FAILED: Counter = Counter::new("bpf_iterators_failed");
/// Records of BPF programs that do not have their layout.
pub static BPF_RECORDS_MALFORMED: Counter = Counter::new("bpf_records_malformed");
/// Ticks that a collector missed because an earlier run of it still hung.
pub static COLLECTOR_SKIPPED: Counter = Counter::new("collector_skipped");
/// Results that came after their deadline and were thrown away.
pub static COLLECTOR_LATE_RESULTS: Counter = Counter::new("collector_late_results");
/// Reports moved to a new stream although the server may have stored them in the old one: it may hold
/// them twice.
pub static REPORTS_REPEATED: Counter = Counter::new("reports_repeated");
/// Collectors rebuilt after a panic.
pub static COLLECTOR_PANICS: Counter = Counter::new("collector_panics");
/// File systems whose statvfs(2) did not answer in time (null in the report).
pub static FILESYSTEM_LATE: Counter = Counter::new("filesystem_late");
/// Mounts, devices or interfaces beyond the protocol's limit.
pub static DEVICES_SHED: Counter = Counter::new("devices_shed");
/// Ticks that should have been, but the agent was stopped or still busy with the one before.
pub static TICKS_SKIPPED: Counter = Counter::new("ticks_skipped");
/// Times the agent lengthened its interval to stay within its budget.
pub static INTERVAL_LENGTHENED: Counter = Counter::new("interval_lengthened");
/// Jumps of the wall clock against the monotonic clock.
pub static CLOCK_JUMPS: Counter = Counter::new("clock_jumps");
/// Requests to a server that failed or were refused.
pub static REQUESTS_FAILED: Counter = Counter::new("requests_failed");
/// Searches for the holders of sockets that ended early (unattributed in the report).
pub static SOCKET_SEARCHES_CUT: Counter = Counter::new("socket_searches_cut");
/// Times the kernel dropped notifications of connections that ended.
pub static SOCKET_ENDS_LOST: Counter = Counter::new("socket_ends_lost");
/// Connections beyond what is remembered (not in the report).
pub static SOCKETS_SHED: Counter = Counter::new("sockets_shed");
/// Datagrams of UDP sockets beyond what the kernel's map holds (not in the report).
pub static DATAGRAM_SOCKETS_SHED: Counter = Counter::new("datagrams_uncounted");
/// Rows of connections beyond what one report carries (summed instead).
pub static CONNECTION_ROWS_FOLDED: Counter = Counter::new("connection_rows_folded");
/// Network namespaces beyond what one tick reads.
pub static NAMESPACES_SHED: Counter = Counter::new("namespaces_shed");
/// Network namespaces that could not be read in a tick.
pub static NAMESPACES_UNREAD: Counter = Counter::new("namespaces_unread");
/// Messages to the fallback channel that did not arrive.
pub static FALLBACK_FAILED: Counter = Counter::new("fallback_failed");

/// Every counter, in the order of this file.
pub static ALL: &[&Counter] = &[
    &COUNTER_ANOMALIES,
    &PROCESS_ANOMALIES,
    &PROCESS_DETAILS_LATE,
    &PROCESS_ROWS_SHED,
    &EXITS_DROPPED,
    &PROGRAMS_DROPPED,
    &PROGRAMS_FORGOTTEN,
    &EXITS_SHED,
    &EXITS_MISSED,
    &EXITS_UNFREED,
    &EXIT_OVERRUNS,
    &EXIT_TOTALS_LOST,
    &BPF_ITERATORS_FAILED,
    &BPF_ITERATOR_RETRIES,
    &BPF_RECORDS_MALFORMED,
    &COLLECTOR_SKIPPED,
    &COLLECTOR_LATE_RESULTS,
    &COLLECTOR_PANICS,
    &REPORTS_REPEATED,
    &FILESYSTEM_LATE,
    &DEVICES_SHED,
    &TICKS_SKIPPED,
    &INTERVAL_LENGTHENED,
    &CLOCK_JUMPS,
    &REQUESTS_FAILED,
    &FALLBACK_FAILED,
    &SOCKET_SEARCHES_CUT,
    &SOCKET_ENDS_LOST,
    &SOCKETS_SHED,
    &DATAGRAM_SOCKETS_SHED,
    &CONNECTION_ROWS_FOLDED,
    &NAMESPACES_SHED,
    &NAMESPACES_UNREAD,
];

/// Every counter that is not 0, by name.
pub fn losses() -> BTreeMap<String, u64> {
    ALL.iter()
        .filter(|counter| counter.get() > 0)
        .map(|counter| (counter.name.to_owned(), counter.get()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_in_a_report() {
        let mut names: Vec<_> = ALL.iter().map(|counter| counter.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(names.len() <= shared_model::limits::MAX_COLLECTORS);
    }

    #[test]
    fn only_what_happened_is_reported() {
        DEVICES_SHED.add(3);
        assert_eq!(losses().get("devices_shed"), Some(&3));
        assert_eq!(losses().get("clock_jumps"), None);
    }
}
