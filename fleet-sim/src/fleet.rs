//! Many simulated agents in one process: each its own certificate, stream and host, one task each.
//!
//! A task makes a report every interval, at a phase of its own, and sends what is outstanding, obeying
//! `Retry-After` and `next_send_after_ms` as the real agent does; without an answer it backs off with full
//! jitter. Reports are made again when they are sent and when they are checked ([`crate::simulated::plan`]), so an agent costs
//! its TLS state and little else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use shared_model::{JoinToken, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::random::Random;
use crate::simulated::SimulatedAgent;
use crate::simulated::plan::{Plan, Shape};

pub mod check;
pub mod command;
pub mod totals;

use totals::Totals;

/// Time an agent waits for an answer: as long as a server may take in the worst of bursts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);
/// Enrolments at the same time.
const ENROLLING: usize = 16;
/// Bound of the first pause without an answer; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Shorter than the real agent's five minutes, so that runs end.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Most records of one request.
const RECORDS: usize = 100;

/// Who takes part and what goes wrong with them.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    /// Hosts.
    pub agents: u64,
    /// The same seed makes the same fleet.
    pub seed: u64,
    /// What the hosts look like.
    pub shape: Shape,
    /// Clocks are off by up to this much, one way or the other, milliseconds.
    pub clock_skew_ms: u64,
    /// What the agents do wrong while they run.
    pub mishaps: Mishaps,
    /// How long an agent waits for an answer.
    pub timeout: Duration,
}

/// Each is a chance in a thousand per interval and agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mishaps {
    /// The agent is cut off for five intervals and then has a backlog.
    pub late: u64,
    /// It sends again what was acknowledged.
    pub duplicate: u64,
    /// It dies with a request on its way, and asks the server where it was.
    pub crash: u64,
}

impl Population {
    /// `agents` hosts of `shape` without mishaps.
    pub fn calm(agents: u64, shape: Shape) -> Self {
        let mishaps = Mishaps::default();
        Self { agents, seed: 1, shape, clock_skew_ms: 0, mishaps, timeout: REQUEST_TIMEOUT }
    }
}

/// Enrols the hosts numbered `numbers`; their first report is due at `started_at`.
pub async fn enroll(
    token: &JoinToken,
    population: &Population,
    numbers: std::ops::Range<u64>,
    started_at: Timestamp,
) -> Result<Vec<SimulatedAgent>> {
    let mut enrolling = JoinSet::new();
    let (mut agents, population) = (Vec::new(), *population);
    for number in numbers {
        if enrolling.len() >= ENROLLING {
            agents.push(enrolling.join_next().await.context("nobody enrols")???);
        }
        let token = token.clone();
        enrolling.spawn(async move {
            let seed = population.seed.wrapping_mul(1 << 20).wrapping_add(number);
            let mut plan = Plan::from(seed, started_at, population.shape);
            let skew = population.clock_skew_ms;
            let offset = Random::new(seed).below(2 * skew + 1).cast_signed();
            plan.clock_offset_ms = offset - skew.cast_signed();
            let name = format!("sim-{number}");
            let mut agent =
                SimulatedAgent::enroll_planned(&token, &name, plan, population.timeout).await?;
            agent.forgetful = true;
            anyhow::Ok(agent)
        });
    }
    while let Some(agent) = enrolling.join_next().await {
        agents.push(agent??);
    }
    Ok(agents)
}

/// Agents at work.
#[derive(Debug)]
pub struct RunningFleet {
    tasks: JoinSet<Result<SimulatedAgent>>,
    /// What they do, as they do it.
    pub totals: Arc<Totals>,
    stop: CancellationToken,
}

