//! The root side of self-update: what makes another release run, and takes it back.
//!
//! The agent that talks to servers is unprivileged and cannot change what runs; it leaves a signed release and a file in
//! its state directory ([`drop_box`]). Root's one-shot program, `update work`, started by the service manager when
//! something lies there, copies the file away, verifies *that copy* ([`trust`], [`install`]), and moves the link
//! `current` to it. From then on the release is on probation: [`trial`] decides whether it stays.
//!
//! Nothing that is untried decides about itself. Two links point at releases: `current` is what the service runs,
//! `confirmed` is the last release that proved itself, and it is `confirmed` that runs `update work` and, before each start of
//! the agent, `update boot-check`. A new release that crashes, hangs or cannot be executed at all is taken back by the one before,
//! which stays on disk.
//!
//! Each step leaves a host that starts: files are synced before a link is moved, links are moved by rename, the
//! [`ledger`] is written before what it announces, and [`worker`] finishes at the next start what a power cut left half done.
//!
//! Limits. A release that breaks the kernel or the boot is taken back only by boots (the third start within probation).
//! Without systemd nothing calls these programs: such a host is updated by hand. A package updates its own agent.

pub mod drop_box;
pub mod install;
pub mod layout;
pub mod ledger;
pub mod services;
pub mod trial;
pub mod trust;
pub mod worker;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[update]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether this host follows the releases that the servers name.
    pub enabled: bool,
    /// Holds `releases/` and the links to them; root's.
    pub base: PathBuf,
    /// Holds public keys of roots beside those of the build, one in each `*.pub`; root's.
    pub trusted_keys: PathBuf,
    /// How long a new release has to run, with reports accepted, before it is confirmed, s.
    pub stable_s: u32,
    /// How long it may stay unconfirmed before the release before is asked whether servers can be reached, s; never less than
    /// three intervals.
    pub deadline_s: u32,
    /// How long it may then still stay unconfirmed while they can, s.
    pub grace_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            base: PathBuf::from("/opt/procfleet/agent"),
            trusted_keys: PathBuf::from("/etc/procfleet/trusted-keys.d"),
            stable_s: 120,
            deadline_s: 600,
            grace_s: 180,
        }
    }
}

/// What went wrong with a file or directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct FileError {
    /// What was tried.
    pub step: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: std::io::Error,
}

impl FileError {
    /// To be mapped to.
    pub fn of(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self { step, path, source }
    }
}
