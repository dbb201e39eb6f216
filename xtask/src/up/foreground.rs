//! Staying attached: warnings are shown, Ctrl-C stops what this run started.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Started;
use crate::down::{Part, stop};
use crate::logs::Follower;
use crate::project::Project;
use crate::state::State;

/// Set by SIGINT, SIGTERM or SIGHUP; a second one ends us at once.
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on these signals are ours.
    pub(super) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Fails when interrupted, between two steps of `up`.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted; what was started keeps running (`cargo xtask down` stops it)");
        }
        Ok(())
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows warnings until Ctrl-C or until a part ends.
pub(super) fn stay(
    project: &Project,
    state: &State,
    started: &Started,
    interrupted: &Interrupt,
) -> Result<ExitCode> {
    println!("Ctrl-C stops it. Warnings of the parts appear here.");
    let parts = [Part::Server, Part::Agent];
    let mut followers: Vec<(Part, Follower)> =
        parts.into_iter().map(|part| (part, Follower::at_end(&project.log(part.name())))).collect();
    while !interrupted.is_set() {
        for (part, follower) in &mut followers {
            for line in follower.lines()?.iter().filter(|line| is_warning(line)) {
                println!("{}: {line}", part.name());
            }
        }
        for (part, process) in crate::down::processes(state) {
            if !process.is_running() {
                if crate::down::was_stopped(project)? {
                    println!("Stopped by `cargo xtask down`.");
                    return Ok(ExitCode::SUCCESS);
                }
                let name = part.name();
                bail!(
                    "the {name} ended by itself: see `cargo xtask logs {name}`; the others still run, `cargo xtask up` repairs, `cargo xtask down` stops"
                );
            }
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    println!();
    let _lock = project.lock()?;
    let mut state = State::load(project)?;
    for (part, ours) in [
        (Part::Agent, started.agent),
        (Part::Server, started.server),
        (Part::Database, started.database),
    ] {
        if ours {
            stop(project, &mut state, part)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines of WARN or ERROR, in the JSON form that our programs log in when they write to a file.
fn is_warning(line: &str) -> bool {
    ["\"level\":\"WARN\"", "\"level\":\"ERROR\"", " WARN ", " ERROR ", "panicked at"]
        .iter()
        .any(|word| line.contains(word))
}
