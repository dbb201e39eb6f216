//! `procfleet-agent run`: the sampler thread, the uplink, and how they end.
//!
//! The sampler is a plain thread: it waits, ticks, appends to the spool. The uplink runs on a
//! current-thread runtime on the main thread, which also waits for signals. On SIGTERM, SIGINT or SIGHUP
//! the sampler appends one last report, then the uplink drains for a bounded time and says goodbye. A
//! sampler that ends without being asked stops the program with an error: no agent runs without sampling.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use shared_model::{Goodbye, Record, Report, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::ending;
use super::pace::Pace;
use super::{Agent, AgentError, Moment};
use crate::certificate::Keeper;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::metrics::{CLOCK_JUMPS, INTERVAL_LENGTHENED, TICKS_SKIPPED};
use crate::procfs::Root;
use crate::server_clock::{ServerClock, since_boot};
use crate::spool::{Appended, Limits, Spool, SpoolError};
use crate::tls;
use crate::uplink::{Uplink, UplinkConfig, UplinkError};

/// The first report comes this soon: a new host is to be seen at once.
const FIRST_REPORT: Duration = Duration::from_secs(2);
/// However short the interval is, collectors have this long: on a host so loaded that they are slow, a
/// tick that comes later is worth more than one without the processes that load it.
const LEAST_TIME: Duration = Duration::from_secs(3);
/// How long the collectors have for the last report.
const LAST_TICK: Duration = Duration::from_secs(2);
/// How long the sampler has to append its last report before the agent ends without it.
const LAST_APPEND: Duration = Duration::from_secs(5);
/// A wall clock that moved this much against the monotonic clock was set, or the host was suspended.
const CLOCK_JUMP: Duration = Duration::from_secs(5);
/// Failures of the uplink in a row after which its certificate is looked at.
const TROUBLE: u32 = 3;

/// Why the agent does not run, or ran no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not enrolled, or its identity is unreadable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The uplink.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The collectors.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The runtime, a thread or a signal handler.
    #[error("cannot start {0}")]
    Start(&'static str, #[source] io::Error),
    /// A bug: it panicked.
    #[error("the sampler ended unexpectedly")]
    SamplerEnded,
}

/// Runs until a signal, also one that comes while the spool is opened and programs are loaded: that can
/// take seconds, and a service manager that stops the agent meanwhile expects status 0.
pub fn run(config: &Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::Start("the runtime", source))?;
    let signals = {
        let _entered = runtime.enter();
        Signals::catch()?
    };
    let identity = Identity::load(&config.identity_dir())?;
    let limits = Limits { max_bytes: config.spool.max_bytes, ..Limits::default() };
    let spool = Arc::new(Spool::open(&config.spool_dir(), limits, identity.host_id)?);
    let endpoints = config.endpoints.clone();
    let uplink = Uplink::new(&identity, UplinkConfig { endpoints, dead_dir: config.dead_dir() })?;
    let agent = Agent::new(Root::system(), config, identity.host_id)?;
    let interval = Duration::from_millis(config.interval_ms.into());
    let pace = Pace::new(interval, config.budget.clone(), identity.host_id);
    tracing::info!(host_id = %identity.host_id, interval_ms = config.interval_ms, "the agent runs");

    let (stop_sampler, stopped) = sync_channel(1);
    let (ended, sampler_ended) = oneshot::channel();
    let sampler = Sampler {
        agent,
        spool: Arc::clone(&spool),
        pace,
        epoch: 0,
        started: Instant::now(),
        server_clock: uplink.clock(),
    };
    thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || {
            sampler.run(&stopped);
            if ended.send(()).is_err() {
                tracing::debug!("nobody waits for the sampler any more");
            }
        })
        .map_err(|source| RunError::Start("the sampler", source))?;
    let stop = CancellationToken::new();
    let deliver = uplink.run(spool, stop.clone());
    let keeper = Keeper {
        dir: config.identity_dir(),
        endpoints: config.endpoints.clone(),
        identity,
        clock: uplink.clock(),
    };
    let keep = keeper.run(
        &stop,
        |identity| {
            if let Err(error) = uplink.replace_identity(identity) {
                tracing::error!(error = tls::chain(&error), "the new certificate cannot be used");
            }
        },
        || uplink.status().consecutive_failures >= TROUBLE,
        uplink.offered_trust(),
    );
    runtime.block_on(async {
        let supervise = supervise(signals, stop_sampler, sampler_ended, &stop);
        let ((), (), result) = tokio::join!(deliver, keep, supervise);
        // An agent that failed says nothing: its host becomes silent, and somebody looks.
        if result.is_ok() {
            uplink.say_goodbye(ending::reason()).await;
        }
        result
    })
}

