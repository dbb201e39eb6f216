//! `/v1/maintenance`: how far roll-ups, retention and compression are, per table.

use axum::Json as Answer;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::store::progress::MaintenanceProgress;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_maintenance))
}

/// What the maintenance worker did last, how far the roll-ups are, and how the tables stand.
#[utoipa::path(get, path = "/v1/maintenance", tag = "maintenance", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "Progress of maintenance", body = MaintenanceProgress), OperatorProblems))]
async fn get_maintenance(
    State(state): State<ApiState>,
    _: FleetRead,
) -> ApiResult<Answer<MaintenanceProgress>> {
    Ok(Answer(state.readers.maintenance_progress().await?))
}
