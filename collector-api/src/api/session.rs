//! `/v1/session`: logging a browser in and out.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiState, OperatorProblems};
use crate::auth::operator::{FleetRead, Rights, Role, Scope};
use crate::auth::{secret, session};
use crate::error::ApiResult;
use crate::extract::Json;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_session, begin_session, end_session))
}

crate::problems! {
    BeginProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
}

/// Who logs in. No `Debug`: it is a secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BeginSession {
    /// `pfk1_<id>_<secret>`.
    api_key: String,
}

/// Who is asking.
#[derive(Debug, Serialize, ToSchema)]
struct SessionAnswer {
    /// What the API key is called.
    name: String,
    /// What it may do.
    role: Role,
    /// All that it may do.
    scopes: Vec<Scope>,
    /// When the session ends by itself; null: the question came with an API key.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// Version of the server.
    server_version: &'static str,
    /// Where agents find the agent door.
    agent_endpoints: Vec<String>,
}

impl SessionAnswer {
    fn of(
        state: &ApiState,
        name: String,
        rights: &Rights,
        expires_at: Option<OffsetDateTime>,
    ) -> Self {
        Self {
            name,
            role: rights.role,
            scopes: Scope::ALL.into_iter().filter(|scope| rights.allow(*scope)).collect(),
            expires_at,
            server_version: env!("CARGO_PKG_VERSION"),
            agent_endpoints: state.agent_endpoints.to_vec(),
        }
    }
}

/// Who is asking, by session or API key.
#[utoipa::path(get, path = "/v1/session", tag = "access", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "Who is asking", body = SessionAnswer), OperatorProblems))]
async fn get_session(
    State(state): State<ApiState>,
    FleetRead(operator): FleetRead,
    headers: HeaderMap,
) -> ApiResult<Answer<SessionAnswer>> {
    let expires_at = match session::token(&headers) {
        Some(token) => state.writers.find_session(&secret::digest(token)).await?,
        None => None,
    };
    let expires_at = expires_at.map(|session| session.expires_at);
    Ok(Answer(SessionAnswer::of(&state, operator.name, &operator.rights, expires_at)))
}

/// Logs a browser in: the answer sets a cookie that stands for the API key on this door, for at most
/// 12 hours. Requests that change something must then come from the page itself.
#[utoipa::path(post, path = "/v1/session", tag = "access", request_body = BeginSession,
    responses((status = 200, description = "Logged in", body = SessionAnswer), BeginProblems, OperatorProblems))]
async fn begin_session(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Json(body): Json<BeginSession>,
) -> ApiResult<Response> {
    session::require_own_page(&headers)?;
    let operator = state.operators.authenticate_key(body.api_key.trim()).await?;
    state.operators.count(&operator, true)?;
    let (token, begun) = session::begin(&state.writers, &operator).await?;
    let answer = SessionAnswer::of(&state, begun.name, &begun.rights, Some(begun.expires_at));
    let secure = state.secure_cookies || session::is_secure(&headers);
    Ok(with_cookie(Answer(answer).into_response(), session::cookie(&token, secure)))
}

/// Logs the browser out, on every replica.
#[utoipa::path(delete, path = "/v1/session", tag = "access",
    responses((status = 204, description = "Logged out, or was not logged in"), OperatorProblems))]
async fn end_session(State(state): State<ApiState>, headers: HeaderMap) -> ApiResult<Response> {
    session::require_own_page(&headers)?;
    if let Some(token) = session::token(&headers) {
        state.writers.end_session(&secret::digest(token)).await?;
    }
    let secure = state.secure_cookies || session::is_secure(&headers);
    Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), session::cookie("", secure)))
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}
