//! What is known of updates, over restarts: `update-state.json`, root's to write and everybody's to read.
//!
//! Written before what it announces. A file that cannot be read counts as empty: whatever runs goes on running.
//! Unknown fields are ignored and missing ones have defaults, so that the release before can read what this one wrote.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use shared_model::{UpdateState, UpdateStatus};

use super::FileError;
use super::layout::Layout;
use crate::durable;

/// Largest ledger that is read, bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Releases remembered as bad: the last ones.
const MAX_BAD: usize = 32;
/// Longest reason, bytes.
const MAX_REASON: usize = shared_model::update::MAX_REASON_BYTES;

/// A moment on a clock that nobody can set: how long the host is up, in which boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME`, whole seconds.
    pub up_s: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let boot_id =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let up = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        Self { boot_id: boot_id.trim().to_owned(), up_s: up.as_secs() }
    }

    /// How long ago `earlier` was; none: in another boot.
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        (self.boot_id == earlier.boot_id)
            .then(|| Duration::from_secs(self.up_s.saturating_sub(earlier.up_s)))
    }
}

/// A release that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// [`Manifest::seq`](shared_model::release::Manifest::seq).
    pub seq: u64,
    /// The binary.
    pub id: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// What became of `to`; none: nothing was ever tried.
    pub state: Option<UpdateState>,
    /// The release that ran before.
    pub from: Option<String>,
    /// The release that was tried last, or is.
    pub to: Option<String>,
    /// Its number.
    pub target_seq: Option<u64>,
    /// Why it was taken back or not installed.
    pub reason: Option<String>,
    /// When its probation began in this boot.
    pub since: Option<Moment>,
    /// When it was started, the last few times.
    pub starts: Vec<Moment>,
    /// Since when the release before can reach a server although this one is not confirmed.
    pub reachable_since: Option<Moment>,
    /// The longest time between two reports, s, when the probation began.
    pub interval_s: u64,
    /// Releases that are not tried again.
    pub bad: Vec<Bad>,
}

impl Ledger {
    /// As it is on disk.
    pub fn load(path: &Path) -> Self {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        match read.map(|_| serde_json::from_slice(&bytes)) {
            Ok(Ok(ledger)) => ledger,
            Ok(Err(error)) => {
                tracing::error!(%error, path = %path.display(), "what is known of updates cannot be read: it is forgotten");
                Self::default()
            }
            Err(_) => Self::default(),
        }
    }

    /// Replaces what is on disk.
    pub fn store(&self, path: &Path) -> Result<(), FileError> {
        let failed = FileError::of("write", path);
        let json = match serde_json::to_vec_pretty(self) {
            Ok(json) => json,
            Err(error) => return Err(failed(error.into())),
        };
        durable::write_public(path, &json).map_err(failed)
    }

    /// Whether a release proves itself just now.
    pub fn is_on_probation(&self) -> bool {
        self.state == Some(UpdateState::Probation)
    }

    /// Whether a release is not to be tried again.
    pub fn is_bad(&self, seq: u64, id: &str) -> bool {
        self.bad.iter().any(|bad| bad.seq == seq || bad.id == id)
    }

    /// Something was not installed, or is taken back; `is_bad`: for good.
    pub fn give_up(&mut self, state: UpdateState, reason: &str, is_bad: bool) {
        self.state = Some(state);
        self.reason = Some(cut(reason));
        if let (true, Some(seq), Some(id)) = (is_bad, self.target_seq, self.to.clone())
            && !self.is_bad(seq, &id)
        {
            self.bad.push(Bad { seq, id });
            let excess = self.bad.len().saturating_sub(MAX_BAD);
            self.bad.drain(..excess);
        }
    }

    /// For a report, of the release `own`.
    pub fn status(&self, layout: &Layout, own: &str) -> UpdateStatus {
        UpdateStatus {
            installed_seq: layout.manifest(own).map(|manifest| manifest.seq),
            state: self.state.unwrap_or(UpdateState::Idle),
            target_seq: self.target_seq,
            reason: self.reason.clone(),
        }
    }
}

/// At most [`MAX_REASON`] bytes of a text, on one line.
pub fn cut(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=line.len().min(MAX_REASON)).rev().find(|end| line.is_char_boundary(*end));
    line[..end.unwrap_or(0)].to_owned()
}
