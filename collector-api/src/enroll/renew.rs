//! `/v1/certificate`: a host replaces its certificate before it ends.
//!
//! Two phases. `POST` stores the new certificate as pending; the one in use stays good. The first
//! request under the new one, which agents make to `GET /v1/certificate`, makes it the active one. So
//! a lost answer, a full disk or a crash between the two leaves the host with what it had.

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use shared_model::{CertificateInUse, EnrollResponse, ProblemCode, RenewRequest};
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{EnrollState, bad_csr, check_version, csr};
use crate::auth::AgentIdentity;
use crate::error::{ApiError, ApiResult};
use crate::extract::Json;
use crate::metrics::CERTIFICATES_ISSUED;
use crate::store::certificates::{CertificateState, Entitlement, Issuance};

/// What a host that asks too often is told to wait: it has a good certificate.
const TOO_OFTEN: std::time::Duration = std::time::Duration::from_mins(10);

pub(super) fn router() -> OpenApiRouter<EnrollState> {
    OpenApiRouter::default().routes(routes!(renew_certificate, get_certificate))
}

crate::problems! {
    RenewProblems = Malformed, Truncated, InvalidUtf8, NoClientCertificate, HostUnknown,
        CertificateRevoked, HostPending, HostQuarantined, KeyAlreadyRegistered, HostDecommissioned,
        BodyTooLarge, UnsupportedMediaType, BadCsr, InvalidField, UnsupportedVersion,
        TooManyRequests, Internal, DatabaseUnavailable;
    InUseProblems = NoClientCertificate, HostUnknown, CertificateRevoked, HostPending,
        HostQuarantined, HostDecommissioned, Internal, DatabaseUnavailable;
}

/// Gives a host another certificate, for a new key.
///
/// It is pending until its first use; the one of this request stays good until then, and for a day
/// more. The same key again gets the same certificate.
#[utoipa::path(post, path = "/v1/certificate", tag = "agents", security(("agent_certificate" = [])),
    request_body(content = ref("#/components/schemas/RenewRequest"), content_type = "application/json"),
    responses((status = 200, description = "The new certificate", body = ref("#/components/schemas/EnrollResponse")), RenewProblems))]
async fn renew_certificate(
    State(state): State<EnrollState>,
    identity: AgentIdentity,
    request: Request<Body>,
) -> ApiResult<Answer<EnrollResponse>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    let Json(body) = Json::<RenewRequest>::from_request(request, &()).await?;
    check_version(body.version)?;
    let key = csr::public_key(&body.csr_pem).map_err(bad_csr)?;
    let entitlement = Entitlement::InUse(&identity.certificate_serial);
    issue(&state, identity.host_id, &key, entitlement, now).await.map(Answer)
}

/// Whether the certificate of the request is good. One that was pending is in use from then on, and
/// its predecessor superseded.
#[utoipa::path(get, path = "/v1/certificate", tag = "agents", security(("agent_certificate" = [])),
    responses((status = 200, description = "It is good", body = ref("#/components/schemas/CertificateInUse")), InUseProblems))]
async fn get_certificate(identity: AgentIdentity) -> Answer<CertificateInUse> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let server_time = OffsetDateTime::now_utc();
    let AgentIdentity { host_id, certificate_serial: serial } = identity;
    Answer(CertificateInUse { host_id, serial, server_time })
}

/// Signs and stores a certificate, if the host is entitled to it.
pub(super) async fn issue(
    state: &EnrollState,
    host_id: Uuid,
    key: &csr::HostKey,
    entitlement: Entitlement<'_>,
    now: OffsetDateTime,
) -> ApiResult<EnrollResponse> {
    let certificate = state.sign(host_id, key, now)?;
    let new = state.to_store(host_id, key.spki_sha256, &certificate);
    let issuance = state.store.issue_certificate(&new, entitlement).await?;
    let way = match entitlement {
        Entitlement::InUse(_) => "renewal",
        Entitlement::OldKey { .. } => "recovery",
    };
    let (chain_pem, not_after) = match issuance {
        Issuance::Issued => {
            metrics::counter!(CERTIFICATES_ISSUED, "way" => way).increment(1);
            tracing::info!(host.id = %host_id, certificate.serial = certificate.serial, way, "certificate issued");
            (certificate.chain_pem, certificate.not_after)
        }
        Issuance::Repeated { chain_pem, not_after } => (chain_pem, not_after),
        refused => return Err(refusal(&refused)),
    };
    Ok(state.identity(host_id, chain_pem, not_after, now))
}

fn refusal(refused: &Issuance) -> ApiError {
    let (code, detail) = match refused {
        Issuance::Issued
        | Issuance::Repeated { .. }
        | Issuance::Refused(CertificateState::Good) => {
            (ProblemCode::Internal, "The server failed; nothing was changed.")
        }
        Issuance::Refused(state) => return crate::auth::agent::refusal(*state),
        Issuance::WindowPassed => (
            ProblemCode::RecoveryWindowPassed,
            "The certificate expired more than 180 days ago: remove the agent's identity directory and enrol again.",
        ),
        Issuance::NonceUsed => {
            (ProblemCode::NonceInvalid, "The nonce was used: ask for another one.")
        }
        Issuance::KeyAlreadyRegistered => {
            (ProblemCode::KeyAlreadyRegistered, "The new key was used before: make another one.")
        }
        Issuance::TooOften => {
            let detail = "The host asked for too many certificates: retry later.";
            return ApiError::new(ProblemCode::TooManyRequests, detail).retry_after(TOO_OFTEN);
        }
    };
    ApiError::new(code, detail)
}
