//! Who is asking: extractors that fail closed.

pub mod operator;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use shared_model::ProblemCode;
use uuid::Uuid;

use crate::error::ApiError;

/// A host that proved its identity with its client certificate, checked against the database.
/// Put into the request's extensions by the agent door; a route that takes it without one answers
/// 401 `no_client_certificate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// From the certificate's SAN.
    pub host_id: Uuid,
    /// The certificate's serial, hex.
    pub certificate_serial: String,
}

impl<S: Sync> FromRequestParts<S> for AgentIdentity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            ApiError::new(
                ProblemCode::NoClientCertificate,
                "This route needs the client certificate of an enrolled host.",
            )
        })
    }
}
