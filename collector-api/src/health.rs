//! `/livez` and `/readyz`, on both doors, and `/metrics` on the operator door.
//!
//! Alive means that the process answers; nothing else is looked at. Ready means that new requests
//! should be sent here: the schema fits, the authorities are loaded (both before a door opens at
//! all) and the server is not stopping. **A database that is down does not make a server unready**:
//! every replica would be taken out at once, and agents would meet a balancer that answers without
//! `Retry-After`. Requests that need the database then answer 503 `database_unavailable` themselves.

use std::time::Duration;

use axum::extract::State;
use metrics_exporter_prometheus::PrometheusHandle;
use shared_model::ProblemCode;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, ApiResult};

/// When a client told that the server stops should try again.
const RETRY_AFTER_SHUTDOWN: Duration = Duration::from_secs(5);

crate::problems! {
    ReadyProblems = ShuttingDown;
}

fn probes() -> OpenApiRouter<CancellationToken> {
    OpenApiRouter::default().routes(routes!(livez)).routes(routes!(readyz))
}

fn exporter() -> OpenApiRouter<PrometheusHandle> {
    OpenApiRouter::default().routes(routes!(metrics))
}

/// Both probes, for both doors.
pub fn routes(draining: CancellationToken) -> OpenApiRouter {
    probes().with_state(draining)
}

/// `/metrics`, for the operator door.
pub fn metrics_route(handle: PrometheusHandle) -> OpenApiRouter {
    exporter().with_state(handle)
}

/// The documentation of all three.
pub fn openapi() -> OpenApi {
    let mut document = probes().into_openapi();
    document.merge(exporter().into_openapi());
    document
}

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
async fn livez() -> &'static str {
    "alive\n"
}

/// Whether new requests should be sent here.
///
/// A database that is down does not make a server unready: requests then answer 503 themselves.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "They should", body = String, content_type = "text/plain"), ReadyProblems))]
async fn readyz(State(draining): State<CancellationToken>) -> ApiResult<&'static str> {
    if draining.is_cancelled() {
        return Err(ApiError::new(
            ProblemCode::ShuttingDown,
            "The server is stopping: use another endpoint, or retry.",
        )
        .retry_after(RETRY_AFTER_SHUTDOWN));
    }
    Ok("ready\n")
}

/// The server's own metrics, in the text format of Prometheus. Needs no API key: it names no host.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")))]
async fn metrics(State(handle): State<PrometheusHandle>) -> String {
    handle.render()
}
