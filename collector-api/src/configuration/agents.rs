//! `PUT /v1/configuration`: agents say what became of their configuration, and fetch that of now.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use shared_model::configuration::{
    CONFIGURATION_HEADER, HASH_LENGTH, MAX_ERROR_BYTES, MAX_LIMITED, MAX_PATTERN_BYTES,
};
use shared_model::{ConfigurationAnswer, ConfigurationStatus, ProblemCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ConfigurationError;
use super::live::{LiveConfigurations, LiveError};
use crate::auth::AgentIdentity;
use crate::auth::agent::PeerCertificate;
use crate::auth::secret::hex;
use crate::error::{ApiError, ApiResult};
use crate::extract::Json;
use crate::store::Store;

/// What the route needs, cheap to clone.
#[derive(Clone, Debug)]
pub struct ConfigurationState {
    /// For what agents say.
    pub store: Store,
    /// What is in force.
    pub live: LiveConfigurations,
}

/// The route, for the agent door.
pub fn routes(state: ConfigurationState) -> OpenApiRouter {
    router().with_state(state)
}

/// Its documentation.
pub fn openapi() -> utoipa::openapi::OpenApi {
    router().into_openapi()
}

fn router() -> OpenApiRouter<ConfigurationState> {
    OpenApiRouter::default().routes(routes!(put_configuration))
}

crate::problems! {
    StatusProblems = Malformed, Truncated, InvalidUtf8, NoClientCertificate, HostUnknown,
        CertificateRevoked, HostPending, HostQuarantined, HostDecommissioned, BodyTooLarge,
        UnsupportedMediaType, InvalidField, Internal, DatabaseUnavailable;
}

/// Notes what the agent says of its configuration, and answers with what is in force for the host.
#[utoipa::path(put, path = "/v1/configuration", tag = "agents", security(("agent_certificate" = [])),
    request_body(content = ref("#/components/schemas/ConfigurationStatus"), content_type = "application/json"),
    responses((status = 200, description = "What is in force for the host", body = ref("#/components/schemas/ConfigurationAnswer")), StatusProblems))]
async fn put_configuration(
    State(state): State<ConfigurationState>,
    identity: AgentIdentity,
    Json(status): Json<ConfigurationStatus>,
) -> ApiResult<Answer<ConfigurationAnswer>> {
    check(&status).map_err(|detail| ApiError::new(ProblemCode::InvalidField, detail))?;
    state.store.note_configuration_status(identity.host_id, &status).await?;
    let compiled = state.live.now(identity.host_id).await?.ok_or_else(|| {
        let detail = format!("There is no host {}.", identity.host_id);
        ApiError::new(ProblemCode::HostUnknown, detail)
    })?;
    Ok(Answer(ConfigurationAnswer { hash: hex(&compiled.hash), configuration: compiled.values }))
}

fn check(status: &ConfigurationStatus) -> Result<(), String> {
    for (name, hash) in
        [("received", &status.received), ("applied", &status.applied), ("failed", &status.failed)]
    {
        let is_hash = |hash: &String| {
            hash.len() == HASH_LENGTH
                && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !hash.as_ref().is_none_or(is_hash) {
            return Err(format!("`{name}` must be {HASH_LENGTH} lower-case hex digits, or null."));
        }
    }
    let usable = |text: &str, max: usize| text.len() <= max && !text.contains('\0');
    if !status.error.as_deref().is_none_or(|error| usable(error, MAX_ERROR_BYTES)) {
        return Err(format!(
            "`error` must have at most {MAX_ERROR_BYTES} bytes, none of them NUL."
        ));
    }
    if status.limited.len() > MAX_LIMITED
        || !status.limited.iter().all(|key| usable(key, MAX_PATTERN_BYTES))
    {
        return Err(format!("`limited` must have at most {MAX_LIMITED} keys, none with a NUL."));
    }
    Ok(())
}

/// Names the hash of what is in force in every answer to a host.
pub async fn announce(
    State(live): State<LiveConfigurations>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.extensions().get::<Arc<PeerCertificate>>().map(|peer| peer.host_id);
    let mut response = next.run(request).await;
    // One that was refused has no use for it, and must not cost a look at the database.
    if let Some(host_id) = host.filter(|_| response.status().is_success())
        && let Some(hash) = live.hash(host_id).await
        && let Ok(value) = HeaderValue::from_str(&hex(&hash))
    {
        response.headers_mut().insert(HeaderName::from_static(CONFIGURATION_HEADER), value);
    }
    response
}

impl From<LiveError> for ApiError {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Store(error) => error.into(),
            LiveError::Configuration(error) => error.into(),
        }
    }
}

/// Of what is stored. It was checked when it came: only a newer server or a hand in the database makes this.
impl From<ConfigurationError> for ApiError {
    fn from(error: ConfigurationError) -> Self {
        Self::new(
            ProblemCode::Internal,
            "What is stored of the configuration cannot be read; nothing was changed.",
        )
        .caused_by(error)
    }
}
