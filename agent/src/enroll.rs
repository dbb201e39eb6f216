//! How a host gets its identity, once.
//!
//! # First contact
//!
//! The token names the server's CA by the hash of its public key, and holds a secret. So: one TLS
//! handshake whose verifier records the certificates presented and then fails, always; among them the
//! one with a pinned key is chosen; a second connection trusts exactly that certificate, verified by the
//! stock verifier of rustls; only over that one is the secret sent. A verifier of our own that
//! compared the pin and went on could be met with the right certificate by someone without its key.
//!
//! # Retries
//!
//! The server knows a repeated request by the key in it, so an answer that got lost costs nothing: the
//! same command gives the same identity. Failures that may pass (nobody answers, 429, 5xx) are retried
//! here for about half a minute.

mod contact;
#[cfg(test)]
mod tests;
mod token;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::PublicKeyData as _;
use reqwest::Url;
use shared_model::{
    EnrollRequest, EnrollResponse, HostFacts, JoinToken, JoinTokenError, PROTOCOL_VERSION, Problem,
    ProblemCode, Timestamp,
};

use crate::identity::{self, Identity, IdentityError};
use crate::tls::{self, TlsError};

pub use token::{TOKEN_VARIABLE, read_token, remove_token};

/// Rounds over all endpoints before giving up.
const MAX_ROUNDS: u32 = 5;
/// Longest pause between two rounds, whatever a server asks for.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Largest answer read.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token file cannot be used.
    #[error("cannot use the token file {path}: {advice}")]
    TokenFile {
        /// Which.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// There is no file, no variable and no terminal.
    #[error(
        "no enrolment token: write it to a file of mode 0600 and pass --token-file, or set {TOKEN_VARIABLE}, or run this on a terminal"
    )]
    NoToken,
    /// The terminal cannot be used.
    #[error("cannot ask for the token on the terminal")]
    Terminal(#[source] std::io::Error),
    /// Not a token.
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    /// An endpoint of the token is not `https://host:port`.
    #[error("{0} in the token is not an https:// address")]
    Endpoint(String),
    /// Nobody answers.
    #[error("cannot reach {endpoint}: {cause}")]
    Unreachable {
        /// Which server.
        endpoint: String,
        /// Why not.
        cause: String,
    },
    /// Someone else answers, or the CA was replaced. The secret was not sent.
    #[error(
        "{endpoint} is not the server the token is for: none of its certificates has a pinned key (it presented {presented}). The token was not sent. Is something between this host and the server, or is the token older than the server's CA?"
    )]
    WrongPin {
        /// Which server.
        endpoint: String,
        /// Hashes of the keys presented.
        presented: String,
    },
    /// The certificate is not valid now, by this host's clock. The secret was not sent.
    #[error(
        "{endpoint} presents a certificate that is valid from {not_before} to {not_after}, but this host's clock says {now}: set the clock. The token was not sent."
    )]
    ClockSkew {
        /// Which server.
        endpoint: String,
        /// Begin of the certificate.
        not_before: String,
        /// End of the certificate.
        not_after: String,
        /// This host's clock.
        now: String,
    },
    /// The server does not hold the key of its certificate, or it has another name. Nothing was sent.
    #[error(
        "{endpoint} failed the verification of its certificate: {cause}. The token was not sent."
    )]
    Unverified {
        /// Which server.
        endpoint: String,
        /// Why.
        cause: String,
    },
    /// The server says no.
    #[error("{endpoint} refused: {detail} ({advice})")]
    Refused {
        /// Which server.
        endpoint: String,
        /// What programs act on.
        code: ProblemCode,
        /// The server's words.
        detail: String,
        /// What to do.
        advice: &'static str,
    },
    /// The server cannot answer now.
    #[error("{endpoint} cannot enrol now: {cause}; try again later, with the same token")]
    Busy {
        /// Which server.
        endpoint: String,
        /// Why.
        cause: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// What it answered is not the protocol.
    #[error("{endpoint} answered what is not an identity for this host's key: {cause}")]
    BadAnswer {
        /// Which server.
        endpoint: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The TLS set-up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The signing request.
    #[error("cannot make the certificate signing request")]
    SigningRequest(#[source] rcgen::Error),
}

/// The outcome of enrolment.
#[derive(Debug)]
pub enum Enrolled {
    /// The host has its identity now.
    New(Identity),
    /// It had one already; no server was asked and no token used.
    Already(Identity),
}

/// Enrols this host with `token` and stores the identity in `identity_dir`. `now` is for messages.
/// Needs a tokio runtime (current-thread will do).
pub async fn enroll(
    token: &JoinToken,
    facts: HostFacts,
    identity_dir: &Path,
    now: Timestamp,
) -> Result<Enrolled, EnrollError> {
    match Identity::load(identity_dir) {
        Ok(identity) => return Ok(Enrolled::Already(identity)),
        Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let key = identity::load_or_create_key(identity_dir)?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(EnrollError::SigningRequest)?;
    let request = EnrollRequest { version: PROTOCOL_VERSION, csr_pem: csr, facts };
    let mut round = 1;
    loop {
        let error = match one_round(token, &request, &key, now).await {
            Ok(response) => {
                return Ok(Enrolled::New(Identity::store(identity_dir, &response)?));
            }
            Err(error) => error,
        };
        let pause = match &error {
            EnrollError::Unreachable { .. } => Duration::from_secs(1 << round),
            EnrollError::Busy { retry_after, .. } => {
                retry_after.unwrap_or(Duration::from_secs(1 << round))
            }
            _ => return Err(error),
        };
        if round == MAX_ROUNDS {
            return Err(error);
        }
        let pause = pause.min(MAX_PAUSE).mul_f64(0.5 + tls::random_unit());
        tracing::warn!(%error, pause_ms = pause.as_millis(), "enrolment failed, trying again");
        tokio::time::sleep(pause).await;
        round += 1;
    }
}

/// Asks the endpoints in order until one gives an answer that another would give too.
async fn one_round(
    token: &JoinToken,
    request: &EnrollRequest,
    key: &rcgen::KeyPair,
    now: Timestamp,
) -> Result<EnrollResponse, EnrollError> {
    let mut worst = None;
    for endpoint in &token.endpoints {
        match ask(endpoint, token, request, now).await {
            Ok(response) => {
                check_answer(endpoint, &response, key)?;
                return Ok(response);
            }
            Err(error @ EnrollError::Refused { .. }) => return Err(error),
            // Someone in the middle is worth more words than someone who is away.
            Err(error) => match worst {
                None | Some(EnrollError::Unreachable { .. }) => worst = Some(error),
                Some(_) => {}
            },
        }
    }
    Err(worst.unwrap_or_else(|| EnrollError::Token(JoinTokenError::Damaged)))
}

async fn ask(
    endpoint: &str,
    token: &JoinToken,
    request: &EnrollRequest,
    now: Timestamp,
) -> Result<EnrollResponse, EnrollError> {
    let url: Url = endpoint
        .parse()
        .ok()
        .filter(|url: &Url| url.scheme() == "https" && url.host_str().is_some())
        .ok_or_else(|| EnrollError::Endpoint(endpoint.to_owned()))?;
    let presented = contact::presented_chain(&url, endpoint).await?;
    let root = contact::pinned(&presented, &token.pins).ok_or_else(|| EnrollError::WrongPin {
        endpoint: endpoint.to_owned(),
        presented: contact::key_hashes(&presented).join(", "),
    })?;
    let client = tls::http_client(tls::client_config(vec![root], None, None)?)?;
    let url = url.join("/v1/enroll").map_err(|_| EnrollError::Endpoint(endpoint.to_owned()))?;
    let mut authorization = reqwest::header::HeaderValue::from_str(&token.authorization())
        .map_err(|_| EnrollError::Token(JoinTokenError::Damaged))?;
    authorization.set_sensitive(true);
    let mut response = client
        .post(url)
        .header(reqwest::header::AUTHORIZATION, authorization)
        .json(request)
        .send()
        .await
        .map_err(|error| contact::explain(&error, endpoint, &presented, now))?;
    let status = response.status();
    let retry_after = tls::retry_after(&response);
    let body = tls::read_capped(&mut response, MAX_ANSWER_BYTES)
        .await
        .map_err(|error| contact::explain(&error, endpoint, &presented, now))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| EnrollError::BadAnswer {
            endpoint: endpoint.to_owned(),
            cause: error.to_string(),
        });
    }
    Err(refusal(endpoint, status.as_u16(), &body, retry_after))
}

/// What a status other than success means.
fn refusal(endpoint: &str, status: u16, body: &[u8], retry_after: Option<Duration>) -> EnrollError {
    let endpoint = endpoint.to_owned();
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().map_or_else(|| format!("HTTP {status}"), |p| p.detail.clone());
    if status == 429 || status >= 500 {
        return EnrollError::Busy { endpoint, cause: detail, retry_after };
    }
    let code = problem.map_or(ProblemCode::Unknown, |problem| problem.code);
    let advice = match code {
        ProblemCode::TokenInvalid => "is the token complete, and from this server?",
        ProblemCode::TokenExpired => "the token's time is over: create another",
        ProblemCode::TokenExhausted => "the token was used as often as it may be: create another",
        ProblemCode::TokenRevoked => "someone revoked the token: create another",
        ProblemCode::KeyAlreadyRegistered => {
            "this host's key was enrolled with another token: use that one, or remove the identity directory for a new key"
        }
        ProblemCode::UnsupportedVersion => "upgrade the older of agent and server",
        ProblemCode::BadCsr => "remove the identity directory for a new key",
        _ => "the server's log has more",
    };
    EnrollError::Refused { endpoint, code, detail, advice }
}

/// The certificate must be for our key and the bundle usable, or the host would be stuck with them.
fn check_answer(
    endpoint: &str,
    response: &EnrollResponse,
    key: &rcgen::KeyPair,
) -> Result<(), EnrollError> {
    let spki = key.subject_public_key_info();
    tls::check_identity(response, &spki)
        .map_err(|cause| EnrollError::BadAnswer { endpoint: endpoint.to_owned(), cause })
}
