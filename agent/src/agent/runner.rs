//! Runs the collectors of a tick side by side and answers for each of them.
//!
//! Every collector has a thread, a channel for one question and one for one answer. All are asked at
//! once; each has its own deadline from that moment. One that is late is reported as such, its
//! part is missing, and it is not asked again until the run that hangs has come back; what that run brings
//! is thrown away and counted. A collector that panicked, failed or was late is built again, so
//! that its next run is a baseline ([`crate::collectors`], second rule). There is never more
//! than one thread per collector, however long one hangs.
//!
//! Why a baseline, deltas null, and not deltas over the longer interval: a delta means "in this
//! report's `interval_ms`", which all collectors share. One over two intervals would be read as twice the
//! rate, and the late run read some counters at one time and some at another. The hole is visible: the
//! reports say `late`, and their rows are missing or null.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shared_model::limits::MAX_TEXT_BYTES;
use shared_model::{CollectorOutcome, CollectorRun, Tier};

use crate::causes::chain;
use crate::collectors::{Batch, CollectError, Collector, Registration, Setup, Tick};
use crate::metrics::{COLLECTOR_LATE_RESULTS, COLLECTOR_PANICS, COLLECTOR_SKIPPED};

/// See the module. Dropped, it waits for every collector that does not hang.
pub struct Runner {
    workers: Vec<Worker>,
}

struct Worker {
    registration: Registration,
    /// `None` only while being dropped.
    ask: Option<SyncSender<Question>>,
    answer: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    state: State,
    /// How it last ended and from which tier, to log changes and nothing else.
    logged: (CollectorOutcome, Tier),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for a question.
    Idle,
    /// The same, but what it holds is of no use any more.
    Stale,
    /// Passed its deadline and has not come back.
    Hung,
    /// Disabled: it holds nothing.
    Resting,
}

enum Question {
    Collect {
        tick: Tick,
        rebuild: bool,
    },
    /// Let go of everything. Has no answer.
    Rest,
}

struct Answer {
    batch: Batch,
    result: Result<(), Failure>,
    duration: Duration,
}

enum Failure {
    NoData,
    Failed(String),
}

impl Runner {
    /// Starts the threads of `registry`. Nothing is read yet.
    pub fn start(registry: &[Registration], setup: &Setup) -> io::Result<Self> {
        let start =
            |registration: &Registration| Worker::start(registration.clone(), setup.clone());
        Ok(Self { workers: registry.iter().map(start).collect::<io::Result<_>>()? })
    }

    /// One tick: what the collectors delivered, and how each of them fared, in the order of the
    /// registry. Returns after the longest deadline, or `at_most`, at the latest.
    pub fn run(&mut self, tick: &Tick, at_most: Duration) -> (Batch, Vec<CollectorRun>) {
        let started = Instant::now();
        let is_on = |worker: &Worker| {
            !tick.settings.disabled.iter().any(|name| name == worker.registration.name)
        };
        let asked = self.workers.iter_mut().map(|worker| is_on(worker).then(|| worker.ask(tick)));
        let asked: Vec<Option<bool>> = asked.collect();
        let mut batch = Batch::default();
        let runs = self.workers.iter_mut().zip(asked).map(|(worker, asked)| {
            let deadline = worker.registration.deadline.min(at_most);
            let Some(asked) = asked else { return worker.rest() };
            let answer =
                if asked { worker.wait(deadline.saturating_sub(started.elapsed())) } else { None };
            worker.account(answer, deadline, &mut batch)
        });
        let runs = runs.collect();
        (batch, runs)
    }
}

impl Worker {
    fn start(registration: Registration, setup: Setup) -> io::Result<Self> {
        let (ask, asked) = sync_channel::<Question>(1);
        let (reply, answer) = sync_channel::<Answer>(1);
        let build = registration.build;
        let serve = move || {
            let mut collector = None;
            while let Ok(question) = asked.recv() {
                let Question::Collect { tick, rebuild } = question else {
                    let_go(&mut collector);
                    continue;
                };
                if rebuild {
                    let_go(&mut collector);
                }
                let build = || build(&setup);
                if reply.send(answer_one(&mut collector, build, &tick)).is_err() {
                    break;
                }
            }
        };
        let name = format!("collect-{}", registration.name);
        let thread = thread::Builder::new().name(name).spawn(serve)?;
        let logged = (CollectorOutcome::Ok, registration.tier);
        let (ask, thread) = (Some(ask), Some(thread));
        Ok(Self { registration, ask, answer, thread, state: State::Idle, logged })
    }

    /// Asks it, unless it hangs. Whether an answer is to be expected.
    fn ask(&mut self, tick: &Tick) -> bool {
        if !self.is_back() {
            COLLECTOR_SKIPPED.add(1);
            return false;
        }
        let rebuild = self.state == State::Stale;
        self.send(Question::Collect { tick: tick.clone(), rebuild })
    }

