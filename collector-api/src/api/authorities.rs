//! `/v1/authorities`: the certificate authorities and their rotation.

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use shared_model::ProblemCode;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::params::Page;
use super::{ApiState, OperatorProblems};
use crate::auth::operator::{CertificatesWrite, FleetRead};
use crate::authority::rotation::{self, AuthorityStatus, Step};
use crate::authority::{AuthorityError, Purpose};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path};
use crate::store::authorities::Rotated;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_authorities))
        .routes(routes!(begin_rotation, step_rotation))
}

crate::problems! {
    BeginProblems = BadParameter, RotationConflict;
    StepProblems = Malformed, Truncated, InvalidUtf8, BadParameter, RotationConflict, BodyTooLarge,
        UnsupportedMediaType, InvalidField;
}

/// How far a rotation is to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TakeStep {
    /// `activate`, then `finish`; or `abort` before it was activated.
    step: Step,
    /// Also if hosts are shut out by it.
    #[serde(default)]
    force: bool,
}

/// The certificate authorities that are trusted, and how many hosts wait for each.
#[utoipa::path(get, path = "/v1/authorities", tag = "access", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "At most three of each purpose", body = Page<AuthorityStatus>), OperatorProblems))]
async fn list_authorities(
    State(state): State<ApiState>,
    _: FleetRead,
) -> ApiResult<Answer<Page<AuthorityStatus>>> {
    Ok(Answer(Page { items: rotation::status(&state.readers).await?, next: None }))
}

/// Begins to replace an authority: the next one is trusted from now on, and signs nothing yet.
#[utoipa::path(post, path = "/v1/authorities/{purpose}/rotation", tag = "access", security(("api_key" = ["certificates:write"])),
    params(("purpose" = inline(Purpose), Path, description = "Which authority")),
    responses((status = 200, description = "All authorities", body = Page<AuthorityStatus>), BeginProblems, OperatorProblems))]
async fn begin_rotation(
    State(state): State<ApiState>,
    CertificatesWrite(operator): CertificatesWrite,
    Path(purpose): Path<Purpose>,
) -> ApiResult<Answer<Page<AuthorityStatus>>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    let begun =
        rotation::begin(&state.writers, &state.ca_key_file, purpose, &operator.actor(), now).await;
    answer(&state, begun.map_err(internal)?).await
}

/// Takes a rotation one step further.
///
/// Refused while hosts would be shut out by it, unless forced, and for a minute after the step before,
/// which every server must have read.
#[utoipa::path(put, path = "/v1/authorities/{purpose}/rotation", tag = "access", security(("api_key" = ["certificates:write"])),
    params(("purpose" = inline(Purpose), Path, description = "Which authority")),
    request_body = TakeStep,
    responses((status = 200, description = "All authorities", body = Page<AuthorityStatus>), StepProblems, OperatorProblems))]
async fn step_rotation(
    State(state): State<ApiState>,
    CertificatesWrite(operator): CertificatesWrite,
    Path(purpose): Path<Purpose>,
    Json(body): Json<TakeStep>,
) -> ApiResult<Answer<Page<AuthorityStatus>>> {
    let TakeStep { step, force } = body;
    let taken = rotation::step(&state.writers, purpose, step, force, &operator.actor()).await?;
    answer(&state, taken).await
}

async fn answer(state: &ApiState, rotated: Rotated) -> ApiResult<Answer<Page<AuthorityStatus>>> {
    if let Some(refusal) = rotation::refusal(rotated) {
        return Err(ApiError::new(ProblemCode::RotationConflict, refusal));
    }
    Ok(Answer(Page { items: rotation::status(&state.writers).await?, next: None }))
}

fn internal(error: AuthorityError) -> ApiError {
    match error {
        AuthorityError::Store(error) => error.into(),
        other => ApiError::new(
            ProblemCode::Internal,
            "The authority could not be made; see the server's log.",
        )
        .caused_by(other),
    }
}
