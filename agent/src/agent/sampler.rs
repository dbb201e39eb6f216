//! The sampling loop: a plain thread that waits, ticks and appends to the spool.
//!
//! It is the only place that reads the clocks. It is woken ([`std::thread::Thread::unpark`]) to stop after
//! a last report, or because it is to work by other settings: those are taken between two ticks, and
//! another interval counts from that moment.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shared_model::{Record, Report, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{Agent, Moment};
use crate::centre::{Made, Order};
use crate::metrics::{CLOCK_JUMPS, INTERVAL_LENGTHENED, TICKS_SKIPPED};
use crate::server_clock::{ServerClock, since_boot};
use crate::spool::{Appended, Spool};

/// The first report comes this soon: a new host is to be seen at once.
const FIRST_REPORT: Duration = Duration::from_secs(2);
/// However short the interval is, collectors have this long: on a host so loaded that they are slow, a
/// tick that comes later is worth more than one without the processes that load it.
const LEAST_TIME: Duration = Duration::from_secs(3);
/// How long the collectors have for the last report.
const LAST_TICK: Duration = Duration::from_secs(2);
/// A wall clock that moved this much against the monotonic clock was set, or the host was suspended.
const CLOCK_JUMP: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Sampler {
    pub(super) agent: Agent,
    pub(super) spool: Arc<Spool>,
    pub(super) pace: Pace,
    /// Set, and the thread woken: one more report, then the end.
    pub(super) stop: CancellationToken,
    /// What to work by.
    pub(super) orders: watch::Receiver<Order>,
    /// Number of the order that the next tick obeys.
    pub(super) number: u64,
    /// The interval is another than at the last tick.
    pub(super) is_changed: bool,
    /// Says which report was made by which order.
    pub(super) made: watch::Sender<Option<Made>>,
    /// [`Spool::dictionary_epoch`] that the last report knew.
    pub(super) epoch: u64,
    pub(super) started: Instant,
    pub(super) server_clock: ServerClock,
}

/// Both clocks, read together.
#[derive(Clone, Copy)]
struct Clocks {
    wall: Timestamp,
    /// What must be added to `wall`, because the servers contradict it.
    offset: time::Duration,
    monotonic: Duration,
}

impl Sampler {
    pub(super) fn run(mut self) {
        let mut last = self.clocks();
        self.epoch = self.spool.dictionary_epoch();
        self.agent.baseline(&moment(last, FIRST_REPORT, true));
        let mut due = self.started.elapsed() + self.pace.interval().min(FIRST_REPORT);
        let mut first = true;
        let mut kept = Appended::Durable;
        loop {
            let stopping = self.wait(due);
            let now = self.clocks();
            let elapsed = now.monotonic.saturating_sub(last.monotonic);
            note_clock_jump(last, now);
            note_disbelief(last, now);
            let at_most = if stopping { LAST_TICK } else { self.pace.interval().max(LEAST_TIME) };
            // The baseline described everything to nobody.
            let moment = moment(now, at_most, std::mem::take(&mut first) || self.missed());
            if let Some(report) = self.agent.tick(&moment, &self.spool.stats()) {
                if !std::mem::take(&mut self.is_changed) {
                    TICKS_SKIPPED.add(self.pace.skipped(elapsed));
                }
                self.keep_to_budget(&report, elapsed);
                let appended = self.append(report);
                log_change(kept, appended);
                kept = appended;
                last = now;
            }
            if stopping {
                return;
            }
            due = self.next();
        }
    }

