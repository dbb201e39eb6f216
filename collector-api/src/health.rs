//! `/livez` and `/readyz`, on both doors.
//!
//! Alive means that the process answers; nothing else is looked at. Ready means that new requests
//! should be sent here: the schema fits, the authorities are loaded (both before a door opens at
//! all) and the server is not stopping. **A database that is down does not make a server unready**:
//! every replica would be taken out at once, and agents would meet a balancer that answers without
//! `Retry-After`. Requests that need the database then answer 503 `database_unavailable` themselves.

use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use shared_model::ProblemCode;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::error::{ApiError, ApiResult};

/// When a client told that the server stops should try again.
const RETRY_AFTER_SHUTDOWN: Duration = Duration::from_secs(5);

/// The two routes. Plain text: they are read by balancers and people.
pub fn routes(draining: CancellationToken) -> OpenApiRouter {
    OpenApiRouter::default()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .with_state(draining)
}

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