impl RunningFleet {
    /// Sets all of them to work.
    pub fn start(agents: Vec<SimulatedAgent>, mishaps: Mishaps) -> Self {
        let (totals, stop) = (Arc::new(Totals::default()), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for agent in agents {
            let (totals, stop) = (Arc::clone(&totals), stop.clone());
            tasks.spawn(Worker::new(agent, mishaps, totals).run(stop));
        }
        Self { tasks, totals, stop }
    }

    /// Makes no more reports, and sends what there is. Fails if an agent has not finished in time, or
    /// met an answer that must not be.
    pub async fn finish(mut self, deadline: Duration) -> Result<Vec<SimulatedAgent>> {
        self.stop.cancel();
        let all = async {
            let mut agents = Vec::new();
            while let Some(agent) = self.tasks.join_next().await {
                agents.push(agent??);
            }
            anyhow::Ok(agents)
        };
        tokio::time::timeout(deadline, all)
            .await
            .with_context(|| format!("not drained within {deadline:?}: {:?}", self.totals))?
    }
}

/// One agent's task.
struct Worker {
    agent: SimulatedAgent,
    mishaps: Mishaps,
    totals: Arc<Totals>,
    random: Random,
    failures: u32,
    /// Cut off until then.
    late_until: Option<Instant>,
}

impl Worker {
    fn new(mut agent: SimulatedAgent, mishaps: Mishaps, totals: Arc<Totals>) -> Self {
        let random = Random::new(!agent.generator().plan().seed);
        Self { agent, mishaps, totals, random, failures: 0, late_until: None }
    }

    async fn run(mut self, stop: CancellationToken) -> Result<SimulatedAgent> {
        let interval_ms = self.agent.generator().plan().shape.interval_ms;
        let interval = Duration::from_millis(u64::from(interval_ms));
        let mut due = Instant::now() + interval.mul_f64(self.unit());
        // What an outage left comes before the first tick.
        while self.is_behind() && Instant::now() < due && !stop.is_cancelled() {
            self.send(Some(due)).await?;
        }
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => break,
            }
            self.agent.produce(1);
            self.totals.produced.add(1);
            due += interval;
            self.meet_mishap(interval).await?;
            if self.late_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            // A tick that falls due meanwhile is more urgent than the rest of a backlog.
            while self.is_behind() && Instant::now() < due && !stop.is_cancelled() {
                self.send(Some(due)).await?;
            }
        }
        while self.is_behind() {
            self.send(None).await?;
        }
        Ok(self.agent)
    }

    fn is_behind(&self) -> bool {
        self.agent.acknowledged_sequence < self.agent.last_sequence()
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.random.below(1 << 32)).unwrap_or(0)) / f64::from(u32::MAX)
    }

    async fn meet_mishap(&mut self, interval: Duration) -> Result<()> {
        let number = self.random.below(1000);
        let Mishaps { late, duplicate, crash } = self.mishaps;
        if number < late {
            self.totals.late.add(1);
            self.late_until = Some(Instant::now() + interval * 5);
        } else if number < late + duplicate {
            self.totals.repeated.add(1);
            self.agent.acknowledged_sequence = self.agent.acknowledged_sequence.saturating_sub(3);
        } else if number < late + duplicate + crash {
            self.totals.crashes.add(1);
            let gone = Duration::from_millis(self.random.below(20));
            // The request is dropped where it is, the connection with it.
            if let Ok(sent) = tokio::time::timeout(gone, self.agent.send(RECORDS)).await {
                sent?;
            }
            self.agent.crash().await?;
        }
        Ok(())
    }

    /// One request, and the pause after it; not beyond `until`.
    async fn send(&mut self, until: Option<Instant>) -> Result<()> {
        let (before, acknowledged) = (self.agent.counts.clone(), self.agent.acknowledged_sequence);
        let started = Instant::now();
        self.agent.pause = None;
        self.agent.send(RECORDS).await?;
        self.totals.note(started.elapsed(), &before, &self.agent.counts);
        let progress = self.agent.acknowledged_sequence.saturating_sub(acknowledged);
        self.totals.acknowledged.add(progress);
        self.failures = if progress > 0 { 0 } else { self.failures + 1 };
        let pause = match self.agent.pause.take() {
            Some(asked) => asked.mul_f64(1.0 + self.unit() / 2.0),
            None if self.failures == 0 => return Ok(()),
            None => {
                let bound = FIRST_PAUSE * (1 << (self.failures - 1).min(10));
                bound.min(LONGEST_PAUSE).mul_f64(self.unit())
            }
        };
        let end = Instant::now() + pause;
        let end = until.map_or(end, |until| end.min(until));
        tokio::time::sleep_until(end.into()).await;
        Ok(())
    }
}
