//! `.procfleet/state.json`: what `up` started. Versioned; written after every step, so that `down`
//! finds everything even when `up` was killed half-way.

use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::postgres::cluster::Cluster;
use crate::process::Recorded;
use crate::project::{Project, write_private};

/// Grows when the meaning of a field changes.
const VERSION: u32 = 1;

/// Everything that `up` knows.
#[derive(Deserialize, Serialize)]
pub(crate) struct State {
    version: u32,
    /// `None` when `PROCFLEET_DATABASE_URL` names a database of the user's.
    pub(crate) database: Option<Cluster>,
    pub(crate) server: Option<Part>,
    pub(crate) agent: Option<Part>,
    /// Where agents connect.
    pub(crate) agent_port: u16,
    /// Where people connect.
    pub(crate) operator_port: u16,
}

/// A running program of ours.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Part {
    pub(crate) process: Recorded,
    /// What it was started with: another build or configuration means a restart.
    pub(crate) fingerprint: String,
}

impl Part {
    /// Runs, and is what would be started now.
    pub(crate) fn is_current(&self, fingerprint: &str) -> bool {
        self.process.is_running() && self.fingerprint == fingerprint
    }
}

impl State {
    /// What was written last, or nothing at the default ports.
    pub(crate) fn load(project: &Project) -> Result<Self> {
        let path = project.private("state.json");
        let Ok(text) = std::fs::read(&path) else {
            return Ok(Self {
                version: VERSION,
                database: None,
                server: None,
                agent: None,
                agent_port: 7443,
                operator_port: 7080,
            });
        };
        let value: serde_json::Value = serde_json::from_slice(&text)
            .with_context(|| format!("parse {}: delete it if it is damaged", path.display()))?;
        if value["version"] != VERSION {
            bail!(
                "{} was written by another version ({}): run `down` of that version, or delete it after stopping its processes",
                path.display(),
                value["version"]
            );
        }
        serde_json::from_value(value).with_context(|| format!("read {}", path.display()))
    }

    /// Writes it (0600: it holds the private database's password).
    pub(crate) fn save(&self, project: &Project) -> Result<()> {
        write_private(&project.private("state.json"), &serde_json::to_vec_pretty(self)?)
    }
}

/// Identifies a build of a program and the configuration it runs with.
pub(crate) fn fingerprint(binary: &std::path::Path, configuration: &str) -> Result<String> {
    let stat = std::fs::metadata(binary).with_context(|| format!("{}", binary.display()))?;
    let built = stat.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(configuration, &mut hash);
    Ok(format!("{built}-{}-{:x}", stat.len(), std::hash::Hasher::finish(&hash)))
}
