//! How a host gets its identity: the token an operator pastes, and `POST /v1/enroll`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{HostFacts, Timestamp};

/// Prefix of every enrolment token, so that secret scanners, and our own redaction, find them.
pub const JOIN_TOKEN_PREFIX: &str = "pfj1_";
/// Prefix of every operator API key: `pfk1_<id>_<secret>`.
pub const API_KEY_PREFIX: &str = "pfk1_";
/// Longest token accepted, bytes.
pub const MAX_JOIN_TOKEN_BYTES: usize = 8192;

/// Everything a host needs to enrol, in one paste: `pfj1_` and the base64url of this as JSON.
///
/// The secret goes to a server only after that server's CA matched one of `pins`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Version of this format: 1.
    #[serde(rename = "v")]
    pub version: u8,
    /// Agent-door endpoints in order of preference, such as `https://collector.example:7443`.
    #[serde(rename = "u")]
    pub endpoints: Vec<String>,
    /// SHA-256 of the server CA's `SubjectPublicKeyInfo`, lower-case hex; current and next.
    #[serde(rename = "p")]
    pub pins: Vec<String>,
    /// Id of the token on the server.
    pub id: Uuid,
    /// 32 random bytes, base64url.
    #[serde(rename = "k")]
    pub secret: String,
}

/// A paste that is not a token. Never shows the paste.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// No prefix.
    #[error("an enrolment token begins with {JOIN_TOKEN_PREFIX}")]
    Prefix,
    /// Not base64url of the JSON documented at [`JoinToken`].
    #[error("the enrolment token is damaged or incomplete: paste it again, whole")]
    Damaged,
    /// A version this program does not know.
    #[error("the enrolment token has version {0}, this program knows 1: upgrade it")]
    Version(u8),
}

impl JoinToken {
    /// The paste. Named, not `Display`: the secret must not slip into a log.
    pub fn to_paste(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings, integers and a UUID always serialise")]
        let json = serde_json::to_vec(self).expect("a token serialises");
        format!("{JOIN_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// `Authorization` of `POST /v1/enroll`: `Bearer <id>.<secret>`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}.{}", self.id, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(paste: &str) -> Result<Self, JoinTokenError> {
        let body = paste.trim().strip_prefix(JOIN_TOKEN_PREFIX).ok_or(JoinTokenError::Prefix)?;
        if body.len() > MAX_JOIN_TOKEN_BYTES {
            return Err(JoinTokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| JoinTokenError::Damaged)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| JoinTokenError::Damaged)?;
        match token.version {
            1 if token.endpoints.is_empty() || token.pins.is_empty() => {
                Err(JoinTokenError::Damaged)
            }
            1 => Ok(token),
            other => Err(JoinTokenError::Version(other)),
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// Body of `POST /v1/enroll`. Idempotent on the CSR's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub version: u16,
    /// PKCS #10, PEM, P-256. The server takes its public key and nothing else.
    pub csr_pem: String,
    /// What the host says of itself.
    pub facts: HostFacts,
}

/// 201 (new host) or 200 (the same request again) to `POST /v1/enroll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollResponse {
    /// The identity: also in the certificate's SAN as `urn:procfleet:host:<uuid>`.
    pub host_id: Uuid,
    /// Client certificate and its issuers, PEM, leaf first.
    pub certificate_chain_pem: String,
    /// Server CAs to trust from now on, PEM.
    pub ca_bundle_pem: String,
    /// End of the certificate.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: Timestamp,
    /// When to renew it.
    #[serde(with = "time::serde::rfc3339")]
    pub renew_after: Timestamp,
    /// The server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub server_time: Timestamp,
    /// Agent-door endpoints in order of preference.
    pub endpoints: Vec<String>,
}
