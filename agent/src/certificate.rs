//! Keeps the host's certificate young, and gets another after it expired.
//!
//! A loop beside the uplink. When two thirds of the certificate's life are over (the server says when,
//! with a spread), a new key gets a new certificate under the old one; the first request under the
//! new one puts it into force on the server; then it is adopted on disk and by the uplink. The steps
//! and their order on disk are those of [`next`](crate::identity::next): this loop goes on wherever a
//! crash left them.
//!
//! A certificate that the server takes no longer, because it expired while the host was off, or
//! because the host went back to an older one, is recovered by proof of its key, without TLS client
//! authentication. That is tried as well when the uplink fails and asking shows that the certificate
//! is the reason, so that a wrong clock does not keep a host from seeing that it is time.
//!
//! The same loop follows the server's authorities when they are replaced ([`trust`]).
//!
//! No answer destroys anything. What fails is tried again, from once a minute to every six hours; the
//! wait is shorter where certificates are.

mod exchange;
mod renew;
mod trust;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::Url;
use shared_model::{ProblemCode, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::{Identity, IdentityError};
use crate::server_clock::{ServerClock, since_boot};
use crate::tls::{self, TlsError};

/// Longest time between two looks at the clock: it may be set, or the host may have slept.
const LONGEST_LOOK: Duration = Duration::from_mins(1);
/// Bounds of the first wait after a failure.
const FIRST_WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Longest wait after failures.
const LONGEST_WAIT: Duration = Duration::from_hours(6);
/// Shortest time between two questions whom to trust: replicas hear of a change at different times.
const TRUST_PAUSE: Duration = Duration::from_secs(5);
/// Time between two questions whether the certificate is why the uplink fails.
const DOUBT_PAUSE: Duration = Duration::from_mins(10);

/// Why there is no new certificate yet. The one in use is not touched.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// On disk.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity cannot be used for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An endpoint is not `https://host:port`.
    #[error("the endpoint {0} is not an https:// address")]
    Endpoint(String),
    /// The signing request or the proof.
    #[error("cannot sign with the host's key")]
    Sign(#[source] rcgen::Error),
    /// Nobody answers.
    #[error("cannot reach {endpoint}: {cause}")]
    Unreachable {
        /// Which server.
        endpoint: String,
        /// Why not.
        cause: String,
    },
    /// The server's TLS does not take the certificate.
    #[error("{endpoint} does not take the certificate: {cause}")]
    NotTaken {
        /// Which server.
        endpoint: String,
        /// The alert.
        cause: String,
    },
    /// The server says no.
    #[error("{endpoint} refused: {detail}")]
    Refused {
        /// Which server.
        endpoint: String,
        /// What programs act on.
        code: ProblemCode,
        /// The server's words.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// What it answered is not the protocol.
    #[error("{endpoint} answered what is not an identity of this host: {cause}")]
    BadAnswer {
        /// Which server.
        endpoint: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl CertificateError {
    /// Whether the server takes the certificate no longer: the old key may still help.
    fn is_of_the_certificate(&self) -> bool {
        let code = match self {
            Self::NotTaken { .. } => return true,
            Self::Refused { code, .. } => *code,
            _ => return false,
        };
        matches!(code, ProblemCode::CertificateRevoked | ProblemCode::NoClientCertificate)
    }
}

/// Keeps one host's certificate.
#[derive(Debug)]
pub struct Keeper {
    /// `<state_dir>/identity`.
    pub dir: PathBuf,
    /// Instead of the identity's endpoints, unless empty.
    pub endpoints: Vec<String>,
    /// In use.
    pub identity: Identity,
    /// What the host's clock is held against.
    pub clock: ServerClock,
}

impl Keeper {
    /// Runs until `stop`. `in_use` is told of every new identity; `in_trouble` says whether the uplink
    /// fails; `offered` is the set of authorities that the server named last.
    pub async fn run(
        mut self,
        stop: &CancellationToken,
        in_use: impl Fn(&Identity),
        in_trouble: impl Fn() -> bool,
        mut offered: watch::Receiver<Option<String>>,
    ) {
        let mut failures = 0;
        let mut told = None;
        let mut next_trust = Instant::now();
        // Not a deadline of the certificate, which the wall clock tells: the earliest next try.
        let mut next_try = Instant::now();
        let mut next_doubt = Instant::now();
        loop {
            #[expect(clippy::disallowed_methods, reason = "this loop owns the clock")]
            let wall = Timestamp::now_utc();
            let now = wall + self.clock.offset(wall, since_boot());
            let endpoint = self.endpoint(failures);
            let started = Instant::now();
            let offer = offered.borrow_and_update().clone();
            if offer.is_some() && offer != told && started >= next_trust {
                told = self.follow(&endpoint, &in_use).await;
                next_trust =
                    Instant::now() + if told.is_some() { TRUST_PAUSE } else { LONGEST_LOOK };
            }
            let mut due = self.until_due(now).is_zero() && started >= next_try;
            if !due && started >= next_doubt.max(next_try) && in_trouble() {
                next_doubt = started + DOUBT_PAUSE;
                due = self.certificate_is_at_fault(&endpoint).await;
            }
            if due {
                let wait = match self.replace(&endpoint).await {
                    Ok(()) => {
                        failures = 0;
                        // It came with a set of its own.
                        told = None;
                        tracing::info!(not_after = %self.identity.not_after, "the certificate was renewed");
                        in_use(&self.identity);
                        // However wrong this host's clock is: a new certificate is good for a while.
                        self.slack()
                    }
                    Err(error) => {
                        failures += 1;
                        let wait = self.wait(failures, &error, tls::random_unit());
                        note(&error, failures, wait);
                        wait
                    }
                };
                next_try = Instant::now() + wait;
            }
            let pause = self.until_due(now).max(next_try.saturating_duration_since(Instant::now()));
            let pause = tokio::time::sleep(pause.clamp(FIRST_WAIT.0, LONGEST_LOOK));
            tokio::select! {
                () = pause => {}
                Ok(()) = offered.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Trusts whom the server trusts now. The set's id, once the server knows.
    async fn follow(&mut self, endpoint: &str, in_use: impl Fn(&Identity)) -> Option<String> {
        match self.refresh_trust(endpoint).await {
            Ok((trust_id, changed)) => {
                if changed {
                    tracing::info!(trust_id, "another set of authorities is trusted");
                    in_use(&self.identity);
                }
                Some(trust_id)
            }
            Err(error) => {
                tracing::warn!(error = tls::chain(&error), "the authorities of now are not known");
                None
            }
        }
    }

    /// The endpoint to ask after so many failures.
    fn endpoint(&self, failures: u32) -> String {
        let all =
            if self.endpoints.is_empty() { &self.identity.endpoints } else { &self.endpoints };
        let index = usize::try_from(failures).unwrap_or(0) % all.len().max(1);
        all.get(index).cloned().unwrap_or_default()
    }

    /// Zero: it is time.
    fn until_due(&self, now: Timestamp) -> Duration {
        // A renewal under way is always due: the server may have put it into force.
        if crate::identity::next::staged(&self.dir).is_ok_and(|staged| staged.is_some()) {
            return Duration::ZERO;
        }
        Duration::try_from(self.identity.renew_after - now).unwrap_or(Duration::ZERO)
    }

    /// The third of a life that is left when renewal begins.
    fn slack(&self) -> Duration {
        Duration::try_from(self.identity.not_after - self.identity.renew_after)
            .unwrap_or(Duration::ZERO)
    }

    fn first_wait(&self) -> Duration {
        (self.slack() / 600).clamp(FIRST_WAIT.0, FIRST_WAIT.1)
    }

    /// Full jitter under a bound that doubles; never so long that the certificate ends in between.
    fn wait(&self, failures: u32, error: &CertificateError, unit: f64) -> Duration {
        let asked = match error {
            CertificateError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        let longest = (self.slack() / 4).clamp(self.first_wait(), LONGEST_WAIT);
        let doubled = self.first_wait().saturating_mul(1 << failures.saturating_sub(1).min(20));
        let wait = doubled.min(longest).mul_f64(0.5 + unit / 2.0);
        wait.max(asked.unwrap_or_default().min(LONGEST_WAIT))
    }

    async fn certificate_is_at_fault(&self, endpoint: &str) -> bool {
        let answer = self.in_force(endpoint, &self.identity).await;
        answer.is_err_and(|error| error.is_of_the_certificate())
    }

    /// Takes whatever steps are left to a new identity in use.
    pub async fn replace(&mut self, endpoint: &str) -> Result<(), CertificateError> {
        if let Some(staged) = crate::identity::next::staged(&self.dir)? {
            match self.in_force(endpoint, &staged).await {
                Ok(()) => return self.adopt(),
                // It will be replaced by another, and only once a server has given that.
                Err(error) if error.is_of_the_certificate() || is_unknown(&error) => {
                    tracing::warn!(error = tls::chain(&error), "a staged certificate is not taken");
                }
                Err(error) => return Err(error),
            }
        }
        let staged = match self.obtain(endpoint).await {
            Err(error) if error.is_of_the_certificate() => {
                tracing::warn!(
                    error = tls::chain(&error),
                    "recovering by proof of the old certificate's key"
                );
                self.recover(endpoint).await?
            }
            obtained => obtained?,
        };
        self.in_force(endpoint, &staged).await?;
        self.adopt()
    }

    fn adopt(&mut self) -> Result<(), CertificateError> {
        self.identity = crate::identity::next::adopt(&self.dir)?;
        Ok(())
    }
}

fn is_unknown(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Refused { code: ProblemCode::HostUnknown, .. })
}

fn note(error: &CertificateError, failures: u32, wait: Duration) {
    let error = tls::chain(error);
    if failures == 1 || failures.is_multiple_of(20) {
        tracing::warn!(error, failures, wait_s = wait.as_secs(), "the certificate is not renewed");
    } else {
        tracing::debug!(error, failures, wait_s = wait.as_secs(), "the certificate is not renewed");
    }
}

fn url(endpoint: &str, path: &str) -> Result<Url, CertificateError> {
    endpoint
        .parse()
        .ok()
        .filter(|url: &Url| url.scheme() == "https")
        .and_then(|url| url.join(path).ok())
        .ok_or_else(|| CertificateError::Endpoint(endpoint.to_owned()))
}
