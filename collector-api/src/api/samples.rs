//! Series: `/v1/hosts/{host}/samples`, `…/processes/{process_id}/samples` and
//! `…/instances/{instance_id}/samples`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::hosts::{HostProblems, resolve_host};
use super::params::{self, MAX_POINTS, MAX_WINDOW, Now};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::store::Store;
use crate::store::coverage::{Coverage, Reading};
use crate::store::ids::{InstanceKey, ProcessKey};
use crate::store::processes::{Instance, ProcessText};
use crate::store::question::Class;
use crate::store::samples::{HostPoint, ProcessPoint, ProcessSeries};

/// Most instances of one process in an answer.
const MAX_INSTANCES: u32 = 20;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_host_samples))
        .routes(routes!(list_process_samples))
        .routes(routes!(list_instance_samples))
}

/// When, and how finely.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SeriesQuery {
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 400 days before `to`.
    #[param(example = "-1h")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// Width of the buckets that samples are gathered in, such as `30s`, `5m`, `1h`. Default: every
    /// sample by itself up to 1,000 of them, else the narrowest step that makes at most 500 buckets.
    #[param(example = "5m")]
    step: Option<String>,
}

/// The series of a host.
#[derive(Serialize, ToSchema)]
struct HostSeriesAnswer {
    /// The host.
    host_id: Uuid,
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Width of the buckets, s; null: every sample by itself.
    step_s: Option<u32>,
    /// By time.
    samples: Vec<HostPoint>,
    /// How complete this is, and how finely it was read.
    coverage: Coverage,
}

/// The host's CPU, memory, load, pressure and its agent's cost over a window.
#[utoipa::path(get, path = "/v1/hosts/{host}/samples", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host"), SeriesQuery),
    responses((status = 200, description = "The series", body = HostSeriesAnswer), HostProblems, OperatorProblems))]
async fn list_host_samples(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Path(host): Path<String>,
    Query(query): Query<SeriesQuery>,
) -> ApiResult<Json<HostSeriesAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_WINDOW)?;
    let mut step_s = params::step(query.step.as_deref(), window)?;
    let host_id = resolve_host(&state.readers, &host).await?;
    let mut question = state.readers.question(Class::Window).await?;
    let finest_s = question.finest_step("host", window).await?;
    step_s = params::kept_step(step_s, finest_s, window)?;
    // One more than what fits; a window rarely begins where a bucket does, hence the other one.
    let limit = i64::from(MAX_POINTS) + 1;
    let mut samples = question.host_series(host_id, window, step_s.map(f64::from), limit).await?;
    if step_s.is_none() && samples.len() > MAX_POINTS as usize {
        let step = params::fitting_step(window, finest_s);
        step_s = Some(step);
        samples = question.host_series(host_id, window, Some(f64::from(step)), limit).await?;
    }
    let coverage = question.coverage(Some(&[host_id]), window, Reading::Series(step_s)).await?;
    question.answered().await?;
    Ok(Json(HostSeriesAnswer {
        host_id,
        from: window.from,
        to: window.to,
        step_s,
        samples,
        coverage,
    }))
}

/// When, how finely, and which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ProcessSeriesQuery {
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 400 days before `to`.
    #[param(example = "-1h")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// Width of the buckets that samples are gathered in, such as `30s`, `5m`, `1h`. Default: every
    /// sample by itself up to 1,000 of them, else the narrowest step that makes at most 500 buckets
    /// per instance.
    #[param(example = "5m")]
    step: Option<String>,
    /// Only this run of the process.
    instance_id: Option<InstanceKey>,
}

/// The series of a process on a host.
#[derive(Serialize, ToSchema)]
struct ProcessSeriesAnswer {
    /// The host.
    host_id: Uuid,
    #[serde(flatten)]
    process: ProcessText,
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Width of the buckets, s; null: every sample by itself.
    step_s: Option<u32>,
    /// Instances that have samples in the window. Above 20, those seen last are in `instances`.
    instances_in_window: i64,
    /// The runs that `samples` are of, newest first.
    instances: Vec<Instance>,
    /// By time and instance.
    samples: Vec<ProcessPoint>,
    /// How complete the host's data are, and how finely they were read.
    coverage: Coverage,
}

/// What a process used over a window, each of its runs by itself.
#[utoipa::path(get, path = "/v1/hosts/{host}/processes/{process_id}/samples", tag = "processes",
    security(("api_key" = ["fleet:read"])),
    params(
        ("host" = String, Path, description = "Id or name of the host"),
        ("process_id" = ProcessKey, Path, description = "md5 of the command line, 32 hex digits"),
        ProcessSeriesQuery),
    responses((status = 200, description = "The series", body = ProcessSeriesAnswer), HostProblems, OperatorProblems))]
