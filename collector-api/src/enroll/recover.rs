//! `/v1/certificate/recovery`: a host whose certificate expired gets another by proof of its old key.
//!
//! TLS lets nobody in with an expired certificate, so the proof is in the body: the old certificate,
//! and a signature by its key over it, the new CSR and a nonce of ours. Whether the certificate was
//! ours is not read from its own signature but looked up: serial, host and key must be those of a row.
//! Time is the server's: a host with a wrong clock recovers as well.
//!
//! The order: token buckets before the body is read; nonce; signature; only then the database.

use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use axum::{Extension, Json as Answer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use shared_model::certificate::recovery_message;
use shared_model::{EnrollResponse, ProblemCode, RecoverRequest, RecoveryNonce};
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{EnrollState, bad_csr, check_version, csr, nonce, renew};
use crate::auth::agent::PeerCertificate;
use crate::doors::PeerAddress;
use crate::error::{ApiError, ApiResult};
use crate::extract::Json;
use crate::store::certificates::Entitlement;

pub(super) fn router() -> OpenApiRouter<EnrollState> {
    OpenApiRouter::default()
        .routes(routes!(recover_certificate))
        .routes(routes!(get_recovery_nonce))
}

crate::problems! {
    NonceProblems = TooManyRequests, Internal;
    RecoverProblems = Malformed, Truncated, InvalidUtf8, HostUnknown, ProofInvalid, CertificateRevoked,
        HostPending, HostQuarantined, RecoveryWindowPassed, NonceInvalid, KeyAlreadyRegistered,
        HostDecommissioned, BodyTooLarge, UnsupportedMediaType, BadCsr, InvalidField,
        UnsupportedVersion, TooManyRequests, Internal, DatabaseUnavailable;
}

/// A nonce for one recovery, good for five minutes.
#[utoipa::path(get, path = "/v1/certificate/nonce", tag = "agents",
    responses((status = 200, description = "The nonce", body = ref("#/components/schemas/RecoveryNonce")), NonceProblems))]
async fn get_recovery_nonce(
    State(state): State<EnrollState>,
    Extension(peer): Extension<PeerAddress>,
) -> ApiResult<Answer<RecoveryNonce>> {
    state.take_turn_of_recovery(peer.0.ip())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        let detail = "The server has no random bytes; see its log.";
        ApiError::new(ProblemCode::Internal, detail)
            .caused_by(crate::auth::secret::NoRandomness(error))
    })?;
    Ok(Answer(RecoveryNonce {
        nonce: nonce::issue(&state.authorities.borrow().nonce_key, random, now),
    }))
}

/// Gives a host whose certificate expired another one, by proof of the old key.
///
/// Up to 180 days after its end. Also for a host that went back to an older certificate, such as a
/// machine restored from a snapshot. Never for a certificate that was revoked.
#[utoipa::path(post, path = "/v1/certificate/recovery", tag = "agents",
    request_body(content = ref("#/components/schemas/RecoverRequest"), content_type = "application/json"),
    responses((status = 200, description = "The new certificate", body = ref("#/components/schemas/EnrollResponse")), RecoverProblems))]
async fn recover_certificate(
    State(state): State<EnrollState>,
    Extension(peer): Extension<PeerAddress>,
    request: Request<Body>,
) -> ApiResult<Answer<EnrollResponse>> {
    state.take_turn_of_recovery(peer.0.ip())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    let Json(body) = Json::<RecoverRequest>::from_request(request, &()).await?;
    check_version(body.version)?;
    let fresh =
        nonce::check(&state.authorities.borrow().nonce_key, &body.nonce, now).ok_or_else(|| {
            let detail = "The nonce is not this server's or too old: ask for another one.";
            ApiError::new(ProblemCode::NonceInvalid, detail)
        })?;
    let old = prove(&body).ok_or_else(|| {
        let detail = "The signature is not of the certificate's key over this request.";
        ApiError::new(ProblemCode::ProofInvalid, detail)
    })?;
    let key = csr::public_key(&body.csr_pem).map_err(bad_csr)?;
    let entitlement =
        Entitlement::OldKey { serial: &old.serial, spki_sha256: &old.spki_sha256, nonce: fresh };
    renew::issue(&state, old.host_id, &key, entitlement, now).await.map(Answer)
}

/// The certificate whose key signed the request.
fn prove(body: &RecoverRequest) -> Option<PeerCertificate> {
    let der = CertificateDer::from_pem_slice(body.certificate_pem.as_bytes()).ok()?;
    let old = PeerCertificate::parse(&der).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let signature = STANDARD.decode(&body.signature).ok()?;
    let key = &certificate.public_key().subject_public_key.data;
    let message = recovery_message(&body.certificate_pem, &body.csr_pem, &body.nonce);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&message, &signature).ok()?;
    Some(old)
}
