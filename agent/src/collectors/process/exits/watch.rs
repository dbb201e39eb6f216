//! Drains the ring of events, so that it does not overflow between ticks.
//!
//! The programs wake nobody until an eighth of the ring is full: on a quiet host only the tick looks. The
//! thread ends with its [`Watch`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use super::log::{Interval, Log};
use crate::bpf::{self, Bpf, records::parse_event};
use crate::metrics::{EXITS_DROPPED, PROGRAMS_DROPPED};

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
        self.bpf.drain("processes", "events", |record| {
            if let Some(event) = parse_event(record) {
                log.take(event);
            }
        });
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What the kernel had no room for: programs, exits, and their run time, ns.
    lost: [u64; 3],
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
        let lost = bpf.counters("processes", "losses").unwrap_or_default();
        Some(Self { shared, thread: Some(thread), lost })
    }

    /// The exits since the last call, and the run time, ns, of those that the kernel had no room for.
    pub(super) fn interval(&mut self, since_ns: u64) -> (Interval, u64) {
        self.shared.drain();
        let lost = self.shared.bpf.counters("processes", "losses").unwrap_or(self.lost);
        let before = std::mem::replace(&mut self.lost, lost);
        let since = |place: usize| lost[place].saturating_sub(before[place]);
        PROGRAMS_DROPPED.add(since(0));
        EXITS_DROPPED.add(since(1));
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.interval(since_ns), since(2))
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
