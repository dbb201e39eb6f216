//! Agents: a client certificate verified by TLS, then looked up in the database per request.
//!
//! TLS alone does not know revocation: a connection lives for minutes, and a resumed session is not
//! verified again. So every request asks the database whether the certificate and its host are still
//! good, through a cache that keeps *good* answers for [`CHECK_TTL`] and bad ones not at all: a host
//! that enrolled a moment ago through another replica must never hear `host_unknown` from memory.
//! Without an answer from the database there is no identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use shared_model::ProblemCode;
use tokio::time::Instant;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::contacts::Contacts;
use super::secret::hex;
use crate::error::ApiError;
use crate::metrics::AGENTS_REFUSED;
use crate::store::Store;
use crate::store::certificates::CertificateState;

/// How long a good answer is believed: revocation works within it.
pub const CHECK_TTL: Duration = Duration::from_secs(10);
/// Good answers kept. Beyond, all are forgotten and asked again.
const MAX_CHECKS: usize = 65_536;
/// What precedes the host's id in the certificate's SAN.
pub const HOST_URN_PREFIX: &str = "urn:procfleet:host:";

/// A host that proved its identity with its client certificate, checked against the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// From the certificate's SAN.
    pub host_id: Uuid,
    /// The certificate's serial, hex.
    pub certificate_serial: String,
}

/// A client certificate whose chain, validity and usage TLS verified. Not yet an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// From the SAN URI.
    pub host_id: Uuid,
    /// Hex.
    pub serial: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub spki_sha256: [u8; 32],
}

/// A certificate of our client authority that is not of the form we issue.
#[derive(Debug, thiserror::Error)]
pub enum PeerCertificateError {
    /// Not X.509.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// Not for clients.
    #[error("the client certificate is not for client authentication alone")]
    Usage,
    /// No host id.
    #[error("the client certificate does not name exactly one host")]
    NoHost,
}

impl PeerCertificate {
    /// Reads what we put in when we issued it.
    pub fn parse(der: &[u8]) -> Result<Self, PeerCertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PeerCertificateError::Unreadable)?;
        let usage = certificate.extended_key_usage().ok().flatten();
        if !usage.is_some_and(|usage| usage.value.client_auth && !usage.value.server_auth) {
            return Err(PeerCertificateError::Usage);
        }
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let [GeneralName::URI(uri)] = names else { return Err(PeerCertificateError::NoHost) };
        let host_id = uri
            .strip_prefix(HOST_URN_PREFIX)
            .and_then(|id| Uuid::try_parse(id).ok())
            .ok_or(PeerCertificateError::NoHost)?;
        let serial = hex(&certificate.tbs_certificate.serial.to_bytes_be());
        let spki_sha256 = Sha256::digest(certificate.public_key().raw).into();
        Ok(Self { host_id, serial, spki_sha256 })
    }
}

/// Decides whether a verified certificate is still a host's identity.
#[derive(Debug)]
pub struct CertificateChecks {
    store: Store,
    ttl: Duration,
    good: Mutex<HashMap<String, Instant>>,
    contacts: Arc<Contacts>,
}

impl CertificateChecks {
    /// Good answers are believed for `ttl`.
    pub fn new(store: Store, ttl: Duration) -> Self {
        Self { store, ttl, good: Mutex::default(), contacts: Arc::default() }
    }

    /// Where the hosts of good certificates are noted.
    pub fn contacts(&self) -> Arc<Contacts> {
        Arc::clone(&self.contacts)
    }

    /// The identity, or why there is none.
    pub async fn check(&self, peer: &PeerCertificate) -> Result<AgentIdentity, ApiError> {
        let identity =
            AgentIdentity { host_id: peer.host_id, certificate_serial: peer.serial.clone() };
        if self.is_known_good(&peer.serial) {
            return Ok(identity);
        }
        let asked_at = Instant::now();
        let state =
            self.store.certificate_state(&peer.serial, peer.host_id, &peer.spki_sha256).await?;
        if state == CertificateState::Good {
            let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            if good.len() >= MAX_CHECKS {
                good.clear();
            }
            good.insert(peer.serial.clone(), asked_at);
            return Ok(identity);
        }
        if matches!(state, CertificateState::HostPending | CertificateState::HostQuarantined) {
            // It lives, and is who it says, whatever an operator decides about it.
            self.contacts.note(peer.host_id);
        }
        let refusal = refusal(state);
        metrics::counter!(AGENTS_REFUSED, "code" => refusal.problem.code.as_str()).increment(1);
        Err(refusal.closing())
    }

    fn is_known_good(&self, serial: &str) -> bool {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.get(serial).is_some_and(|checked_at| checked_at.elapsed() < self.ttl)
    }
}

/// What a host hears whose certificate is in this state.
pub fn refusal(state: CertificateState) -> ApiError {
    let (code, detail) = match state {
        CertificateState::Unknown | CertificateState::Good => (
            ProblemCode::HostUnknown,
            "This server's database has no host with this certificate. Keep the identity and retry.",
        ),
        CertificateState::Revoked => (
            ProblemCode::CertificateRevoked,
            "The certificate was revoked, was replaced by a newer one, or has expired.",
        ),
        CertificateState::HostPending => (
            ProblemCode::HostPending,
            "An operator must approve this host first. Keep the reports and retry.",
        ),
        CertificateState::HostQuarantined => (
            ProblemCode::HostQuarantined,
            "The host is quarantined until an operator decides. Keep the reports and retry.",
        ),
        CertificateState::Decommissioned => {
            (ProblemCode::HostDecommissioned, "An operator decommissioned this host.")
        }
    };
    ApiError::new(code, detail)
}

impl<S: Sync> FromRequestParts<S> for AgentIdentity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(identity) = parts.extensions.get::<Self>() {
            return Ok(identity.clone());
        }
        let peer = parts.extensions.get::<Arc<PeerCertificate>>().cloned();
        let checks = parts.extensions.get::<Arc<CertificateChecks>>().cloned();
        let (Some(peer), Some(checks)) = (peer, checks) else {
            return Err(ApiError::new(
                ProblemCode::NoClientCertificate,
                "This route needs the client certificate of an enrolled host.",
            ));
        };
        let identity = checks.check(&peer).await?;
        checks.contacts.note(identity.host_id);
        parts.extensions.insert(identity.clone());
        Ok(identity)
    }
}
