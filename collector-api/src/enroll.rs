//! `POST /v1/enroll`: a host with a token and a key of its own gets its identity. `renew` and `recover`
//! keep it for life.
//!
//! The order is the protection. Rates come first, before the body is read: by the token whose secret is
//! shown, of strangers by their source, and for all of them. Then the token's secret, compared in constant time; until it matched, every refusal is
//! the same 401 `token_invalid`, so that nobody learns which tokens exist. Only then is the body
//! read. Of the CSR nothing but the public key is taken, once it is shown that the host holds the
//! private one. Host, certificate and the use of the token are stored in one transaction.
//!
//! The request is idempotent on the CSR's key: a host that lost the answer asks again and gets the
//! same host id and certificate, without a second use of the token, even if the token has since
//! expired or is used up.

pub mod csr;
mod nonce;
pub mod rate;
mod recover;
mod renew;
pub mod tokens;
pub mod trust;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared_model::limits::{MAX_ENROLL_BODY_BYTES, MAX_TEXT_BYTES};
use shared_model::{
    EnrollRequest, EnrollResponse, FieldError, HostFacts, PROTOCOL_VERSION, ProblemCode,
};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::secret;
use crate::authority::issue::HostCertificate;
use crate::authority::live::LiveAuthorities;
use crate::config::Config;
use crate::doors::PeerAddress;
use crate::error::{ApiError, ApiResult};
use crate::extract::Json;
use crate::metrics::ENROLLMENTS;
use crate::store::Store;
use crate::store::certificates::NewCertificate;
use crate::store::enrollment::{Enrollment, NewHost};
use rate::EnrollmentRates;
use tokens::KnownTokens;

/// How long a machine waits that enrolled too often.
const CHURN_PAUSE: std::time::Duration = std::time::Duration::from_mins(20);
/// Certificates signed for one request, while the machine's hosts come and go.
const MAX_SIGNED: usize = 3;
/// Longest secret looked at, bytes of text.
const MAX_SECRET_BYTES: usize = 128;

/// What the route needs, cheap to clone.
#[derive(Clone)]
pub struct EnrollState {
    store: Store,
    authorities: LiveAuthorities,
    rates: Arc<EnrollmentRates>,
    recovery_rates: Arc<EnrollmentRates>,
    tokens: Arc<KnownTokens>,
    endpoints: Arc<Vec<String>>,
    host_life: Duration,
    machine_per_hour: u32,
}

impl EnrollState {
    /// State of one replica.
    pub fn new(store: Store, authorities: LiveAuthorities, config: &Config) -> Self {
        Self {
            store,
            authorities,
            rates: Arc::new(EnrollmentRates::new(&config.enrollment)),
            recovery_rates: Arc::new(EnrollmentRates::new(&config.enrollment)),
            tokens: Arc::default(),
            endpoints: Arc::new(config.endpoints()),
            host_life: Duration::seconds(config.certificates.host_life_s.into()),
            machine_per_hour: config.enrollment.machine_per_hour,
        }
    }
}

crate::problems! {
    EnrollProblems = Malformed, Truncated, InvalidUtf8, TokenInvalid, CertificateRevoked,
        TokenExpired, TokenExhausted, TokenRevoked, KeyAlreadyRegistered, HostDecommissioned,
        BodyTooLarge, UnsupportedMediaType, BadCsr, InvalidField, UnsupportedVersion,
        TooManyRequests, Internal, DatabaseUnavailable;
}

fn router() -> OpenApiRouter<EnrollState> {
    OpenApiRouter::default()
        .routes(routes!(enroll_host))
        .merge(renew::router())
        .merge(recover::router())
        .merge(trust::router())
}

/// The routes, for the agent door.
pub fn routes(state: EnrollState) -> OpenApiRouter {
    router().layer(DefaultBodyLimit::max(MAX_ENROLL_BODY_BYTES)).with_state(state)
}

/// Their documentation.
pub fn openapi() -> OpenApi {
    router().into_openapi()
}

/// Gives a host its identity: a host id and the client certificate for its key.
///
/// The same key again, with the same token, gets the same answer with status 200.
#[utoipa::path(post, path = "/v1/enroll", tag = "agents", security(("enrollment_token" = [])),
    request_body(content = ref("#/components/schemas/EnrollRequest"), content_type = "application/json"),
    responses(
        (status = 201, description = "The host is enrolled", body = ref("#/components/schemas/EnrollResponse")),
        (status = 200, description = "The host was enrolled before with this key", body = ref("#/components/schemas/EnrollResponse")),
        EnrollProblems))]
