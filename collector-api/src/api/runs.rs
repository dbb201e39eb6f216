//! `/v1/processes/{process_id}/runs`: when and where a command line ran.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::hosts::HostProblems;
use super::params::{self, Now, Page};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::store::ids::ProcessKey;
use crate::store::processes::ProcessText;
use crate::store::runs::{Run, RunCursor};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_runs))
}

/// Up to when, and how many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunsQuery {
    /// Only runs that began at or before this: RFC 3339, `now`, or back from now such as `-15m` (s, m,
    /// h, d). Default: `now`.
    #[param(example = "-1d")]
    to: Option<String>,
    /// Most runs returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A command line and its runs.
#[derive(Serialize, ToSchema)]
struct RunsAnswer {
    #[serde(flatten)]
    process: ProcessText,
    #[serde(flatten)]
    runs: Page<Run>,
}

/// Who ran a command line, when and where: every run known, newest first. Searching
/// `/v1/processes` finds the process id, which is the md5 of the command line.
#[utoipa::path(get, path = "/v1/processes/{process_id}/runs", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(("process_id" = ProcessKey, Path, description = "md5 of the command line, 32 hex digits"), RunsQuery),
    responses((status = 200, description = "Runs, newest first", body = RunsAnswer), HostProblems, OperatorProblems))]
async fn list_runs(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Path(process_id): Path<ProcessKey>,
    Query(query): Query<RunsQuery>,
) -> ApiResult<Json<RunsAnswer>> {
    let limit = params::limit(query.limit, 100, 1000)?;
    let until = params::until(query.to.as_deref(), now)?;
    let after = query.after.as_deref().map(cursor).transpose()?;
    let process = state.readers.find_process(process_id).await?.ok_or_else(|| {
        let id = process_id.0.simple();
        ApiError::new(ProblemCode::NotFound, format!("There is no process {id}."))
    })?;
    let runs = state.readers.list_runs(process_id, until, after, limit + 1).await?;
    let next = |run: &Run| {
        let us = run.creation_time.unix_timestamp_nanos() / 1000;
        format!("{us}.{}.{}", run.host_id, run.instance_id.0)
    };
    Ok(Json(RunsAnswer { process, runs: Page::cut(runs, limit, next) }))
}

fn cursor(text: &str) -> ApiResult<RunCursor> {
    let read = || {
        let mut parts = text.splitn(3, '.');
        Some(RunCursor {
            creation_us: i64::from_str(parts.next()?).ok()?,
            host_id: Uuid::try_parse(parts.next()?).ok()?,
            instance_id: i64::from_str(parts.next()?).ok()?,
        })
    };
    read().ok_or_else(|| params::bad_parameter("after", "must be `next` of the page before"))
}
