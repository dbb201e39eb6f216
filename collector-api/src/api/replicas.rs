//! `/v1/replicas`: which servers run.

use axum::Json as Answer;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::params::Page;
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::store::replicas::Replica;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_replicas))
}

/// The servers that ran on this database within a day, those that live first; at most 256.
#[utoipa::path(get, path = "/v1/replicas", tag = "maintenance", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "Servers", body = Page<Replica>), OperatorProblems))]
async fn list_replicas(
    State(state): State<ApiState>,
    _: FleetRead,
) -> ApiResult<Answer<Page<Replica>>> {
    Ok(Answer(Page { items: state.readers.replicas().await?, next: None }))
}
