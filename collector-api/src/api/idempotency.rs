//! `Idempotency-Key`: a `POST` that is sent again (the answer was lost) is answered as the first time,
//! and done once. A layer around every route: handlers need not know of it.
//!
//! A key belongs to the API key that sent it, for a day. Only successes are kept; a request that was refused
//! (4xx) changed nothing and may be repeated. The work goes on when its caller gives up or the server's own
//! limit of time answers, so that the one who asks again is answered as the first time. The first request's answer may hold a secret that is shown
//! once, so it is sealed with a key made of the caller's credentials and its `Idempotency-Key`, neither
//! of which is stored. A server that failed (5xx), or ended between the change and the keeping of its answer leaves
//! `idempotency_in_progress` behind: the change may have been made.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ring::hmac;
use sha2::{Digest as _, Sha256};
use shared_model::ProblemCode;

use super::ApiState;
use crate::authority::sealing::SealingKey;
use crate::error::{ApiError, ApiResult, Chain};
use crate::store::idempotency::{Known, RequestId};

/// The header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is an earlier request's.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, bytes.
pub const MAX_KEY_BYTES: usize = 255;
/// Longest body of a request or an answer with such a key, bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Authenticated with a sealed answer.
const PURPOSE: &str = "idempotency";

/// The layer.
pub async fn layer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    // A session is begun without an API key, and its answer is a cookie.
    let is_session = request.uri().path() == "/v1/session";
    if request.method() != Method::POST || is_session || !headers.contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    once(&state, request, next).await.unwrap_or_else(ApiError::into_response)
}

async fn once(state: &ApiState, request: Request, next: Next) -> ApiResult<Response> {
    let (mut parts, body) = request.into_parts();
    // Who may not come in at all is told so, whatever the key.
    let operator = state.operators.identify(&parts).await?;
    let key = key(&parts)?.to_owned();
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
        let detail = "A body with an Idempotency-Key has at most 1 MiB.";
        ApiError::new(ProblemCode::BodyTooLarge, detail).closing()
    })?;
    let id = RequestId {
        api_key_id: operator.api_key_id,
        key_sha256: Sha256::digest(&key).into(),
        request_sha256: digest(&parts, &body),
    };
    let sealing = sealing_key(&parts, &key)?;
    match state.writers.begin_idempotent(&id).await? {
        Known::New => {}
        Known::InProgress => return Err(in_progress()),
        Known::Other => {
            let detail = "This Idempotency-Key was sent with another request: take a new one.";
            return Err(ApiError::new(ProblemCode::IdempotencyKeyReused, detail));
        }
        Known::Answered(status, sealed) => return replay(&sealing, &id, status, &sealed),
    }
    // Asked and counted once.
    parts.extensions.insert(operator);
    let state = state.clone();
    let work = async move {
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        keep(&state, &id, &sealing, response).await
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it must outlive its caller; requests are few, and each is counted by its key's rate"
    )]
    tokio::spawn(work).await.map_err(failed)?
}

fn key(parts: &Parts) -> ApiResult<&str> {
    let mut all = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let only = match (all.next(), all.next()) {
        (Some(only), None) => only.to_str().ok().filter(|key| !key.is_empty()),
        _ => None,
    };
    only.filter(|key| key.len() <= MAX_KEY_BYTES).ok_or_else(|| {
        let detail = "Send one Idempotency-Key of 1 to 255 visible ASCII characters.";
        ApiError::new(ProblemCode::BadParameter, detail)
    })
}

fn digest(parts: &Parts, body: &Bytes) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), parts.uri.to_string().as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

fn in_progress() -> ApiError {
    let detail = "The first request with this Idempotency-Key has no answer yet. If it stays so, its \
                  server ended meanwhile: look whether the change was made, and take a new key.";
    ApiError::new(ProblemCode::IdempotencyInProgress, detail).retry_after(Duration::from_secs(1))
}

fn failed(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
    ApiError::new(ProblemCode::Internal, "The server failed; the log has the details.")
        .caused_by(what)
}

fn sealing_key(parts: &Parts, key: &str) -> ApiResult<SealingKey> {
    let credentials = parts.headers.get(header::AUTHORIZATION);
    let credentials = credentials.or_else(|| parts.headers.get(header::COOKIE));
    let credentials = credentials.map(HeaderValue::as_bytes).unwrap_or_default();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, credentials), key.as_bytes());
    let bytes = tag.as_ref().try_into().map_err(|_| failed("HMAC-SHA256 is no AES-256 key"))?;
    SealingKey::new(bytes).map_err(failed)
}

async fn keep(
    state: &ApiState,
    id: &RequestId,
    sealing: &SealingKey,
    response: Response,
) -> ApiResult<Response> {
    if response.status().is_server_error() {
        // Whether the change was made is not known.
        return Ok(response);
    }
    if !response.status().is_success() {
        if let Err(error) = state.writers.forget_idempotent(id).await {
            tracing::warn!(error = %Chain(&error), "an idempotency key not forgotten");
        }
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body =
        to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| failed("the answer is too long"))?;
    let sealed = sealing.seal(id.api_key_id, PURPOSE, &body).map_err(failed)?;
    if let Err(error) = state.writers.finish_idempotent(id, parts.status.as_u16(), &sealed).await {
        // The change is made: its maker must hear of it.
        tracing::warn!(error = %Chain(&error), "the answer of an idempotent request not kept");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(sealing: &SealingKey, id: &RequestId, status: u16, sealed: &[u8]) -> ApiResult<Response> {
    let Ok(body) = sealing.open(id.api_key_id, PURPOSE, sealed) else {
        // The same API key in another form: by a session, say.
        let detail = "This Idempotency-Key was sent with other credentials: take a new one.";
        return Err(ApiError::new(ProblemCode::IdempotencyKeyReused, detail));
    };
    let status = StatusCode::from_u16(status).map_err(|_| failed("a status is none"))?;
    let is_json = !body.is_empty();
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    if is_json {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