    /// Whether it does not hang, or no longer: what it brings then is thrown away.
    fn is_back(&mut self) -> bool {
        if self.state == State::Hung {
            if self.answer.try_recv().is_err() {
                return false;
            }
            COLLECTOR_LATE_RESULTS.add(1);
            self.state = State::Stale;
        }
        true
    }

    fn send(&self, question: Question) -> bool {
        self.ask.as_ref().is_some_and(|ask| ask.try_send(question).is_ok())
    }

    /// The run of one that is disabled: from its first on it holds nothing.
    fn rest(&mut self) -> CollectorRun {
        if self.is_back() && self.state != State::Resting && self.send(Question::Rest) {
            self.state = State::Resting;
        }
        let run = CollectorRun {
            collector: self.registration.name.to_owned(),
            outcome: CollectorOutcome::Disabled,
            tier: self.registration.tier,
            duration_us: 0,
            error: None,
        };
        self.log(&run);
        run
    }

    /// Its answer, if it comes in time.
    fn wait(&mut self, timeout: Duration) -> Option<Answer> {
        match self.answer.recv_timeout(timeout) {
            Ok(answer) => {
                self.state = State::Idle;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.state = State::Hung;
                None
            }
        }
    }

    /// Classifies one run, and takes over what it brought.
    fn account(
        &mut self,
        answer: Option<Answer>,
        deadline: Duration,
        batch: &mut Batch,
    ) -> CollectorRun {
        let mut run = CollectorRun {
            collector: self.registration.name.to_owned(),
            outcome: CollectorOutcome::Late,
            tier: self.logged.1,
            duration_us: micros(deadline),
            error: None,
        };
        if let Some(answer) = answer {
            run.duration_us = micros(answer.duration);
            run.tier = answer.batch.tier.unwrap_or(self.registration.tier);
            (run.outcome, run.error) = match answer.result {
                Ok(()) => {
                    batch.merge(answer.batch);
                    (CollectorOutcome::Ok, None)
                }
                Err(Failure::NoData) => (CollectorOutcome::NoData, None),
                Err(Failure::Failed(error)) => (CollectorOutcome::Failed, Some(error)),
            };
        }
        self.log(&run);
        run
    }

    /// One line when something changed, not one per tick.
    fn log(&mut self, run: &CollectorRun) {
        let now = (run.outcome, run.tier);
        let before = std::mem::replace(&mut self.logged, now);
        let collector = run.collector.as_str();
        if now.0 != before.0 {
            match run.outcome {
                CollectorOutcome::Ok => tracing::info!(collector, "collector delivers again"),
                CollectorOutcome::NoData => {
                    tracing::info!(collector, "collector has no data on this host");
                }
                CollectorOutcome::Late => {
                    tracing::warn!(collector, deadline_us = run.duration_us, "collector is late");
                }
                CollectorOutcome::Disabled => tracing::info!(collector, "collector is disabled"),
                CollectorOutcome::Failed => {
                    tracing::warn!(collector, error = run.error, "collector failed");
                }
            }
        }
        if now.1 != before.1 {
            match run.tier {
                Tier::C => tracing::warn!(
                    collector,
                    "no privileges: fields of other users' processes are unknown"
                ),
                Tier::A | Tier::B => {
                    tracing::info!(collector, tier = ?run.tier, "collector changed its source");
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask = None;
        if self.state != State::Hung
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            COLLECTOR_PANICS.add(1);
        }
    }
}

/// One run on the collector's thread: builds it first if need be.
fn answer_one(
    collector: &mut Option<Box<dyn Collector>>,
    build: impl FnOnce() -> Box<dyn Collector>,
    tick: &Tick,
) -> Answer {
    let started = Instant::now();
    let mut batch = Batch::default();
    // What a panic may leave half done is thrown away with the collector and its batch.
    let result = catch_unwind(AssertUnwindSafe(|| {
        collector.get_or_insert_with(build).collect(tick, &mut batch)
    }));
    let result = match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(CollectError::NoData)) => Err(Failure::NoData),
        Ok(Err(error)) => Err(Failure::Failed(cut(&chain(&error)))),
        Err(panic) => {
            COLLECTOR_PANICS.add(1);
            Err(Failure::Failed(cut(&format!("panicked: {}", message(panic.as_ref())))))
        }
    };
    if result.is_err() {
        // A baseline is due: what comes next must not span the hole.
        let_go(collector);
        batch = Batch { tier: batch.tier, ..Batch::default() };
    }
    Answer { batch, result, duration: started.elapsed() }
}

/// Also of one that panicked, and may do so again at its end.
fn let_go(collector: &mut Option<Box<dyn Collector>>) {
    drop(catch_unwind(AssertUnwindSafe(|| *collector = None)));
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// What a report can hold.
fn cut(text: &str) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
