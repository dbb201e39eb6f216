//! The agent's side of self-update: follows the release that servers name, unprivileged.
//!
//! It fetches the release and its binary into its own directory, checks both as root will ([`crate::update`]), and asks root to
//! install. When `current` points elsewhere it says goodbye and ends, and the service manager starts what is there now. On probation it
//! tells root that it works once [`REPORTS`] reports of its own were accepted and it has run for `stable_s`.
//!
//! What it is up to stands in every report. What failed is tried again after [`WAITS`], doubling; what was taken back on this host
//! never. Only hosts where root's side is set up (there is a link `confirmed`) follow anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared_model::release::Artifact;
use shared_model::{UpdateState, UpdateStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::causes::chain;
use crate::spool::Spool;
use crate::tls;
use crate::update::Options;
use crate::update::drop_box::{DropBox, Request};
use crate::update::layout::{Layout, Link, id_of};
use crate::update::ledger::{Ledger, cut};
use crate::update::trust::{self, Digest, Refused};
use crate::uplink::Uplink;
use crate::uplink::artifacts::ArtifactError;
use crate::uplink::news::Delivered;

/// Between two looks at the links and the ledger.
const TICK: Duration = Duration::from_secs(1);
/// Accepted reports of its own that a release needs.
const REPORTS: u64 = 2;
/// How long root may take to answer a request.
const ANSWER: Duration = Duration::from_mins(5);
/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(6));
/// Largest binary that is fetched, bytes.
const MAX_BYTES: u64 = 256 << 20;

/// See the module.
#[derive(Debug)]
pub struct Updater {
    options: Options,
    layout: Layout,
    drop_box: DropBox,
    /// The agent's interval, s.
    interval_s: u64,
    started: Instant,
    status: watch::Sender<Option<UpdateStatus>>,
}

/// What it is doing, beside what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Doing {
    state: UpdateState,
    seq: u64,
    reason: Option<String>,
}

/// A release that could not be had.
#[derive(Debug)]
struct Failure {
    seq: u64,
    count: u32,
    again: Instant,
}

/// From where on accepted reports count.
#[derive(Debug)]
struct Baseline {
    stream_id: Uuid,
    sequence: u64,
}

/// Why an attempt ended without a request to root.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the server's release {0} is another one than it named")]
    OtherRelease(u64),
    #[error("the binary has {0} bytes, more than {max} MiB", max = MAX_BYTES >> 20)]
    TooLarge(u64),
    #[error("the download is not the binary of the release: it is fetched anew")]
    NotTheBinary,
    #[error("the update directory cannot be used")]
    File(#[from] std::io::Error),
    #[error(
        "nobody installed it within {} min: is procfleet-agent-update.path active?",
        ANSWER.as_secs() / 60
    )]
    NoAnswer,
}

impl Updater {
    /// Of an agent with its state in `state_dir`, and what it says in reports.
    pub fn new(
        options: Options,
        state_dir: &std::path::Path,
        interval: Duration,
    ) -> (Self, watch::Receiver<Option<UpdateStatus>>) {
        let layout = Layout::new(&options.base);
        let (status, said) = watch::channel(None);
        let drop_box = DropBox::new(state_dir);
        let interval_s = interval.as_secs().max(1);
        let updater =
            Self { options, layout, drop_box, interval_s, started: Instant::now(), status };
        if let Some(own) = updater.layout.own() {
            updater.tell(&own, None);
        }
        (updater, said)
    }

    /// Until `stop`, or until another release is to run: then `leave` is cancelled.
    pub async fn run(
        &self,
        uplink: &Uplink,
        spool: &Arc<Spool>,
        stop: &CancellationToken,
        leave: &CancellationToken,
    ) {
        // Of a package, in a container, or built by hand: others care for it.
        let Some(own) = self.layout.own() else { return };
        let work = async {
            tokio::join!(self.prove(&own, uplink, spool, leave), self.follow(&own, uplink));
        };
        stop.run_until_cancelled(work).await;
    }

    fn is_followed(&self) -> bool {
        self.options.enabled && self.layout.target(Link::Confirmed).is_some()
    }

    /// Leaves when another release is to run; says that this one works.
    async fn prove(&self, own: &str, uplink: &Uplink, spool: &Spool, leave: &CancellationToken) {
        let delivered = uplink.delivered();
        let mut baseline =
            Baseline { stream_id: spool.stream_id(), sequence: spool.stats().last_sequence };
        let mut said: Option<Instant> = None;
        while !leave.is_cancelled() {
            tokio::time::sleep(TICK).await;
            if self.layout.target(Link::Current).is_some_and(|current| current != own) {
                tracing::info!("another release is to run: the agent leaves");
                leave.cancel();
            }
            let ledger = Ledger::load(&self.layout.ledger());
            if !ledger.is_on_probation() || ledger.to.as_deref() != Some(own) {
                continue;
            }
            let stable = Duration::from_secs(self.options.stable_s.into());
            let is_working = baseline.count(&delivered.borrow()) >= REPORTS;
            let is_due = said.is_none_or(|at| at.elapsed() > ANSWER);
            if is_working && is_due && self.started.elapsed() >= stable {
                let asked = self.drop_box.create().and_then(|()| self.drop_box.say_working(own));
                if let Err(error) = asked {
                    tracing::warn!(%error, "root cannot be told that this release works");
                }
                said = Some(Instant::now());
            }
        }
    }