/// Tells the server that this host's agent stops for a reason only its caller knows (a package's
/// scripts). Whether a server took it.
pub fn say_goodbye(config: &Config, reason: Goodbye) -> Result<bool, RunError> {
    let identity = Identity::load(&config.identity_dir())?;
    let endpoints = config.endpoints.clone();
    let uplink = Uplink::new(&identity, UplinkConfig { endpoints, dead_dir: config.dead_dir() })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::Start("the runtime", source))?;
    Ok(runtime.block_on(uplink.say_goodbye(reason)))
}

/// The signals that end the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they no longer kill the process. Needs a runtime.
    fn catch() -> Result<Self, RunError> {
        let handler =
            |kind| signal(kind).map_err(|source| RunError::Start("a signal handler", source));
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            hangup: handler(SignalKind::hangup())?,
        })
    }

    /// The name of the first that comes, or came.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Waits for a signal or the sampler's end; stops the sampler, then the uplink.
async fn supervise(
    mut signals: Signals,
    stop_sampler: SyncSender<()>,
    mut sampler_ended: oneshot::Receiver<()>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    // However this ends, the uplink is told: `run` waits for both.
    let _stop = stop.clone().drop_guard();
    let name = tokio::select! {
        name = signals.recv() => name,
        _ = &mut sampler_ended => return Err(RunError::SamplerEnded),
    };
    tracing::info!(signal = name, "the agent stops after a last report");
    drop(stop_sampler);
    match tokio::time::timeout(LAST_APPEND, sampler_ended).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(RunError::SamplerEnded),
        Err(_) => {
            tracing::warn!("the last report could not be appended in time");
            Ok(())
        }
    }
}

/// The sampling loop: the only place that reads the clocks.
struct Sampler {
    agent: Agent,
    spool: Arc<Spool>,
    pace: Pace,
    /// [`Spool::dictionary_epoch`] that the last report knew.
    epoch: u64,
    started: Instant,
    server_clock: ServerClock,
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
    fn run(mut self, stopped: &Receiver<()>) {
        let mut last = self.clocks();
        self.epoch = self.spool.dictionary_epoch();
        self.agent.baseline(&moment(last, FIRST_REPORT, true));
        let mut wait = self.pace.interval().min(FIRST_REPORT);
        let mut first = true;
        let mut kept = Appended::Durable;
        loop {
            // Nothing is ever sent: the sender's end is the word to stop.
            let stopping = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            let now = self.clocks();
            let elapsed = now.monotonic.saturating_sub(last.monotonic);
            note_clock_jump(last, now);
            note_disbelief(last, now);
            let at_most = if stopping { LAST_TICK } else { self.pace.interval().max(LEAST_TIME) };
            // The baseline described everything to nobody.
            let moment = moment(now, at_most, std::mem::take(&mut first) || self.missed());
            if let Some(report) = self.agent.tick(&moment, &self.spool.stats()) {
                TICKS_SKIPPED.add(self.pace.skipped(elapsed));
                self.keep_to_budget(&report, elapsed);
                let appended = self.append(report);
                log_change(kept, appended);
                kept = appended;
                last = now;
            }
            if stopping {
                return;
            }
            wait = self.pace.wait(self.clocks().wall);
        }
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
        self.spool.append(|position| {
            report.stream_id = position.stream_id;
            report.sequence = position.sequence;
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
