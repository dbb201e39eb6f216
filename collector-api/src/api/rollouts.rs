//! `/v1/rollouts`: releases of the agent on their way to the fleet; and the release of one host alone.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::host_identity::no_such_host;
use super::hosts::resolve_changed_host;
use super::params::{Page, invalid_field};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::{FleetRead, Operator, ReleasesWrite};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path};
use crate::store::Store;
use crate::store::rollouts::changes::{
    NewRollout, RolloutChange, RolloutChanged, WrongField, check_seq,
};
use crate::store::rollouts::questions::{RolloutHostRow, RolloutRow};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_rollouts, create_rollout))
        .routes(routes!(get_rollout))
        .routes(routes!(pause_rollout))
        .routes(routes!(resume_rollout))
        .routes(routes!(advance_rollout))
        .routes(routes!(cancel_rollout))
        .routes(routes!(pin_release, unpin_release))
}

crate::problems! {
    RolloutProblems = BadParameter, NotFound;
    CreateProblems = Malformed, Truncated, InvalidUtf8, RolloutConflict, BodyTooLarge, UnsupportedMediaType, InvalidField;
    ChangeProblems = BadParameter, NotFound, RolloutConflict;
    PinProblems = Malformed, Truncated, InvalidUtf8, BadParameter, NotFound, AmbiguousHost, BodyTooLarge,
        UnsupportedMediaType, InvalidField;
    UnpinProblems = BadParameter, NotFound, AmbiguousHost;
}

/// Rollouts, the newest first, with what became of their hosts. The newest 100 are kept.
#[utoipa::path(get, path = "/v1/rollouts", tag = "releases", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "Rollouts", body = Page<RolloutRow>), OperatorProblems))]
async fn list_rollouts(
    State(state): State<ApiState>,
    _: FleetRead,
) -> ApiResult<Answer<Page<RolloutRow>>> {
    Ok(Answer(Page { items: state.readers.rollouts(None).await?, next: None }))
}

/// A rollout in full.
#[derive(Serialize, ToSchema)]
struct RolloutDetail {
    #[serde(flatten)]
    rollout: RolloutRow,
    /// Hosts that it started, at most 1,000: those first that the release did not work on, then those under way.
    hosts: Vec<RolloutHostRow>,
}

/// One rollout with its hosts.
#[utoipa::path(get, path = "/v1/rollouts/{rollout_id}", tag = "releases", security(("api_key" = ["fleet:read"])),
    params(("rollout_id" = Uuid, Path, description = "Id of the rollout")),
    responses((status = 200, description = "The rollout", body = RolloutDetail), RolloutProblems, OperatorProblems))]
async fn get_rollout(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(rollout_id): Path<Uuid>,
) -> ApiResult<Answer<RolloutDetail>> {
    let rollout = find(&state.readers, rollout_id).await?;
    let hosts = state.readers.rollout_hosts(rollout_id).await?;
    Ok(Answer(RolloutDetail { rollout, hosts }))
}

async fn find(store: &Store, rollout_id: Uuid) -> ApiResult<RolloutRow> {
    store.rollouts(Some(rollout_id)).await?.pop().ok_or_else(|| no_such_rollout(rollout_id))
}

fn no_such_rollout(rollout_id: Uuid) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("There is no rollout {rollout_id}."))
}

/// A rollout to be begun.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RolloutBody {
    /// The number of the release, from 1; it must be in every server's mirror.
    #[schema(minimum = 1, example = 7)]
    target_seq: i64,
    /// How many hosts try it first.
    #[serde(default = "five")]
    #[schema(minimum = 1, maximum = 100, default = 5)]
    canary_count: i32,
    /// Which hosts these may be, by their labels; absent: any.
    #[schema(max_length = 2048, example = "env=test")]
    canary_selector: Option<String>,
    /// Most hosts under way at once.
    #[serde(default = "hundred")]
    #[schema(minimum = 1, maximum = 100_000, default = 100)]
    max_in_flight: i32,
    /// How long each step is looked at before the next, s; at most a week.
    #[serde(default = "half_an_hour")]
    #[schema(minimum = 0, maximum = 604_800, default = 1800)]
    soak_s: i32,
}

fn five() -> i32 {
    5
}

fn hundred() -> i32 {
    100
}

fn half_an_hour() -> i32 {
    1800
}

/// Begins to bring a release to the fleet: to a few hosts first, then to 1, 10, 50 and 100 %.
///
/// Hosts are told that are there, update themselves and are not pinned. It halts by itself where the release does not
/// work: three hosts that were rolled back, failed or are lost, one of twenty, or one of at most five. One rollout is
/// open at a time.
#[utoipa::path(post, path = "/v1/rollouts", tag = "releases", security(("api_key" = ["releases:write"])),
    request_body = RolloutBody,
    responses((status = 201, description = "The rollout", body = RolloutRow), CreateProblems, OperatorProblems))]
async fn create_rollout(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Json(body): Json<RolloutBody>,
) -> ApiResult<(StatusCode, Answer<RolloutRow>)> {
    let RolloutBody { target_seq, canary_count, canary_selector, max_in_flight, soak_s } = body;
    let new = NewRollout::new(target_seq, canary_count, canary_selector, max_in_flight, soak_s);
    let new = new.map_err(wrong)?;
    if !state.writers.create_rollout(&new, &operator.actor()).await? {
        let detail = "Another rollout is open: wait for its end, or cancel it.";
        return Err(ApiError::new(ProblemCode::RolloutConflict, detail));
    }
    Ok((StatusCode::CREATED, Answer(find(&state.writers, new.rollout_id).await?)))
}

