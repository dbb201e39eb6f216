//! What surrounds every handler of both doors: request id, time limit, panics, metrics, and the
//! problem documents of routes that do not exist.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use shared_model::problem::PROBLEM_MEDIA_TYPE;
use shared_model::{Problem, ProblemCode};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::{REQUEST_TIMEOUT, VERIFIED_REQUEST_TIMEOUT};
use crate::auth::agent::PeerCertificate;
use crate::error::ApiError;
use crate::metrics::{PANICS, REQUEST_SECONDS, REQUESTS};

/// Carries the request's id, in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Largest body of routes that name no limit of their own, bytes.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// Puts the layers around the routes of a door.
pub fn wrap(door: &'static str, router: Router) -> Router {
    router
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(door, surround))
}

async fn no_such_route() -> ApiError {
    ApiError::new(ProblemCode::NotFound, "This server has no such route; openapi.yaml lists them.")
}

async fn no_such_method() -> ApiError {
    ApiError::new(
        ProblemCode::MethodNotAllowed,
        "This route exists with other methods: see the Allow header.",
    )
}

async fn surround(State(door): State<&'static str>, request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().to_string();
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id, door, method = %request.method(), route);
    let mut response = answer(door, request, next).instrument(span.clone()).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if response.status().is_client_error() || response.status().is_server_error() {
        response = with_request_id(response, &id).await;
    }
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    span.in_scope(|| {
        tracing::debug!(status, duration_ms = elapsed.as_secs_f64() * 1000.0, "answered");
    });
    metrics::counter!(REQUESTS, "door" => door, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!(REQUEST_SECONDS, "door" => door, "route" => route)
        .record(elapsed.as_secs_f64());
    response
}

async fn answer(door: &'static str, request: Request, next: Next) -> Response {
    let is_host = request.extensions().get::<Arc<PeerCertificate>>().is_some();
    // A proxy's hosts are known only further in.
    let limit =
        if is_host || door == "proxied" { VERIFIED_REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(limit, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            metrics::counter!(PANICS, "door" => door).increment(1);
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            tracing::error!(panic = text.as_deref().unwrap_or("?"), "a handler panicked");
            ApiError::new(
                ProblemCode::Internal,
                "The server failed. The log has the details under the request id.",
            )
            .into_response()
        }
        Err(_) => ApiError::new(
            ProblemCode::Overloaded,
            format!("The request was not answered within {} s. Retry.", limit.as_secs()),
        )
        .retry_after(Duration::from_secs(5))
        .closing()
        .into_response(),
    }
}

/// Writes the id into a problem document; turns any other error body (the framework's own plain
/// texts) into one.
async fn with_request_id(response: Response, id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return (parts, Body::empty()).into_response();
    };
    let is_problem = parts.headers.get(header::CONTENT_TYPE)
        == Some(&HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
    let problem = if is_problem { serde_json::from_slice(&bytes).ok() } else { None };
    let mut problem: Problem = problem.unwrap_or_else(|| foreign(parts.status.as_u16(), &bytes));
    problem.request_id = Some(id.to_owned());
    let Ok(body) = serde_json::to_vec(&problem) else {
        return (parts, Body::from(bytes)).into_response();
    };
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, Body::from(body)).into_response()
}

/// The problem of a status that the framework answered by itself.
fn foreign(status: u16, text: &Bytes) -> Problem {
    let code = match status {
        404 => ProblemCode::NotFound,
        405 => ProblemCode::MethodNotAllowed,
        413 => ProblemCode::BodyTooLarge,
        415 => ProblemCode::UnsupportedMediaType,
        422 => ProblemCode::InvalidField,
        400..500 => ProblemCode::Malformed,
        _ => ProblemCode::Internal,
    };
    let detail =
        if status < 500 { String::from_utf8_lossy(text).into_owned() } else { String::new() };
    Problem { status, ..Problem::new(code, detail) }
}