async fn list_process_samples(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Path((host, process_id)): Path<(String, ProcessKey)>,
    Query(query): Query<ProcessSeriesQuery>,
) -> ApiResult<Json<ProcessSeriesAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_WINDOW)?;
    let step_s = params::step(query.step.as_deref(), window)?;
    let store = &state.readers;
    let host_id = resolve_host(store, &host).await?;
    let process = store.find_process(process_id).await?.ok_or_else(|| {
        ApiError::new(
            ProblemCode::NotFound,
            format!("There is no process {}.", process_id.0.simple()),
        )
    })?;
    let series = ProcessSeries {
        host_id,
        process_id: Some(process_id),
        instance_id: query.instance_id,
        window,
    };
    let found = process_series(store, series, step_s).await?;
    Ok(Json(ProcessSeriesAnswer {
        host_id,
        process,
        from: window.from,
        to: window.to,
        step_s: found.step_s,
        instances_in_window: found.samples.first().map_or(0, |point| point.instances_in_window),
        instances: found.instances,
        samples: found.samples,
        coverage: found.coverage,
    }))
}

/// The series of one run of a process.
#[derive(Serialize, ToSchema)]
struct InstanceSeriesAnswer {
    /// The host.
    host_id: Uuid,
    /// What it is; null: its description has not arrived yet, or is not kept any more.
    instance: Option<Instance>,
    /// What it ran last.
    process: Option<ProcessText>,
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Width of the buckets, s; null: every sample by itself.
    step_s: Option<u32>,
    /// By time.
    samples: Vec<ProcessPoint>,
    /// How complete the host's data are, and how finely they were read.
    coverage: Coverage,
}

/// What one instance used over a window, whatever it ran.
#[utoipa::path(get, path = "/v1/hosts/{host}/instances/{instance_id}/samples", tag = "processes",
    security(("api_key" = ["fleet:read"])),
    params(
        ("host" = String, Path, description = "Id or name of the host"),
        ("instance_id" = InstanceKey, Path, description = "Key of the instance within the host; 0: the residual"),
        SeriesQuery),
    responses((status = 200, description = "The series", body = InstanceSeriesAnswer), HostProblems, OperatorProblems))]
async fn list_instance_samples(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Path((host, instance_id)): Path<(String, InstanceKey)>,
    Query(query): Query<SeriesQuery>,
) -> ApiResult<Json<InstanceSeriesAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_WINDOW)?;
    let step_s = params::step(query.step.as_deref(), window)?;
    let store = &state.readers;
    let host_id = resolve_host(store, &host).await?;
    let series =
        ProcessSeries { host_id, process_id: None, instance_id: Some(instance_id), window };
    let mut found = process_series(store, series, step_s).await?;
    if found.instances.is_empty() {
        found.instances = store.find_instances(host_id, &[instance_id]).await?;
    }
    let instance = found.instances.pop();
    let process = match instance.as_ref() {
        Some(instance) => store.find_process(instance.process_id).await?,
        None => None,
    };
    Ok(Json(InstanceSeriesAnswer {
        host_id,
        instance,
        process,
        from: window.from,
        to: window.to,
        step_s: found.step_s,
        samples: found.samples,
        coverage: found.coverage,
    }))
}

/// What the series of processes and instances have in common.
struct FoundSeries {
    step_s: Option<u32>,
    instances: Vec<Instance>,
    samples: Vec<ProcessPoint>,
    coverage: Coverage,
}

async fn process_series(
    store: &Store,
    series: ProcessSeries,
    asked_step_s: Option<u32>,
) -> ApiResult<FoundSeries> {
    let window = series.window;
    let mut question = store.question(Class::Window).await?;
    let finest_s = question.finest_step("process", window).await?;
    let mut step_s = params::kept_step(asked_step_s, finest_s, window)?;
    let most = i64::from(MAX_INSTANCES);
    let points = if step_s.is_some() { MAX_POINTS * MAX_INSTANCES } else { MAX_POINTS };
    let mut samples =
        question.process_series(series, step_s.map(f64::from), most, i64::from(points) + 1).await?;
    if step_s.is_none() && samples.len() > MAX_POINTS as usize {
        let step = params::fitting_step(window, finest_s);
        step_s = Some(step);
        let points = i64::from(MAX_POINTS * MAX_INSTANCES) + 1;
        samples = question.process_series(series, Some(f64::from(step)), most, points).await?;
    }
    let coverage =
        question.coverage(Some(&[series.host_id]), window, Reading::Series(step_s)).await?;
    question.answered().await?;
    let mut ids: Vec<InstanceKey> = samples.iter().map(|point| point.instance_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let instances = store.find_instances(series.host_id, &ids).await?;
    Ok(FoundSeries { step_s, instances, samples, coverage })
}