fn wrong(WrongField { field, detail }: WrongField) -> ApiError {
    invalid_field(field, detail)
}

/// Holds a rollout: nobody is started. Hosts under way go on.
#[utoipa::path(post, path = "/v1/rollouts/{rollout_id}/pause", tag = "releases", security(("api_key" = ["releases:write"])),
    params(("rollout_id" = Uuid, Path, description = "Id of the rollout")),
    responses((status = 200, description = "The rollout", body = RolloutRow), ChangeProblems, OperatorProblems))]
async fn pause_rollout(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Path(rollout_id): Path<Uuid>,
) -> ApiResult<Answer<RolloutRow>> {
    change(&state, &operator, rollout_id, RolloutChange::Pause).await
}

/// Lets a paused rollout go on where it was.
#[utoipa::path(post, path = "/v1/rollouts/{rollout_id}/resume", tag = "releases", security(("api_key" = ["releases:write"])),
    params(("rollout_id" = Uuid, Path, description = "Id of the rollout")),
    responses((status = 200, description = "The rollout", body = RolloutRow), ChangeProblems, OperatorProblems))]
async fn resume_rollout(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Path(rollout_id): Path<Uuid>,
) -> ApiResult<Answer<RolloutRow>> {
    change(&state, &operator, rollout_id, RolloutChange::Resume).await
}

/// Does not wait for the end of this step's soak. That nine of ten hosts must be there and run it, and what halts it,
/// stays.
#[utoipa::path(post, path = "/v1/rollouts/{rollout_id}/advance", tag = "releases", security(("api_key" = ["releases:write"])),
    params(("rollout_id" = Uuid, Path, description = "Id of the rollout")),
    responses((status = 200, description = "The rollout", body = RolloutRow), ChangeProblems, OperatorProblems))]
async fn advance_rollout(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Path(rollout_id): Path<Uuid>,
) -> ApiResult<Answer<RolloutRow>> {
    change(&state, &operator, rollout_id, RolloutChange::Advance).await
}

/// Ends a rollout for good. Hosts that run the release keep it; the others stay what they are, as do those that come
/// later.
#[utoipa::path(post, path = "/v1/rollouts/{rollout_id}/cancel", tag = "releases", security(("api_key" = ["releases:write"])),
    params(("rollout_id" = Uuid, Path, description = "Id of the rollout")),
    responses((status = 200, description = "The rollout", body = RolloutRow), ChangeProblems, OperatorProblems))]
async fn cancel_rollout(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Path(rollout_id): Path<Uuid>,
) -> ApiResult<Answer<RolloutRow>> {
    change(&state, &operator, rollout_id, RolloutChange::Cancel).await
}

async fn change(
    state: &ApiState,
    operator: &Operator,
    rollout_id: Uuid,
    change: RolloutChange,
) -> ApiResult<Answer<RolloutRow>> {
    match state.writers.change_rollout(rollout_id, change, &operator.actor()).await? {
        RolloutChanged::Done => Ok(Answer(find(&state.writers, rollout_id).await?)),
        RolloutChanged::NoRollout => Err(no_such_rollout(rollout_id)),
        RolloutChanged::NotNow(is) => Err(ApiError::new(
            ProblemCode::RolloutConflict,
            format!("The rollout {rollout_id} is {}: that cannot be done with it.", is.as_str()),
        )),
    }
}

/// A release for one host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PinBody {
    /// The number of the release, from 1.
    #[schema(minimum = 1, example = 6)]
    seq: i64,
}

/// Decides which release one host runs, whatever is rolled out. What its own administrator switched off stays off.
#[utoipa::path(put, path = "/v1/hosts/{host}/release-pin", tag = "releases", security(("api_key" = ["releases:write"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    request_body = PinBody,
    responses((status = 204, description = "It is pinned"), PinProblems, OperatorProblems))]
async fn pin_release(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Path(host): Path<String>,
    Json(body): Json<PinBody>,
) -> ApiResult<StatusCode> {
    check_seq("seq", body.seq).map_err(wrong)?;
    pin(&state, &operator, &host, Some(body.seq)).await
}

/// Lets rollouts decide again which release a host runs.
#[utoipa::path(delete, path = "/v1/hosts/{host}/release-pin", tag = "releases", security(("api_key" = ["releases:write"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 204, description = "It is not pinned"), UnpinProblems, OperatorProblems))]
async fn unpin_release(
    State(state): State<ApiState>,
    ReleasesWrite(operator): ReleasesWrite,
    Path(host): Path<String>,
) -> ApiResult<StatusCode> {
    pin(&state, &operator, &host, None).await
}

async fn pin(
    state: &ApiState,
    operator: &Operator,
    host: &str,
    seq: Option<i64>,
) -> ApiResult<StatusCode> {
    let host_id = resolve_changed_host(&state.readers, host).await?;
    if state.writers.pin_release(host_id, seq, &operator.actor()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_such_host(host_id))
    }
}