async fn enroll_host(
    State(state): State<EnrollState>,
    Extension(peer): Extension<PeerAddress>,
    request: Request<Body>,
) -> Response {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    let outcome = enroll(&state, peer.0.ip(), request, now).await;
    let label = match &outcome {
        Ok((StatusCode::CREATED, _)) => "enrolled".to_owned(),
        Ok(_) => "repeated".to_owned(),
        Err(error) => error.problem.code.as_str(),
    };
    metrics::counter!(ENROLLMENTS, "outcome" => label).increment(1);
    match outcome {
        Ok((status, answer)) => (status, axum::Json(answer)).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn enroll(
    state: &EnrollState,
    source: IpAddr,
    request: Request<Body>,
    now: OffsetDateTime,
) -> ApiResult<(StatusCode, EnrollResponse)> {
    let shown = credentials(request.headers());
    state.take_turn(source, shown.as_ref()).await?;
    let (token_id, secret) = shown.ok_or_else(token_invalid)?;
    let stored = state.store.enrollment_token_digest(token_id).await?;
    if !secret::matches(&secret, stored.as_deref()) {
        return Err(token_invalid());
    }
    let Json(body) = Json::<EnrollRequest>::from_request(request, &()).await?;
    check_version(body.version)?;
    check_facts(&body.facts)?;
    let key = csr::public_key(&body.csr_pem).map_err(bad_csr)?;
    store_host(state, token_id, &key, &body.facts, now).await
}

fn token_invalid() -> ApiError {
    let detail = "There is no enrolment token with this id and secret.";
    ApiError::new(ProblemCode::TokenInvalid, detail).closing()
}

/// Id and secret that the request shows.
fn credentials(headers: &HeaderMap) -> Option<(Uuid, String)> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (id, shown) = only.to_str().ok()?.strip_prefix("Bearer ")?.split_once('.')?;
    let id = Uuid::try_parse(id).ok()?;
    (shown.len() <= MAX_SECRET_BYTES).then(|| (id, shown.to_owned()))
}

async fn store_host(
    state: &EnrollState,
    token_id: Uuid,
    key: &csr::HostKey,
    facts: &HostFacts,
    now: OffsetDateTime,
) -> ApiResult<(StatusCode, EnrollResponse)> {
    let mut again = state.store.host_again(token_id, facts).await?;
    // Which host it is may change while a certificate is signed.
    for _ in 0..MAX_SIGNED {
        let host_id = again.unwrap_or_else(Uuid::now_v7);
        let certificate = state.sign(host_id, key, now)?;
        let host = NewHost {
            token_id,
            facts,
            machine_per_hour: state.machine_per_hour,
            again: again.is_some(),
            certificate: state.to_store(host_id, key.spki_sha256, &certificate),
        };
        let (status, host_id, chain_pem, not_after) = match state.store.enroll(&host).await? {
            Enrollment::Elsewhere(other) => {
                again = other;
                continue;
            }
            Enrollment::Enrolled => {
                tracing::info!(host.id = %host_id, host.name = facts.host_name, token.id = %token_id, host.again = again.is_some(), "host enrolled");
                (StatusCode::CREATED, host_id, certificate.chain_pem, certificate.not_after)
            }
            Enrollment::Repeated { host_id, chain_pem, not_after } => {
                (StatusCode::OK, host_id, chain_pem, not_after)
            }
            refused => return Err(refusal(&refused)),
        };
        return Ok((status, state.identity(host_id, chain_pem, not_after, now)));
    }
    Err(refusal(&Enrollment::Elsewhere(again)))
}

impl EnrollState {
    /// Takes one request out of the bucket of its token, or out of those of strangers.
    async fn take_turn(&self, source: IpAddr, shown: Option<&(Uuid, String)>) -> ApiResult<()> {
        let taken = match shown {
            Some((id, secret)) if self.tokens.prove(&self.store, *id, secret).await => {
                self.rates.take_of_token(*id, Instant::now())
            }
            _ => self.rates.take(source, Instant::now()),
        };
        taken.map_err(too_many)
    }

    /// Takes one request out of the buckets of those who ask for recovery.
    fn take_turn_of_recovery(&self, source: IpAddr) -> ApiResult<()> {
        self.recovery_rates.take(source, Instant::now()).map_err(too_many)
    }

    fn sign(
        &self,
        host_id: Uuid,
        key: &csr::HostKey,
        now: OffsetDateTime,
    ) -> ApiResult<HostCertificate> {
        let authorities = Arc::clone(&self.authorities.borrow());
        authorities.client.issue_host(host_id, &key.public_key, self.host_life, now).map_err(
            |error| {
                ApiError::new(
                    ProblemCode::Internal,
                    "The server could not sign; nothing was changed.",
                )
                .caused_by(error)
            },
        )
    }

    fn to_store<'a>(
        &self,
        host_id: Uuid,
        spki_sha256: [u8; 32],
        certificate: &'a HostCertificate,
    ) -> NewCertificate<'a> {
        NewCertificate {
            host_id,
            serial: &certificate.serial,
            authority_id: certificate.authority_id,
            spki_sha256,
            chain_pem: &certificate.chain_pem,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            life_s: self.host_life.as_seconds_f64(),
        }
    }

    /// What a host is told of its identity.
    fn identity(
        &self,
        host_id: Uuid,
        certificate_chain_pem: String,
        not_after: OffsetDateTime,
        now: OffsetDateTime,
    ) -> EnrollResponse {
        let random = getrandom::u32().unwrap_or(0);
        EnrollResponse {
            host_id,
            certificate_chain_pem,
            ca_bundle_pem: self.authorities.borrow().trust.server_bundle_pem.clone(),
            not_after,
            renew_after: renew_after(not_after, self.host_life, random),
            server_time: now,
            endpoints: self.endpoints.to_vec(),
        }
    }
}

