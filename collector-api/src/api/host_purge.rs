//! `/v1/hosts/{host}/purge`: what was recorded of a decommissioned host is removed, in the background.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use shared_model::ProblemCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::host_identity::no_such_host;
use super::hosts::{HostProblems, resolve_changed_host, resolve_host};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::{DataDelete, FleetRead};
use crate::error::{ApiError, ApiResult};
use crate::extract::Path;
use crate::store::purges::{PurgeRow, RequestPurge};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_purge, request_purge))
}

crate::problems! {
    PurgeProblems = BadParameter, NotFound, AmbiguousHost, LifecycleConflict;
}

/// How far the purge of a host is; 404: nobody asked for one.
#[utoipa::path(get, path = "/v1/hosts/{host}/purge", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 200, description = "How far it is", body = PurgeRow), HostProblems, OperatorProblems))]
async fn get_purge(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(host): Path<String>,
) -> ApiResult<Answer<PurgeRow>> {
    let host_id = resolve_host(&state.readers, &host).await?;
    let purge = state.readers.purge(host_id).await?;
    purge.map(Answer).ok_or_else(|| {
        let detail = format!("Nobody asked for a purge of host {host_id}.");
        ApiError::new(ProblemCode::NotFound, detail)
    })
}

/// Removes everything that was recorded of a decommissioned host. For good.
///
/// A server does it in the background, from a minute after the decommissioning on: samples, roll-ups,
/// instances, rejects and alerts. The host's row, its certificates and its audit stay, so that its key never comes back.
/// Asked again, the answer says how far it is.
#[utoipa::path(post, path = "/v1/hosts/{host}/purge", tag = "hosts", security(("api_key" = ["data:delete"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 202, description = "It is queued, or was before", body = PurgeRow), PurgeProblems, OperatorProblems))]
async fn request_purge(
    State(state): State<ApiState>,
    DataDelete(operator): DataDelete,
    Path(host): Path<String>,
) -> ApiResult<(StatusCode, Answer<PurgeRow>)> {
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    match state.writers.request_purge(host_id, &operator.actor()).await? {
        RequestPurge::Queued(row) => Ok((StatusCode::ACCEPTED, Answer(row))),
        RequestPurge::NoHost => Err(no_such_host(host_id)),
        RequestPurge::NotDecommissioned => Err(ApiError::new(
            ProblemCode::LifecycleConflict,
            "Only what was recorded of a decommissioned host can be removed: decommission it first.",
        )),
    }
}
