//! `update work` and `update boot-check`: what root does, one step after the other.
//!
//! Every change follows one order: the release on disk, the ledger, the link, the rest. `reconcile` begins each run and
//! finishes what was announced in the ledger and not done; a request is taken away last, so that it is taken up again.

use std::path::PathBuf;
use std::time::Duration;

use shared_model::UpdateState;
use shared_model::limits::MAX_INTERVAL_MS;
use shared_model::release::target;

use super::drop_box::{DropBox, Opened, Request, Unusable};
use super::install::{self, InstallError, SelfTest};
use super::layout::{Layout, Link, id_of};
use super::ledger::{Ledger, Moment};
use super::trial::{self, Times, Verdict};
use super::trust::{self, Refused};
use super::{FileError, Options, services};
use crate::causes::chain;

/// A host, as root sees it.
#[derive(Clone, Debug)]
pub struct Worker {
    layout: Layout,
    drop_box: DropBox,
    options: Options,
    self_test: SelfTest,
}

/// Why a request is not followed.
#[derive(Debug, thiserror::Error)]
enum Declined {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("{} points at no release: run the install script again", .0.display())]
    NotInstalled(PathBuf),
}

impl From<FileError> for Declined {
    fn from(error: FileError) -> Self {
        Self::Install(error.into())
    }
}

impl Worker {
    /// Of the host whose agent keeps its state in `state_dir`; `config`: as it was named on the command line.
    pub fn new(options: &Options, state_dir: &std::path::Path, config: Option<PathBuf>) -> Self {
        Self {
            layout: Layout::new(&options.base),
            drop_box: DropBox::new(state_dir),
            options: options.clone(),
            self_test: SelfTest { config },
        }
    }

    /// Before each start of the agent: counts it, and takes a release back that was started too often.
    pub fn boot_check(&self, now: &Moment) -> Result<(), FileError> {
        let _lock = self.layout.lock()?;
        let mut ledger = self.load()?;
        if !ledger.is_on_probation() {
            return Ok(());
        }
        match trial::start(&mut ledger, now) {
            Verdict::RollBack(reason) => self.roll_back(&mut ledger, &reason),
            Verdict::Confirm | Verdict::Wait => {
                services::watch();
                ledger.store(&self.layout.ledger())
            }
        }
    }

    /// Settles a probation and follows a request. `reaches` asks whether a server serves this host.
    pub fn work(&self, now: &Moment, reaches: impl FnOnce() -> bool) -> Result<(), FileError> {
        let _lock = self.layout.lock()?;
        let mut ledger = self.load()?;
        let opened = self.drop_box.open();
        let Some(opened) = opened.map_err(FileError::of("open", self.options.base.clone()))? else {
            return Ok(());
        };
        let mut done = Ok(());
        if ledger.is_on_probation() {
            done = self.settle(&mut ledger, now, &opened, reaches);
        }
        // While one release proves itself no other is tried.
        if done.is_ok() && !ledger.is_on_probation() {
            done = self.follow(&mut ledger, now, &opened);
        }
        // Also if the disk refused: the service manager would start this over and over. The agent asks again.
        opened.clear_working();
        opened.clear_request();
        done
    }

    /// The ledger, and what it announces done.
    fn load(&self) -> Result<Ledger, FileError> {
        let mut ledger = Ledger::load(&self.layout.ledger());
        self.reconcile(&mut ledger)?;
        Ok(ledger)
    }

    fn reconcile(&self, ledger: &mut Ledger) -> Result<(), FileError> {
        let (Some(from), Some(to)) = (ledger.from.clone(), ledger.to.clone()) else {
            return Ok(());
        };
        let current = self.layout.target(Link::Current);
        match ledger.state {
            Some(UpdateState::Probation) if !self.layout.has(&to) => {
                self.roll_back(ledger, "its program is not there any more")
            }
            Some(UpdateState::Probation) if current.as_ref() != Some(&to) => {
                self.layout.point(Link::Current, &to)
            }
            Some(UpdateState::RolledBack) if current.as_ref() == Some(&to) => {
                self.layout.point(Link::Current, &from)
            }
            Some(UpdateState::Confirmed)
                if current.as_ref() == Some(&to)
                    && self.layout.target(Link::Confirmed).as_ref() != Some(&to) =>
            {
                self.layout.point(Link::Confirmed, &to)
            }
            _ => Ok(()),
        }
    }

    fn settle(
        &self,
        ledger: &mut Ledger,
        now: &Moment,
        opened: &Opened,
        reaches: impl FnOnce() -> bool,
    ) -> Result<(), FileError> {
        let times = Times {
            deadline: Duration::from_secs(self.options.deadline_s.into()),
            grace: Duration::from_secs(self.options.grace_s.into()),
        };
        let is_working = opened.working().is_some() && opened.working() == ledger.to;
        match trial::look(ledger, now, times, is_working, reaches) {
            Verdict::Wait => ledger.store(&self.layout.ledger()),
            Verdict::Confirm => self.confirm(ledger),
            Verdict::RollBack(reason) => {
                self.roll_back(ledger, &reason)?;
                services::restart_agent();
                Ok(())
            }
        }
    }