fn too_many(wait: std::time::Duration) -> ApiError {
    let detail = "Too many hosts ask for an identity at once: retry later.";
    ApiError::new(ProblemCode::TooManyRequests, detail).retry_after(wait).closing()
}

fn check_version(version: u16) -> ApiResult<()> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    let detail = format!(
        "The agent speaks version {version} of the protocol, this server {PROTOCOL_VERSION}."
    );
    Err(ApiError::new(ProblemCode::UnsupportedVersion, detail))
}

fn bad_csr(error: csr::CsrError) -> ApiError {
    ApiError::new(ProblemCode::BadCsr, format!("{error}."))
}

fn refusal(refused: &Enrollment) -> ApiError {
    let (code, detail) = match refused {
        Enrollment::TooOften => {
            let detail = "This machine enrolled several times within the hour: does it lose its state directory? Nothing was changed; retry later.";
            let error = ApiError::new(ProblemCode::TooManyRequests, detail);
            return error.retry_after(CHURN_PAUSE).closing();
        }
        Enrollment::Enrolled | Enrollment::Repeated { .. } | Enrollment::Elsewhere(_) => {
            (ProblemCode::Internal, "The server failed; nothing was changed.")
        }
        Enrollment::KeyAlreadyRegistered => (
            ProblemCode::KeyAlreadyRegistered,
            "The key was registered through another token: delete the agent's identity directory and enrol again.",
        ),
        Enrollment::Decommissioned => {
            (ProblemCode::HostDecommissioned, "An operator decommissioned the host with this key.")
        }
        Enrollment::CertificateRevoked => (
            ProblemCode::CertificateRevoked,
            "The certificate for this key was revoked: delete the agent's identity directory and enrol again.",
        ),
        Enrollment::TokenRevoked => {
            (ProblemCode::TokenRevoked, "An operator revoked this token: ask for another one.")
        }
        Enrollment::TokenExpired => {
            (ProblemCode::TokenExpired, "The token has expired: ask for another one.")
        }
        Enrollment::TokenExhausted => (
            ProblemCode::TokenExhausted,
            "As many hosts as the token allows have enrolled: ask for another one.",
        ),
    };
    ApiError::new(code, detail)
}

/// Two thirds of the life, minus up to a twentieth, so that hosts enrolled together renew apart.
fn renew_after(not_after: OffsetDateTime, life: Duration, random: u32) -> OffsetDateTime {
    let spread = life.as_seconds_f64() / 20.0 * f64::from(random) / f64::from(u32::MAX);
    not_after - life / 3 - Duration::seconds_f64(spread)
}

/// PostgreSQL's `text` holds everything but NUL.
fn check_facts(facts: &HostFacts) -> ApiResult<()> {
    let required = [
        ("host_name", Some(&facts.host_name)),
        ("kernel_release", Some(&facts.kernel_release)),
        ("host_arch", Some(&facts.host_arch)),
        ("agent_version", Some(&facts.agent_version)),
    ];
    let optional = [
        ("machine_id_hash", facts.machine_id_hash.as_ref()),
        ("product_uuid_hash", facts.product_uuid_hash.as_ref()),
        ("os_description", facts.os_description.as_ref()),
    ];
    let errors: Vec<FieldError> = required
        .into_iter()
        .chain(optional)
        .filter_map(|(name, value)| {
            let value = value?;
            let bad = value.is_empty() || value.len() > MAX_TEXT_BYTES || value.contains('\0');
            bad.then(|| FieldError {
                field: format!("facts.{name}"),
                detail: format!("must have 1 to {MAX_TEXT_BYTES} bytes, none of them NUL"),
            })
        })
        .collect();
    let Some(first) = errors.first() else { return Ok(()) };
    let detail = format!("{} {}.", first.field, first.detail);
    let mut error = ApiError::new(ProblemCode::InvalidField, detail);
    error.problem.errors = errors;
    Err(error)
}
