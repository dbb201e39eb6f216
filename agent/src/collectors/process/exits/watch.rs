//! Drains the ring of events, so that it does not overflow between ticks.
//!
//! The programs wake nobody until an eighth of the ring is full: on a quiet host only the tick looks. The
//! thread ends with its [`Watch`].
//!
//! **Two hooks are counted against each other.** An exit is told when the kernel frees the process, with all it used. But
//! that program runs wherever the kernel happens to free it, and there are contexts in which the kernel runs no BPF
//! program and counts no miss (seen on a virtual machine with Linux 6.18: every process that was freed on top of a thread of
//! process 1, 1 to 20 of 1,000). What the other program left at the
//! process's last thread is still there then: [`OVERDUE_NS`] later, the process gone, it is told, and counted in
//! [`EXITS_UNFREED`]. It lacks the CPU of giving the memory back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use super::log::{Exit, Interval, Life, Log};
use crate::bpf::records::{Event, parse_event};
use crate::bpf::{self, Bpf};
use crate::metrics::{EXITS_DROPPED, EXITS_UNFREED, PROGRAMS_DROPPED};

/// How long the kernel may take to free a process that is gone.
const OVERDUE_NS: u64 = 1_000_000_000;
/// `EVENT_TOLD`: was told before it was freed.
const TOLD: u32 = 3;
/// `struct life`.
const KEY_BYTES: usize = 16;
/// `struct free_event`.
const END_BYTES: usize = 168;
/// Stack of the thread: it copies command lines to the heap.
const STACK_BYTES: usize = 128 << 10;

#[derive(Debug)]
struct Shared {
    bpf: Arc<Bpf>,
    log: Mutex<Log>,
    /// Written to: the thread ends.
    stop: OwnedFd,
}

impl Shared {
    fn drain(&self) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        self.bpf.drain("processes", "events", |record| match parse_event(record) {
            Some(Event::Exec(exec)) => log.began(Life::from(&exec.of), exec.line),
            Some(Event::Exit(exit)) => log.ended(Exit::from(&exit)),
            None => {}
        });
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What the kernel had no room for: programs, exits, and their run time, ns. Processes that died, and
    /// those of them that were seen to be freed.
    counts: [u64; 5],
    /// The last two of them when nobody was left that may be overdue.
    settled: Option<[u64; 2]>,
}

impl Watch {
    /// `None` where the kernel tells no exits.
    pub(super) fn start(bpf: &Arc<Bpf>) -> Option<Self> {
        // Lives seen in another unit of CPU than their ends would not add up.
        if bpf.refusal("freed").or_else(|| bpf.refusal("tasks")).is_some() {
            return None;
        }
        let ring = bpf.ring_descriptor("processes", "events")?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
        let shared = Arc::new(Shared { bpf: Arc::clone(bpf), log: Mutex::default(), stop });
        let worker = Arc::clone(&shared);
        let work = move || loop {
            bpf::wait(&[ring.as_fd(), worker.stop.as_fd()]);
            if bpf::is_ready(worker.stop.as_fd()) {
                return;
            }
            worker.drain();
        };
        let thread = std::thread::Builder::new()
            .name("process-exits".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .ok()?;
        let counts = bpf.counters("processes", "losses").unwrap_or_default();
        Some(Self { shared, thread: Some(thread), counts, settled: None })
    }

    /// The exits since the last call, made `now_ns` after the boot, and the run time, ns, of those that the
    /// kernel had no room for. `is_there` says of a process id and a start whether that was seen since.
    pub(super) fn interval(
        &mut self,
        since_ns: u64,
        now_ns: u64,
        is_there: impl Fn(u32, u64) -> bool,
    ) -> (Interval, u64) {
        self.shared.drain();
        let counts = self.shared.bpf.counters("processes", "losses").unwrap_or(self.counts);
        let [.., died, freed] = counts;
        if self.settled != Some([died, freed]) {
            let is_settled = self.find_overdue(now_ns, is_there);
            self.settled = is_settled.then_some([died, freed]);
        }
        let before = std::mem::replace(&mut self.counts, counts);
        let since = |place: usize| counts[place].saturating_sub(before[place]);
        PROGRAMS_DROPPED.add(since(0));
        EXITS_DROPPED.add(since(1));
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.interval(since_ns), since(2))
    }

    /// Takes the exits of processes that are gone and were never seen to be freed. False: some still may be.
    fn find_overdue(&self, now_ns: u64, is_there: impl Fn(u32, u64) -> bool) -> bool {
        let bpf = &self.shared.bpf;
        let (mut overdue, mut is_settled) = (Vec::new(), true);
        bpf.read_hash::<KEY_BYTES, END_BYTES>("processes", "dead", |key, end| {
            if end[4..8] == TOLD.to_ne_bytes() {
                return;
            }
            let Some(Event::Exit(exit)) = parse_event(&end) else { return };
            let of = &exit.of;
            if now_ns.saturating_sub(of.at_ns) < OVERDUE_NS || is_there(of.pid, of.start_ns) {
                is_settled = false;
            } else {
                overdue.push((key, end));
            }
        });
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, end) in overdue {
            let mut told = end;
            told[4..8].copy_from_slice(&TOLD.to_ne_bytes());
            // Not there any more: it was freed at this very moment, and is in the ring.
            if bpf.replace_in_hash("processes", "dead", (&key, &told))
                && let Some(Event::Exit(exit)) = parse_event(&end)
            {
                EXITS_UNFREED.add(1);
                log.ended(Exit::from(&exit));
            }
        }
        is_settled
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let stopped = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if stopped.is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ended = thread.join();
        }
    }
}
