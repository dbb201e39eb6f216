//! `procfleet-agent top`: what the agent sees of this host, in a terminal, without a server.
//!
//! A thread of its own samples with every process kept; this one draws what came last and obeys keys, so that
//! a slow collector never makes the keyboard slow. What the agent cannot know here is `–`. The terminal is
//! given back as it was however this ends: at `q`, at a signal, when the line is lost, and at a panic in
//! either thread.

pub mod cells;
pub mod model;
pub mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use shared_model::{Report, Timestamp};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use uuid::Uuid;

use self::model::{Flow, Model};
use crate::agent::{Agent, AgentError, Moment};
use crate::config::Config;
use crate::procfs::Root;
use crate::spool::SpoolStats;

/// How long a key or a signal may wait.
const REACTION: Duration = Duration::from_millis(100);
/// However short the interval is, collectors have this long.
const LEAST_TIME: Duration = Duration::from_secs(3);

/// Why there is nothing to look at, or nothing any more.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Standard output is a file or a pipe.
    #[error("top needs a terminal; for scripts there is `procfleet-agent once --json`")]
    NoTerminal,
    /// The terminal.
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    /// A thread or a signal handler.
    #[error("cannot start {0}")]
    Start(&'static str, #[source] io::Error),
    /// The collectors.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A bug: it panicked.
    #[error("the sampler ended unexpectedly")]
    SamplerEnded,
}

/// Shows this host until the user has seen enough.
pub fn top(config: &Config, interval: Duration) -> Result<(), TopError> {
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|source| TopError::Start("a signal handler", source))?;
    }
    let mut config = config.clone();
    config.profile.keep_all = true;
    let agent = Agent::new(Root::system(), &config, Uuid::nil())?;
    let (send, reports) = sync_channel(1);
    thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || sample(agent, interval, &send))
        .map_err(|source| TopError::Start("the sampler", source))?;
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    let outcome = show(&mut terminal, &reports, &stop);
    ratatui::restore();
    outcome
}

/// Draws and obeys.
fn show(
    terminal: &mut DefaultTerminal,
    reports: &Receiver<Report>,
    stop: &AtomicBool,
) -> Result<(), TopError> {
    let mut model = Model::default();
    let mut is_stale = true;
    while !stop.load(Ordering::Relaxed) {
        if is_stale {
            terminal.draw(|frame| view::draw(frame, &mut model)).map_err(TopError::Terminal)?;
        }
        is_stale = false;
        if event::poll(REACTION).map_err(TopError::Terminal)? {
            is_stale = true;
            if let Event::Key(key) = event::read().map_err(TopError::Terminal)?
                && key.kind != KeyEventKind::Release
                && model.key(key) == Flow::Quit
            {
                return Ok(());
            }
        }
        match reports.try_recv() {
            Ok(report) => {
                model.take(report);
                is_stale = true;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(TopError::SamplerEnded),
        }
    }
    Ok(())
}

/// Samples until nobody looks any more.
fn sample(mut agent: Agent, interval: Duration, send: &SyncSender<Report>) {
    let started = Instant::now();
    let mut describe_all = true;
    agent.baseline(&moment(started, interval, describe_all));
    loop {
        thread::sleep(interval);
        let moment = moment(started, interval, describe_all);
        if let Some(report) = agent.tick(&moment, &SpoolStats::default()) {
            describe_all = false;
            if send.send(report).is_err() {
                return;
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the loop of `top` owns the clock: everything below gets the moment passed in"
)]
fn moment(started: Instant, interval: Duration, describe_all: bool) -> Moment {
    Moment {
        clock_offset: time::Duration::ZERO,
        sampled_at: Timestamp::now_utc(),
        monotonic: started.elapsed(),
        at_most: interval.max(LEAST_TIME),
        describe_all,
    }
}

#[cfg(test)]
mod tests;
