//! How a host keeps its identity: renewal of its certificate, and recovery after it expired.
//!
//! Every answer that issues a certificate is an [`EnrollResponse`](crate::EnrollResponse). The
//! certificate is *pending* until its first use, and the one before it stays good until then, so that
//! an answer that got lost, or a host that crashed with it, costs nothing. Requests are idempotent on
//! the key of their CSR.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// Body of `POST /v1/certificate`, sent under the certificate that is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub version: u16,
    /// PKCS #10, PEM, P-256, of a new key. The server takes its public key and nothing else.
    pub csr_pem: String,
}

/// 200 to `GET /v1/certificate`: the certificate of the request is good, and in use from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInUse {
    /// The host it stands for.
    pub host_id: Uuid,
    /// Hex.
    pub serial: String,
    /// The server's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub server_time: Timestamp,
}

/// Names the server's set of authorities ([`TrustAnswer::trust_id`]), in every answer to a host.
pub const TRUST_HEADER: &str = "procfleet-trust";

/// Body of `PUT /v1/trust`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRequest {
    /// Of the set that the host keeps; absent: it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_id: Option<String>,
}

/// 200 to `PUT /v1/trust`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// Another one: something changed.
    pub trust_id: String,
    /// Server CAs to trust from now on, PEM.
    pub ca_bundle_pem: String,
    /// The host's certificate is of an authority that signs no more: when to renew it.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub renew_after: Option<Timestamp>,
}

/// 200 to `GET /v1/certificate/nonce`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryNonce {
    /// For one [`RecoverRequest`], within five minutes by the server's clock.
    pub nonce: String,
}

/// Body of `POST /v1/certificate/recovery`, sent without a client certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverRequest {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub version: u16,
    /// The host's last certificate, PEM; it may have expired.
    pub certificate_pem: String,
    /// PKCS #10, PEM, P-256, of a new key.
    pub csr_pem: String,
    /// From `GET /v1/certificate/nonce`.
    pub nonce: String,
    /// ECDSA P-256 over SHA-256 of [`recovery_message`] by the last certificate's key, ASN.1, base64.
    pub signature: String,
}

impl fmt::Debug for RecoverRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoverRequest").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What the old key signs: which certificate asks, for which new key, and when.
pub fn recovery_message(certificate_pem: &str, csr_pem: &str, nonce: &str) -> Vec<u8> {
    // PEM holds no NUL: no two triples have one message.
    ["procfleet-recover-v1", certificate_pem, csr_pem, nonce].join("\0").into_bytes()
}