    /// Does what the servers name.
    async fn follow(&self, own: &str, uplink: &Uplink) {
        let mut desired = uplink.desired_release();
        let mut failure: Option<Failure> = None;
        let mut doing: Option<Doing> = None;
        loop {
            // The sender lives in the uplink, which outlives this.
            let seq = *desired.borrow_and_update();
            let wanted = seq.filter(|seq| self.is_wanted(own, *seq));
            if wanted.is_none_or(|seq| doing.as_ref().is_some_and(|doing| doing.seq != seq)) {
                doing = None;
            }
            let is_due =
                |seq| failure.as_ref().is_none_or(|f| f.seq != seq || Instant::now() >= f.again);
            if let Some(seq) = wanted.filter(|seq| is_due(*seq)) {
                let ended = tokio::select! {
                    ended = self.attempt(own, uplink, seq) => Some(ended),
                    // Cancelled, or another one.
                    Ok(()) = desired.changed() => None,
                };
                let before = failure.take().filter(|f| f.seq == seq).map_or(0, |f| f.count);
                doing = match ended {
                    Some(Err(error)) => {
                        failure = Some(self.failed(seq, before, &error));
                        let reason = Some(cut(&chain(&error)));
                        Some(Doing { state: UpdateState::Failed, seq, reason })
                    }
                    // Root has answered, and the ledger says what; if it refused, it is asked again.
                    Some(Ok(())) => {
                        failure = Some(Failure::after(seq, before, None));
                        None
                    }
                    None => None,
                };
            }
            self.tell(own, doing.as_ref());
            tokio::time::sleep(TICK).await;
        }
    }

    fn is_wanted(&self, own: &str, seq: u64) -> bool {
        let ledger = Ledger::load(&self.layout.ledger());
        let installed = self.layout.manifest(own).map(|manifest| manifest.seq);
        self.is_followed()
            && installed != Some(seq)
            && !ledger.is_on_probation()
            && !ledger.bad.iter().any(|bad| bad.seq == seq)
    }

    fn failed(&self, seq: u64, before: u32, error: &AttemptError) -> Failure {
        tracing::warn!(seq, error = chain(error), "a release is not installed; it is tried again");
        if !matches!(error, AttemptError::Artifact(_)) {
            self.drop_box.discard();
        }
        let asked = match error {
            AttemptError::Artifact(ArtifactError::Nobody { retry_after, .. }) => *retry_after,
            _ => None,
        };
        Failure::after(seq, before, asked)
    }

    /// Fetches, checks, asks root, and waits for its answer.
    async fn attempt(&self, own: &str, uplink: &Uplink, seq: u64) -> Result<(), AttemptError> {
        let tell = |state| self.tell(own, Some(&Doing { state, seq, reason: None }));
        tell(UpdateState::Requested);
        self.drop_box.create()?;
        let release = uplink.fetch_release(seq).await?;
        let manifest = trust::verify(&release, &trust::roots(&self.options.trusted_keys))?;
        if manifest.seq != seq {
            return Err(AttemptError::OtherRelease(manifest.seq));
        }
        let ledger = Ledger::load(&self.layout.ledger());
        let artifact = trust::admit(&manifest, self.layout.manifest(own).as_ref(), &ledger)?;
        if artifact.size > MAX_BYTES {
            return Err(AttemptError::TooLarge(artifact.size));
        }
        if id_of(&artifact.sha256) != own {
            tell(UpdateState::Downloading);
            self.fetch(uplink, &artifact).await?;
        }
        tell(UpdateState::Staged);
        self.drop_box.ask(&Request { release, interval_s: self.interval_s })?;
        let asked = Instant::now();
        while self.drop_box.is_asked() {
            if asked.elapsed() > ANSWER {
                return Err(AttemptError::NoAnswer);
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    async fn fetch(&self, uplink: &Uplink, artifact: &Artifact) -> Result<(), AttemptError> {
        let path = self.drop_box.artifact();
        uplink.fetch_artifact(artifact, &path).await?;
        if digest(&path)? == artifact.sha256 { Ok(()) } else { Err(AttemptError::NotTheBinary) }
    }

    /// What the next report says.
    fn tell(&self, own: &str, doing: Option<&Doing>) {
        let mut status = Ledger::load(&self.layout.ledger()).status(&self.layout, own);
        if let Some(doing) = doing {
            status.state = doing.state;
            (status.target_seq, status.reason) = (Some(doing.seq), doing.reason.clone());
        }
        if !self.is_followed() {
            status =
                UpdateStatus { state: UpdateState::Off, target_seq: None, reason: None, ..status };
        }
        self.status.send_if_modified(|said| {
            let is_other = said.as_ref() != Some(&status);
            *said = Some(status);
            is_other
        });
    }
}

impl Failure {
    fn after(seq: u64, before: u32, asked: Option<Duration>) -> Self {
        let doubled = WAITS.0.saturating_mul(1 << before.min(16)).min(WAITS.1);
        let wait = asked.unwrap_or_default().max(doubled).min(WAITS.1);
        // A fleet that failed together does not come back together.
        let wait = wait.mul_f64(0.5 + tls::random_unit());
        Self { seq, count: before + 1, again: Instant::now() + wait }
    }
}

impl Baseline {
    /// Reports accepted since, in a row.
    fn count(&mut self, delivered: &Delivered) -> u64 {
        if delivered.sequence == 0 && delivered.stream_id.is_nil() {
            return 0;
        }
        if delivered.stream_id != self.stream_id {
            *self = Self { stream_id: delivered.stream_id, sequence: delivered.sequence };
        }
        let rejected =
            delivered.rejected.iter().filter(|reject| reject.stream_id == self.stream_id);
        let last_rejected = rejected.map(|reject| reject.sequence).max().unwrap_or(0);
        self.sequence = self.sequence.max(last_rejected);
        delivered.sequence.saturating_sub(self.sequence)
    }
}

fn digest(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let (mut digest, mut piece) = (Digest::default(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest.finish()),
            read => digest.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
#[path = "updater/tests.rs"]
mod tests;
