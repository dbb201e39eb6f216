//! `PUT /v1/trust`: hosts learn which server authorities to trust, and say that they do.
//!
//! Every answer to a host names the set of now in a header. A host that keeps another one fetches it,
//! tries it, stores it, and says so: an authority that hosts do not know yet is not activated. The same
//! answer tells a host whose certificate is of an authority that signs no more to renew it soon.

use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use shared_model::certificate::TRUST_HEADER;
use shared_model::{ProblemCode, TrustAnswer, TrustRequest};
use time::{Duration, OffsetDateTime};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::EnrollState;
use crate::auth::AgentIdentity;
use crate::auth::agent::PeerCertificate;
use crate::authority::live::LiveAuthorities;
use crate::error::{ApiError, ApiResult};
use crate::extract::Json;

/// Longest id that a host names, bytes.
const MAX_ID_BYTES: usize = 64;
/// Hosts whose authority signs no more renew within this part of a certificate's life, spread evenly.
const RENEWAL_SPREAD: i32 = 100;

pub(super) fn router() -> OpenApiRouter<EnrollState> {
    OpenApiRouter::default().routes(routes!(put_trust))
}

crate::problems! {
    TrustProblems = Malformed, Truncated, InvalidUtf8, NoClientCertificate, HostUnknown,
        CertificateRevoked, HostPending, HostQuarantined, HostDecommissioned, BodyTooLarge,
        UnsupportedMediaType, InvalidField, Internal, DatabaseUnavailable;
}

/// Says which set of server authorities the host keeps, and answers with that of now.
#[utoipa::path(put, path = "/v1/trust", tag = "agents", security(("agent_certificate" = [])),
    request_body(content = ref("#/components/schemas/TrustRequest"), content_type = "application/json"),
    responses((status = 200, description = "What to trust", body = ref("#/components/schemas/TrustAnswer")), TrustProblems))]
async fn put_trust(
    State(state): State<EnrollState>,
    identity: AgentIdentity,
    request: Request<Body>,
) -> ApiResult<Answer<TrustAnswer>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    let Json(body) = Json::<TrustRequest>::from_request(request, &()).await?;
    let kept = body.trust_id.as_deref();
    if kept.is_some_and(|id| id.len() > MAX_ID_BYTES || id.contains('\0')) {
        let detail = format!("trust_id must have at most {MAX_ID_BYTES} bytes, none of them NUL.");
        return Err(ApiError::new(ProblemCode::InvalidField, detail));
    }
    let serial = &identity.certificate_serial;
    let signer = state.store.note_trust(identity.host_id, serial, kept).await?;
    let authorities = Arc::clone(&state.authorities.borrow());
    let renew_after = (signer != Some(authorities.client.authority_id)).then(|| {
        let random = getrandom::u32().unwrap_or(0);
        let spread = (state.host_life / RENEWAL_SPREAD).as_seconds_f64();
        now + Duration::seconds_f64(spread * f64::from(random) / f64::from(u32::MAX))
    });
    Ok(Answer(TrustAnswer {
        trust_id: authorities.trust.id.clone(),
        ca_bundle_pem: authorities.trust.server_bundle_pem.clone(),
        renew_after,
    }))
}

/// Names the set of now in every answer to a host.
pub async fn announce(
    State(authorities): State<LiveAuthorities>,
    request: Request,
    next: Next,
) -> Response {
    let is_host = request.extensions().get::<Arc<PeerCertificate>>().is_some();
    let mut response = next.run(request).await;
    if is_host && let Ok(id) = HeaderValue::from_str(&authorities.borrow().trust.id) {
        response.headers_mut().insert(HeaderName::from_static(TRUST_HEADER), id);
    }
    response
}
