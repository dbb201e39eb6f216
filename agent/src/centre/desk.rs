//! Decides what the agent works by: no clocks, no network, one file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use shared_model::configuration::{MAX_ERROR_BYTES, MAX_LIMITED};
use shared_model::{ConfigurationAnswer, ConfigurationStatus};

use super::kept::{Candidate, Failure, Kept, Told};
use super::trial::{Trial, Verdict};
use super::{Made, Order};
use crate::causes::chain;
use crate::config::layers::{Effective, Local};
use crate::config::{Config, ConfigError};
use crate::uplink::news::Delivered;

/// How often an agent may end unexpectedly while it tries a candidate. One may be a power cut.
pub const MAX_DEATHS: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct Desk {
    path: PathBuf,
    local: Local,
    kept: Kept,
    /// Of what is worked by; none: what the host itself says.
    in_force: Option<String>,
    limited: Vec<&'static str>,
    /// Of the last order.
    number: u64,
    trial: Option<Trial>,
}

/// Why nothing was applied, and nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Then a crash could not be counted.
    #[error("what the centre told cannot be kept in {}", path.display())]
    Keep {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Desk {
    /// What an agent that starts works by. A candidate that was on trial is tried again, unless it may
    /// be why the agent ended too often.
    pub fn open(path: PathBuf, local: Local) -> Result<(Self, Config), ConfigError> {
        let own = local.with(None)?;
        let kept = Kept::read(&path);
        let (in_force, limited, number, trial) = (None, Vec::new(), 0, None);
        let mut desk = Self { path, local, kept, in_force, limited, number, trial };
        if !desk.local.limits.remote_configuration {
            return Ok((desk, own.config));
        }
        let before = desk.kept.clone();
        desk.forget_failure();
        desk.count_death();
        let mut effective = desk.kept_effective();
        if desk.kept != before
            && let Err(error) = desk.kept.write(&desk.path)
        {
            tracing::warn!(error = chain(&desk.unkept(error)), "what the centre told is not tried");
            // A crash by it could not be counted: it is fetched again, and kept if that is possible then.
            if desk.kept.candidate.take().is_some() {
                desk.kept.received = None;
                effective = desk.kept_effective();
            }
        }
        desk.trial = desk.kept.candidate.is_some().then(|| Trial::new(desk.number));
        let config = match effective {
            Some((hash, effective)) => {
                (desk.in_force, desk.limited) = (Some(hash), effective.limited);
                effective.config
            }
            None => own.config,
        };
        Ok((desk, config))
    }

    /// Hash of what was received last.
    pub fn received(&self) -> Option<&str> {
        self.kept.received.as_deref()
    }

    /// For the server.
    pub fn status(&self) -> ConfigurationStatus {
        let failure = self.kept.failure.as_ref();
        ConfigurationStatus {
            received: self.kept.received.clone(),
            applied: self.in_force.clone(),
            failed: failure.map(|failure| failure.hash.clone()),
            error: failure.map(|failure| failure.error.clone()),
            limited: self.limited.iter().take(MAX_LIMITED).map(|&key| key.to_owned()).collect(),
        }
    }

    /// Takes what the centre tells. What to work by from now on, if that is something else.
    pub fn take(&mut self, answer: ConfigurationAnswer) -> Result<Option<Order>, DeskError> {
        let ConfigurationAnswer { hash, configuration } = answer;
        if self.kept.received.as_ref() == Some(&hash) {
            return Ok(None);
        }
        let mut next = self.kept.clone();
        next.received = Some(hash.clone());
        if !self.local.limits.remote_configuration {
            let error = "this host takes no configuration from the centre: remote_configuration is false in its limits";
            next.failure = Some(failure(hash, error, false));
            return self.keep(next).map(|()| None);
        }
        if self.in_force.as_ref() == Some(&hash) {
            return self.keep(next).map(|()| None);
        }
        let effective = match self.local.with(Some(&configuration)) {
            Ok(effective) => effective,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(hash, error, "what the centre told cannot be applied");
                next.failure = Some(failure(hash, &error, false));
                return self.keep(next).map(|()| None);
            }
        };
        let is_proven = next.last_good.as_ref().is_some_and(|good| good.hash == hash);
        let told = Told { hash: hash.clone(), configuration };
        next.candidate = (!is_proven).then_some(Candidate { told, deaths: 0, is_running: true });
        self.keep(next)?;
        tracing::info!(hash, "the centre told another configuration");
        Ok(Some(self.apply(Some(hash), effective)))
    }

    /// Looks how the trial goes. What to work by from now on, if it ended badly.
    pub fn judge(&mut self, made: Option<&Made>, delivered: &Delivered) -> Option<Order> {
        match self.trial.as_mut()?.judge(made, delivered)? {
            Verdict::Good => {
                let mut next = self.kept.clone();
                next.last_good = next.candidate.take().map(|candidate| candidate.told);
                match self.keep(next) {
                    Ok(()) => self.trial = None,
                    // The next report brings the same verdict.
                    Err(error) => tracing::debug!(error = chain(&error), "still on trial"),
                }
                None
            }
            Verdict::Bad(why) => self.go_back(&why),
        }
    }

    /// The agent was stopped: that is no fault of what is on trial.
    pub fn close(&mut self) {
        let Some(candidate) = &mut self.kept.candidate else { return };
        candidate.is_running = false;
        if let Err(error) = self.kept.write(&self.path) {
            tracing::warn!(error = chain(&self.unkept(error)), "the end will count as a crash");
        }
    }

    fn go_back(&mut self, why: &str) -> Option<Order> {
        let hash = self.kept.candidate.take()?.told.hash;
        let error = format!("the server rejects the reports made by it: {why}");
        tracing::warn!(hash, error, "the agent goes back to the last known good");
        self.kept.failure = Some(failure(hash, &error, true));
        let (hash, effective) = match self.kept_effective() {
            Some((hash, effective)) => (Some(hash), effective),
            None => (None, self.local.with(None).ok()?),
        };
        if let Err(error) = self.kept.write(&self.path) {
            tracing::warn!(error = chain(&self.unkept(error)), "it will be tried again");
        }
        Some(self.apply(hash, effective))
    }

    fn apply(&mut self, hash: Option<String>, effective: Effective) -> Order {
        self.number += 1;
        (self.in_force, self.limited) = (hash, effective.limited);
        self.trial = self.kept.candidate.is_some().then(|| Trial::new(self.number));
        Order { number: self.number, config: Arc::new(effective.config) }
    }

    /// The candidate, else the last known good; noted as failed where it cannot be applied.
    fn kept_effective(&mut self) -> Option<(String, Effective)> {
        let candidate = self.kept.candidate.as_ref().map(|candidate| candidate.told.clone());
        for told in candidate.into_iter().chain(self.kept.last_good.clone()) {
            match self.local.with(Some(&told.configuration)) {
                Ok(effective) => return Some((told.hash, effective)),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(hash = told.hash, error, "what was kept cannot be applied");
                    self.kept.candidate = None;
                    self.kept.failure = Some(failure(told.hash, &error, false));
                }
            }
        }
        None
    }

    /// What could not be applied may be possible now; what was taken back, to another agent.
    fn forget_failure(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        let is_over = |failure: &mut Failure| !failure.was_tried || failure.version != version;
        if let Some(failure) = self.kept.failure.take_if(is_over)
            && self.kept.received.as_ref() == Some(&failure.hash)
        {
            self.kept.received = None;
        }
    }

    fn count_death(&mut self) {
        let Some(candidate) = &mut self.kept.candidate else { return };
        candidate.deaths += u32::from(candidate.is_running);
        candidate.is_running = true;
        if candidate.deaths >= MAX_DEATHS {
            let error =
                format!("the agent ended unexpectedly {MAX_DEATHS} times while it tried this");
            let hash = candidate.told.hash.clone();
            tracing::warn!(hash, error, "the agent goes back to the last known good");
            self.kept.failure = Some(failure(hash, &error, true));
            self.kept.candidate = None;
        }
    }

    fn keep(&mut self, next: Kept) -> Result<(), DeskError> {
        next.write(&self.path).map_err(|source| self.unkept(source))?;
        self.kept = next;
        Ok(())
    }

    fn unkept(&self, source: io::Error) -> DeskError {
        DeskError::Keep { path: self.path.clone(), source }
    }
}

fn failure(hash: String, error: &str, was_tried: bool) -> Failure {
    // The protocol takes no NUL.
    let mut error = error.replace('\0', "\u{fffd}");
    error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
    Failure { hash, error, was_tried, version: env!("CARGO_PKG_VERSION").to_owned() }
}

#[cfg(test)]
mod tests;
