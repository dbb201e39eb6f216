//! `procfleet-agent update …`: root's side of self-update as programs, and what people ask.

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::AgentError;
use crate::agent::delivered::delivered;
use crate::cli::UpdateCommand;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::once;
use crate::update::FileError;
use crate::update::layout::{Layout, Link};
use crate::update::ledger::{Ledger, Moment};
use crate::update::worker::Worker;

/// How long a release looks at the host to test itself.
const LOOK: Duration = Duration::from_millis(200);

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum UpdatesError {
    /// A file or directory of releases.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an identity, and it cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// This host cannot be looked at.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Does it; what is to be printed.
pub fn execute(
    command: &UpdateCommand,
    config: &Config,
    file: Option<PathBuf>,
) -> Result<Option<String>, UpdatesError> {
    let worker = || Worker::new(&config.update, &config.state_dir, file);
    match command {
        UpdateCommand::Status => return Ok(Some(status(config))),
        UpdateCommand::Work => {
            // A question for the stream's cursor: the same door, certificate and checks as reports have.
            worker().work(&Moment::now(), || delivered(config, None, Duration::ZERO).is_ok())?;
        }
        UpdateCommand::BootCheck => worker().boot_check(&Moment::now())?,
        UpdateCommand::SelfTest => self_test(config)?,
    }
    Ok(None)
}

fn self_test(config: &Config) -> Result<(), UpdatesError> {
    match Identity::load(&config.identity_dir()) {
        // There may be a token instead.
        Ok(_) | Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error.into()),
    }
    once::sample(config, LOOK)?;
    Ok(())
}

fn status(config: &Config) -> String {
    let layout = Layout::new(&config.update.base);
    let ledger = Ledger::load(&layout.ledger());
    let described = |link| match layout.target(link) {
        Some(id) => match layout.manifest(&id) {
            Some(manifest) => format!("release {} ({}), {id}", manifest.seq, manifest.version),
            None => format!("{id}, installed without a release"),
        },
        None => "none".to_owned(),
    };
    let mut lines = vec![
        format!("runs       {}", described(Link::Current)),
        format!("confirmed  {}", described(Link::Confirmed)),
    ];
    if let Some(state) = ledger.state {
        let tried =
            ledger.target_seq.map_or("a release".to_owned(), |seq| format!("release {seq}"));
        let reason = ledger.reason.map_or(String::new(), |reason| format!(": {reason}"));
        lines.push(format!("last       {tried} {}{reason}", state.as_str().replace('_', " ")));
    }
    if !config.update.enabled {
        lines.push("updates    off: [update] enabled = false".to_owned());
    }
    lines.join("\n")
}
