//! `<state_dir>/configuration.json`: what the centre told, and what became of it.
//!
//! It survives a crash at any moment: mode 0600, replaced atomically and synced. One that cannot be read
//! is as good as none: the agent begins with its own file and asks the centre again.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared_model::Configuration;

use crate::durable;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Hash of the last one that was read, whatever became of it.
    pub received: Option<String>,
    /// What worked.
    pub last_good: Option<Told>,
    /// What is on trial.
    pub candidate: Option<Candidate>,
    /// The last one that did not work.
    pub failure: Option<Failure>,
}

/// What the centre told once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Its hash.
    pub hash: String,
    /// The keys.
    pub configuration: Configuration,
}

/// Told, used, and not proven yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What is tried.
    pub told: Told,
    /// How often an agent that tried it ended without having been stopped.
    pub deaths: u32,
    /// An agent tries it now, or did when it ended.
    pub is_running: bool,
}

/// Not used, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Of what was told.
    pub hash: String,
    /// Why.
    pub error: String,
    /// It was tried; otherwise it could not be.
    pub was_tried: bool,
    /// Version of the agent that says so.
    pub version: String,
}

impl Kept {
    /// Reads the file; none, or none that can be read, is nothing kept.
    pub fn read(path: &Path) -> Self {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what the centre told cannot be read");
                return Self::default();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "what the centre told is damaged");
            Self::default()
        })
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        durable::write(path, &bytes)
    }

    /// What an agent that starts now would use; an agent that runs uses it.
    pub fn in_force(&self) -> Option<&Told> {
        self.candidate.as_ref().map(|candidate| &candidate.told).or(self.last_good.as_ref())
    }
}
