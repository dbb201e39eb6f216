//! `cargo xtask down`: stops what `up` started, in order (agent, server, database).
//!
//! Processes are known by pid, start time and boot: a reused pid is never signalled.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::process::Recorded;
use crate::progress::Step;
use crate::project::{Project, remove};
use crate::state::State;

/// Longer than the server's own drain.
const PATIENCE: Duration = Duration::from_secs(40);
/// What survives a wipe unless `--all`: it cost a download.
const DOWNLOADED: &str = "rootfs";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also delete the data, the identity of this host, the keys and the logs.
    #[arg(long)]
    wipe: bool,
    /// With --wipe: the downloaded database programs, too.
    #[arg(long, requires = "wipe")]
    all: bool,
}

/// What `up` starts.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(crate) enum Part {
    Agent,
    Server,
    Database,
}

impl Part {
    /// In commands, messages and log file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Server => "server",
            Self::Database => "database",
        }
    }
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let _lock = project.lock()?;
    let mut state = State::load(project)?;
    let mut any = false;
    for part in [Part::Agent, Part::Server, Part::Database] {
        any |= stop(project, &mut state, part)?;
    }
    if !any {
        println!("Nothing was running.");
    }
    if arguments.wipe {
        wipe(project, &state, arguments.all)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops one part if it runs. Says whether it did.
pub(crate) fn stop(project: &Project, state: &mut State, part: Part) -> Result<bool> {
    let Some((_, process)) = processes(state).into_iter().find(|(known, _)| *known == part) else {
        return Ok(false);
    };
    let running = process.is_running();
    if running {
        let step = Step::start(format!("stop the {}", part.name()));
        let killed = match (part, &state.database) {
            (Part::Database, Some(database)) => database.stop().map(|()| false)?,
            _ => process.stop(Signal::TERM, PATIENCE)?,
        };
        step.done(if killed { "it had to be killed" } else { "" });
    }
    match part {
        Part::Agent => state.agent = None,
        Part::Server => state.server = None,
        Part::Database => {} // its port and place are used again
    }
    state.save(project)?;
    Ok(running)
}

/// The processes that `up` recorded.
pub(crate) fn processes(state: &State) -> Vec<(Part, Recorded)> {
    let recorded = [
        (Part::Agent, state.agent.as_ref().map(|part| &part.process)),
        (Part::Server, state.server.as_ref().map(|part| &part.process)),
        (Part::Database, state.database.as_ref().map(|database| &database.process)),
    ];
    recorded.into_iter().filter_map(|(part, process)| Some((part, process?.clone()))).collect()
}

/// Whether `down` ran since, as opposed to a part ending by itself.
pub(crate) fn was_stopped(project: &Project) -> Result<bool> {
    // `down` holds the lock while it stops the parts, and has removed them afterwards.
    Ok(project.lock().is_err() || State::load(project)?.agent.is_none())
}

fn wipe(project: &Project, state: &State, all: bool) -> Result<()> {
    let running =
        crate::postgres::released(project)?.is_some() || crate::postgres::has_runs(project)?;
    if running {
        bail!(
            "test databases are running from .procfleet/: stop them first (`cargo xtask db down`, or let the test run end)"
        );
    }
    if let Some(database) = &state.database {
        database.destroy()?;
    }
    for entry in std::fs::read_dir(project.private(""))?.flatten() {
        let name = entry.file_name();
        if name == "lock" || (name == DOWNLOADED && !all) {
            continue;
        }
        remove(&entry.path())?;
    }
    let kept = project.private(DOWNLOADED).exists();
    println!(
        "Wiped: data, identity, keys, logs.{}",
        if kept {
            " The database's programs stay in .procfleet/rootfs (--wipe --all deletes them)."
        } else {
            ""
        }
    );
    Ok(())
}