    fn confirm(&self, ledger: &mut Ledger) -> Result<(), FileError> {
        (ledger.state, ledger.reason) = (Some(UpdateState::Confirmed), None);
        ledger.store(&self.layout.ledger())?;
        if let Some(to) = &ledger.to {
            self.layout.point(Link::Confirmed, to)?;
        }
        self.prune(ledger);
        services::stop_watching();
        tracing::info!(seq = ledger.target_seq, "the release works: it stays");
        Ok(())
    }

    fn roll_back(&self, ledger: &mut Ledger, reason: &str) -> Result<(), FileError> {
        ledger.give_up(UpdateState::RolledBack, reason, true);
        ledger.store(&self.layout.ledger())?;
        if let Some(from) = &ledger.from {
            self.layout.point(Link::Current, from)?;
        }
        services::stop_watching();
        tracing::error!(seq = ledger.target_seq, reason, "the release is taken back");
        Ok(())
    }

    /// Installs what the agent asks for, or says why not.
    fn follow(&self, ledger: &mut Ledger, now: &Moment, opened: &Opened) -> Result<(), FileError> {
        let request = match opened.request() {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => Ok(request),
            Err(unusable) => Err(unusable.into()),
        };
        // For the report, if it is refused: by its own word.
        let said = request.as_ref().ok().and_then(|request| request.release.unverified().ok());
        (ledger.target_seq, ledger.to) = (said.map(|manifest| manifest.seq), None);
        let Err(declined) = request.and_then(|request| self.replace(ledger, now, opened, &request))
        else {
            return Ok(());
        };
        let reason = chain(&declined);
        tracing::error!(seq = ledger.target_seq, reason, "a release is not installed");
        let is_bad = matches!(&declined, Declined::Install(failed) if failed.is_of_the_release());
        ledger.give_up(UpdateState::Failed, &reason, is_bad);
        ledger.store(&self.layout.ledger())
    }

    fn replace(
        &self,
        ledger: &mut Ledger,
        now: &Moment,
        opened: &Opened,
        request: &Request,
    ) -> Result<(), Declined> {
        let manifest = trust::verify(&request.release, &trust::roots(&self.options.trusted_keys))?;
        let current = self.layout.target(Link::Current);
        let current = current
            .filter(|id| self.layout.has(id))
            .ok_or_else(|| Declined::NotInstalled(self.options.base.join("current")))?;
        let wanted = manifest.artifact(target()).map(|artifact| id_of(&artifact.sha256).to_owned());
        (ledger.target_seq, ledger.to) = (Some(manifest.seq), wanted);
        (ledger.from, ledger.reason) = (Some(current.clone()), None);
        let artifact = trust::admit(&manifest, self.layout.manifest(&current).as_ref(), ledger)?;
        if id_of(&artifact.sha256) == current {
            // The same binary under another number.
            self.layout.redescribe(&current, &request.release)?;
            ledger.state = Some(UpdateState::Confirmed);
            return Ok(ledger.store(&self.layout.ledger())?);
        }
        let file = opened.artifact()?;
        let described = (&request.release, &artifact);
        install::install(&self.layout, described, file, &self.self_test, Some(&current))?;
        self.begin_probation(ledger, now, request, &current)?;
        tracing::info!(seq = manifest.seq, version = manifest.version, "a release is on probation");
        Ok(())
    }

    fn begin_probation(
        &self,
        ledger: &mut Ledger,
        now: &Moment,
        request: &Request,
        current: &str,
    ) -> Result<(), FileError> {
        *ledger = Ledger {
            state: Some(UpdateState::Probation),
            from: Some(current.to_owned()),
            to: ledger.to.take(),
            target_seq: ledger.target_seq,
            since: Some(now.clone()),
            interval_s: request.interval_s.min(u64::from(MAX_INTERVAL_MS) / 1000),
            bad: std::mem::take(&mut ledger.bad),
            ..Ledger::default()
        };
        ledger.store(&self.layout.ledger())?;
        if let Some(to) = &ledger.to {
            self.layout.point(Link::Current, to)?;
        }
        services::watch();
        Ok(())
    }

    fn prune(&self, ledger: &Ledger) {
        let linked = [Link::Current, Link::Confirmed].map(|link| self.layout.target(link));
        let [current, confirmed] = linked;
        self.layout.prune(&[current, confirmed, ledger.from.clone(), ledger.to.clone()]);
    }
}
