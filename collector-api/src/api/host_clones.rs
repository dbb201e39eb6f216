//! `/v1/hosts/{host}/clone-conflict`: two machines that show one identity.

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::host_identity::no_such_host;
use super::hosts::{HostProblems, resolve_changed_host};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::HostsWrite;
use crate::error::ApiResult;
use crate::extract::Path;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(clear_clone_conflict))
}

/// Forgets that two machines show a host's identity.
///
/// The one that holds it goes on. The other may take over when that one is gone; as long as both
/// live, the conflict is found again.
#[utoipa::path(delete, path = "/v1/hosts/{host}/clone-conflict", tag = "hosts", security(("api_key" = ["hosts:write"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 204, description = "There is no conflict on record"), HostProblems, OperatorProblems))]
async fn clear_clone_conflict(
    State(state): State<ApiState>,
    HostsWrite(operator): HostsWrite,
    Path(host): Path<String>,
) -> ApiResult<StatusCode> {
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    let known = state.writers.clear_clone_conflict(host_id, &operator.actor()).await?;
    if known { Ok(StatusCode::NO_CONTENT) } else { Err(no_such_host(host_id)) }
}
