//! `/v1/hosts/{host}/stack`: a host's resource over time, by process, ready to be stacked.
//!
//! The answer is in columns (one list of times, one list of values per process), because a chart
//! reads it so and because it is a third of the size.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::hosts::{HostProblems, resolve_host};
use super::params::{self, MAX_POINTS, MAX_WINDOW, Now};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::store::ids::ProcessKey;
use crate::store::pictures::{Stack, StackPoint};
use crate::store::question::Class;
use crate::store::usage::Resource;

/// Most processes of an answer.
const MAX_PROCESSES: u32 = 50;
/// Longest window that is tried sample by sample: hosts keep hundreds of rows per sample.
const MAX_RAW: time::Duration = time::Duration::HOUR;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_stack))
}

/// When, how finely, and of what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StackQuery {
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 400 days before `to`.
    #[param(example = "-1h")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// Width of the buckets, such as `30s`, `5m`, `1h`. Default: every sample by itself within an hour
    /// and up to 1,000 of them, else the narrowest step that makes at most 500 buckets.
    #[param(example = "5m")]
    step: Option<String>,
    /// What to stack. Default: `cpu`.
    #[param(inline, default = "cpu")]
    sort: Option<Resource>,
    /// Most processes with values of their own, 1 to 50.
    #[param(default = 12, minimum = 1, maximum = 50)]
    limit: Option<u32>,
}

/// A resource over time, by process. What the processes, `remaining` and `residual` sum to is
/// everything recorded of processes.
#[derive(Debug, Serialize, ToSchema)]
struct StackAnswer {
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
    /// What is stacked.
    sort: Resource,
    /// Ends of the buckets that have samples, ms since the Unix epoch, rounded up.
    times_ms: Vec<i64>,
    /// Time that samples cover in each, ms.
    covered_ms: Vec<Option<i64>>,
    /// Processes by place. Places alternate between the largest sums and the highest peaks.
    processes: Vec<StackLine>,
    /// All other processes, per bucket.
    remaining: Vec<Option<f64>>,
    /// What no tick kept by itself, per bucket.
    residual: Vec<Option<f64>>,
}

/// One process of a stack.
#[derive(Debug, Serialize, ToSchema)]
struct StackLine {
    /// Place, from 1.
    place: i64,
    /// What it runs; null: instances whose description has not arrived yet.
    process_id: Option<ProcessKey>,
    /// Its command line, redacted on the host.
    command_line: Option<String>,
    /// The kernel's short name of its newest run on the host.
    executable_name: Option<String>,
    /// Its instances in the window.
    instance_count: Option<i64>,
    /// Per bucket: CPU in µs or bytes of all its instances, of memory the mean. Null: nothing known.
    values: Vec<Option<f64>>,
}

/// A host's CPU, memory, disk or network over a window, stacked by process.
#[utoipa::path(get, path = "/v1/hosts/{host}/stack", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host"), StackQuery),
    responses((status = 200, description = "The stack", body = StackAnswer), HostProblems, OperatorProblems))]
async fn get_stack(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Path(host): Path<String>,
    Query(query): Query<StackQuery>,
) -> ApiResult<Json<StackAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_WINDOW)?;
    let asked_s = params::step(query.step.as_deref(), window)?;
    let limit = params::limit(query.limit, 12, MAX_PROCESSES)?;
    let sort = query.sort.unwrap_or_default();
    let host_id = resolve_host(&state.readers, &host).await?;
    let mut question = state.readers.question(Class::Window).await?;
    let finest_s = question.finest_step("process", window).await?;
    let mut step_s = params::kept_step(asked_s, finest_s, window)?;
    if step_s.is_none() && window.to - window.from > MAX_RAW {
        step_s = Some(params::fitting_step(window, finest_s));
    }
    let stack = Stack { host_id, window, resource: sort, max_processes: limit };
    let mut points = question.stack(stack, step_s.map(f64::from)).await?;
    if step_s.is_none() && moments(&points) > MAX_POINTS as usize {
        let step = params::fitting_step(window, finest_s);
        step_s = Some(step);
        points = question.stack(stack, Some(f64::from(step))).await?;
    }
    question.answered().await?;
    let empty = StackAnswer {
        host_id,
        from: window.from,
        to: window.to,
        step_s,
        sort,
        times_ms: Vec::new(),
        covered_ms: Vec::new(),
        processes: Vec::new(),
        remaining: Vec::new(),
        residual: Vec::new(),
    };
    Ok(Json(in_columns(empty, points)))
}

/// Different times among points ordered by time.
fn moments(points: &[StackPoint]) -> usize {
    points.chunk_by(|one, other| one.sampled_at == other.sampled_at).count()
}

fn in_columns(mut answer: StackAnswer, points: Vec<StackPoint>) -> StackAnswer {
    let count = moments(&points);
    let mut lines: BTreeMap<i64, StackLine> = BTreeMap::new();
    (answer.remaining, answer.residual) = (vec![None; count], vec![None; count]);
    let mut last = None;
    for point in points {
        if last != Some(point.sampled_at) {
            last = Some(point.sampled_at);
            answer.times_ms.push(params::end_ms(point.sampled_at));
            answer.covered_ms.push(point.covered_ms);
        }
        let at = answer.times_ms.len() - 1;
        let value = point.value;
        match point.place {
            Some(place) => {
                let line = lines.entry(place).or_insert_with(|| StackLine {
                    place,
                    process_id: point.process_id,
                    command_line: point.command_line,
                    executable_name: point.executable_name,
                    instance_count: point.instance_count,
                    values: vec![None; count],
                });
                line.values[at] = value;
            }
            None if point.is_residual => answer.residual[at] = value,
            None => answer.remaining[at] = value,
        }
    }
    answer.processes = lines.into_values().collect();
    answer
}
