//! `procfleet-agent run`: the sampler thread, the uplink, and how they end.
//!
//! The sampler is a plain thread: it waits, ticks, appends to the spool. The uplink runs on a
//! current-thread runtime on the main thread, which also follows the centre and waits for signals. On SIGTERM, SIGINT or SIGHUP
//! the sampler appends one last report, then the uplink drains for a bounded time and says goodbye. A
//! sampler that ends without being asked stops the program with an error: no agent runs without sampling.

use std::io;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use shared_model::Goodbye;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ending;
use super::pace::Pace;
use super::sampler::Sampler;
use super::start::{self, StartError};
use super::{Agent, AgentError};
use crate::centre::desk::Desk;
use crate::centre::{Follower, Order};
use crate::certificate::Keeper;
use crate::config::layers::Local;
use crate::config::{Config, ConfigError};
use crate::identity::{Identity, IdentityError};
use crate::procfs::Root;
use crate::spool::{Limits, Spool, SpoolError};
use crate::tls;
use crate::updater::Updater;
use crate::uplink::fallback::Fallback;
use crate::uplink::{Uplink, UplinkConfig, UplinkError};

/// How long the sampler has to append its last report before the agent ends without it.
const LAST_APPEND: Duration = Duration::from_secs(5);
/// Failures of the uplink in a row after which its certificate is looked at.
const TROUBLE: u32 = 3;

/// Why the agent does not run, or ran no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Not enrolled, or its identity is unreadable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No identity to run with.
    #[error(transparent)]
    Begin(#[from] StartError),
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

impl RunError {
    /// What the program ends with, for the service manager: 78 configuration, 3 no identity of this host, 1 all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Identity(IdentityError::NotEnrolled(_))
            | Self::Begin(
                StartError::Identity(IdentityError::NotEnrolled(_)) | StartError::Copied(_),
            ) => 3,
            _ => 1,
        }
    }
}

/// Runs until a signal, also one that comes while the spool is opened and programs are loaded: that can
/// take seconds, and a service manager that stops the agent meanwhile expects status 0.
pub fn run(local: Local) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::Start("the runtime", source))?;
    let signals = {
        let _entered = runtime.enter();
        Signals::catch()?
    };
    let own = local.with(None)?.config;
    let identity = start::identity(&own)?;
    let limits = Limits { max_bytes: own.spool.max_bytes, ..Limits::default() };
    let spool = Arc::new(Spool::open(&own.spool_dir(), limits, identity.host_id)?);
    let endpoints = own.endpoints.clone();
    let place = start::place(&own);
    let uplink =
        Uplink::new(&identity, UplinkConfig { endpoints, dead_dir: own.dead_dir(), place })?;
    // Last: from here on, an end that nobody asked for counts against what is on trial.
    let (desk, config) = Desk::open(own.centre_path(), local)?;
    let (host_id, interval_ms) = (identity.host_id, config.interval_ms);
    let mut agent = Agent::new(Root::system(), &config, host_id)?;
    let (updater, updates) = Updater::new(own.update.clone(), &own.state_dir, config.interval());
    agent.tell_updates(updates);
    tracing::info!(%host_id, interval_ms, "the agent runs");

    let (mut sampling, mut follower) =
        start_sampler(agent, config, (&spool, &uplink), (host_id, desk))?;
    let stop = CancellationToken::new();
    let leave = CancellationToken::new();
    let deliver = uplink.run(Arc::clone(&spool), stop.clone());
    let keeper = Keeper {
        dir: own.identity_dir(),
        endpoints: own.endpoints.clone(),
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
    let fallback = Fallback::new(own.fallback.clone(), host_id, &own.state_dir);
    runtime.block_on(async {
        let follow = follower.run(&uplink, &stop);
        let speak = fallback.run(&uplink, &stop);
        let update = updater.run(&uplink, &spool, &stop, &leave);
        let supervise = supervise(signals, &mut sampling, &stop, &leave);
        let ((), (), (), (), (), result) =
            tokio::join!(deliver, keep, follow, speak, update, supervise);
        // An agent that failed says nothing: its host becomes silent, and somebody looks.
        if result.is_ok() {
            follower.desk.close();
            let leaves = leave.is_cancelled();
            uplink.say_goodbye(if leaves { Goodbye::Upgrade } else { ending::reason() }).await;
        }
        result
    })
}

/// The sampler's thread, as `supervise` sees it.
struct Sampling {
    thread: Thread,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

/// Starts it, and what gives it its orders.
fn start_sampler(
    agent: Agent,
    config: Config,
    (spool, uplink): (&Arc<Spool>, &Uplink),
    (host_id, desk): (Uuid, Desk),
) -> Result<(Sampling, Follower), RunError> {
    let pace = Pace::new(config.interval(), config.budget.clone(), host_id);
    let (orders, obeyed) = watch::channel(Order { number: 0, config: Arc::new(config) });
    let (say_made, made) = watch::channel(None);
    let (say_ended, ended) = oneshot::channel();
    let stop = CancellationToken::new();
    let sampler = Sampler {
        agent,
        spool: Arc::clone(spool),
        pace,
        stop: stop.clone(),
        orders: obeyed,
        number: 0,
        is_changed: false,
        made: say_made,
        epoch: 0,
        started: Instant::now(),
        server_clock: uplink.clock(),
    };
    let thread = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || {
            sampler.run();
            if say_ended.send(()).is_err() {
                tracing::debug!("nobody waits for the sampler any more");
            }
        })
        .map_err(|source| RunError::Start("the sampler", source))?;
    let thread = thread.thread().clone();
    let follower = Follower { desk, orders, made, sampler: thread.clone() };
    Ok((Sampling { thread, stop, ended }, follower))
}

/// Tells the server that this host's agent stops for a reason only its caller knows (a package's
/// scripts). Whether a server took it.
pub fn say_goodbye(config: &Config, reason: Goodbye) -> Result<bool, RunError> {
    let identity = Identity::load(&config.identity_dir())?;
    let endpoints = config.endpoints.clone();
    let place = start::place(config);
    let uplink =
        Uplink::new(&identity, UplinkConfig { endpoints, dead_dir: config.dead_dir(), place })?;
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

/// Waits for a signal, another release or the sampler's end; stops the sampler, then the uplink.
async fn supervise(
    mut signals: Signals,
    sampling: &mut Sampling,
    stop: &CancellationToken,
    leave: &CancellationToken,
) -> Result<(), RunError> {
    // However this ends, the uplink is told: `run` waits for both.
    let _stop = stop.clone().drop_guard();
    let cause = tokio::select! {
        name = signals.recv() => name,
        () = leave.cancelled() => "another release",
        _ = &mut sampling.ended => return Err(RunError::SamplerEnded),
    };
    tracing::info!(cause, "the agent stops after a last report");
    sampling.stop.cancel();
    sampling.thread.unpark();
    match tokio::time::timeout(LAST_APPEND, &mut sampling.ended).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(RunError::SamplerEnded),
        Err(_) => {
            tracing::warn!("the last report could not be appended in time");
            Ok(())
        }
    }
}