    /// Waits until `due`, or for a new interval's next tick. Whether the agent stops.
    fn wait(&mut self, mut due: Duration) -> bool {
        loop {
            if self.stop.is_cancelled() {
                return true;
            }
            if self.obey() {
                due = self.next();
            }
            let left = due.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
    }

    /// Takes a new order, if there is one. Whether the interval became another.
    fn obey(&mut self) -> bool {
        if !self.orders.has_changed().unwrap_or(false) {
            return false;
        }
        let order = self.orders.borrow_and_update().clone();
        self.number = order.number;
        let before = self.pace.interval();
        self.pace.configure(order.config.interval(), &order.config.budget);
        self.agent.use_settings(order.config.settings());
        let interval = self.pace.interval();
        tracing::info!(interval_ms = interval.as_millis(), "the agent works by other settings");
        let is_changed = interval != before;
        self.is_changed |= is_changed;
        is_changed
    }

    /// When the next tick is, on the clock of `started`.
    fn next(&self) -> Duration {
        let now = self.clocks();
        now.monotonic + self.pace.wait(now.wall)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this loop owns the clock: everything below gets the moment passed in"
    )]
    fn clocks(&self) -> Clocks {
        let wall = Timestamp::now_utc();
        let offset = self.server_clock.offset(wall, since_boot());
        Clocks { wall, offset, monotonic: self.started.elapsed() }
    }

    /// Whether the server may have missed definitions since the last report.
    fn missed(&mut self) -> bool {
        let epoch = self.spool.dictionary_epoch();
        std::mem::replace(&mut self.epoch, epoch) != epoch
    }

    fn append(&self, mut report: Report) -> Appended {
        let number = self.number;
        self.spool.append(|position| {
            report.stream_id = position.stream_id;
            report.sequence = position.sequence;
            self.made.send_replace(Some(Made {
                number,
                stream_id: position.stream_id,
                sequence: position.sequence,
            }));
            Record::Report(Box::new(report))
        })
    }

    fn keep_to_budget(&mut self, report: &Report, elapsed: Duration) {
        let Some(cpu_us) = report.agent.cpu_us else { return };
        let memory = report.agent.memory_usage_bytes.unwrap_or(0);
        let cpu = Duration::from_micros(cpu_us);
        let Some(change) = self.pace.account(cpu, memory, elapsed) else { return };
        let interval_ms = change.interval.as_millis();
        if change.longer {
            INTERVAL_LENGTHENED.add(1);
            tracing::warn!(
                interval_ms,
                cores = change.cores,
                memory_bytes = change.memory_bytes,
                "over budget: the interval is longer now"
            );
        } else {
            tracing::info!(
                interval_ms,
                cores = change.cores,
                memory_bytes = change.memory_bytes,
                "within budget: the interval is shorter again"
            );
        }
    }
}

fn moment(clocks: Clocks, at_most: Duration, describe_all: bool) -> Moment {
    Moment {
        sampled_at: clocks.wall + clocks.offset,
        clock_offset: clocks.offset,
        monotonic: clocks.monotonic,
        at_most,
        describe_all,
    }
}

fn note_clock_jump(last: Clocks, now: Clocks) {
    let wall = now.wall - last.wall;
    let elapsed = now.monotonic.saturating_sub(last.monotonic);
    let jump = (wall - elapsed).unsigned_abs();
    if jump > CLOCK_JUMP {
        CLOCK_JUMPS.add(1);
        let seconds = jump.as_secs();
        let forward = wall > elapsed;
        tracing::warn!(seconds, forward, "the wall clock jumped, or the host was suspended");
    }
}

fn note_disbelief(last: Clocks, now: Clocks) {
    match (last.offset.is_zero(), now.offset.is_zero()) {
        (true, false) => tracing::warn!(
            offset_s = now.offset.whole_seconds(),
            "this host's clock is wrong: reports carry the servers' time; set the clock"
        ),
        (false, true) => tracing::info!("this host's clock is believed again"),
        _ => {}
    }
}

/// One line when the spool's disk fails or works again, not one per report.
fn log_change(before: Appended, now: Appended) {
    if before == now {
        return;
    }
    match now {
        Appended::Durable => tracing::info!("the spool is written to disk again"),
        Appended::Volatile => tracing::warn!("the spool cannot be written: reports wait in memory"),
        Appended::Lost => tracing::error!("the spool has no room: reports are lost"),
    }
}
