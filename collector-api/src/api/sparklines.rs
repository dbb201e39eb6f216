//! `/v1/sparklines`: how busy hosts were, in short, for lists of hosts.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, MAX_FLEET_WINDOW, Now};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::store::pictures::SparkPoint;
use crate::store::question::Class;

/// Most hosts of a question: more than a screen shows.
const MAX_HOSTS: usize = 200;
/// Buckets of an answer.
const BUCKETS: f64 = 48.0;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_sparklines))
}

crate::problems! {
    SparkProblems = BadParameter;
}

/// Of which hosts, and when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SparkQuery {
    /// Ids of at most 200 hosts, separated by commas.
    hosts: String,
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 31 days before `to`.
    #[param(example = "-1d")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
}

/// How busy hosts were, in about 48 buckets.
#[derive(Debug, Serialize, ToSchema)]
struct SparkAnswer {
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Width of the buckets, s.
    step_s: u32,
    /// Ends of the buckets, ms since the Unix epoch.
    times_ms: Vec<i64>,
    /// Hosts that have samples in the window, by id.
    hosts: Vec<SparkLine>,
}

/// One host.
#[derive(Debug, Serialize, ToSchema)]
struct SparkLine {
    /// Its id.
    host_id: Uuid,
    /// Share of CPU time spent in user and system, 0 to 1, per bucket.
    cpu_utilization_ratio: Vec<Option<f64>>,
    /// Share of memory in use, 0 to 1, per bucket.
    memory_utilization_ratio: Vec<Option<f64>>,
}

/// CPU and memory of hosts over a window, in short.
#[utoipa::path(get, path = "/v1/sparklines", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(SparkQuery),
    responses((status = 200, description = "The lines", body = SparkAnswer), SparkProblems, OperatorProblems))]
async fn get_sparklines(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Query(query): Query<SparkQuery>,
) -> ApiResult<Json<SparkAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_FLEET_WINDOW)?;
    let hosts = ids(&query.hosts)?;
    let mut question = state.readers.question(Class::Fleet).await?;
    let finest_s = question.finest_step("host", window).await?;
    let step_s = params::step_of(window, finest_s, BUCKETS);
    let points = question.sparklines(&hosts, window, f64::from(step_s)).await?;
    question.answered().await?;
    let mut times_ms: Vec<i64> =
        points.iter().map(|point| params::end_ms(point.sampled_at)).collect();
    times_ms.sort_unstable();
    times_ms.dedup();
    let hosts = in_columns(&points, &times_ms);
    Ok(Json(SparkAnswer { from: window.from, to: window.to, step_s, times_ms, hosts }))
}

fn ids(text: &str) -> ApiResult<Vec<Uuid>> {
    let ids: Option<Vec<Uuid>> = text.split(',').map(|id| Uuid::try_parse(id).ok()).collect();
    ids.filter(|ids| ids.len() <= MAX_HOSTS).ok_or_else(|| {
        params::bad_parameter(
            "hosts",
            format!("must be 1 to {MAX_HOSTS} host ids, separated by commas"),
        )
    })
}

fn in_columns(points: &[SparkPoint], times_ms: &[i64]) -> Vec<SparkLine> {
    let mut lines: BTreeMap<Uuid, SparkLine> = BTreeMap::new();
    for point in points {
        let line = lines.entry(point.host_id).or_insert_with(|| SparkLine {
            host_id: point.host_id,
            cpu_utilization_ratio: vec![None; times_ms.len()],
            memory_utilization_ratio: vec![None; times_ms.len()],
        });
        if let Ok(at) = times_ms.binary_search(&params::end_ms(point.sampled_at)) {
            line.cpu_utilization_ratio[at] = point.cpu_utilization_ratio.map(thousandths);
            line.memory_utilization_ratio[at] = point.memory_utilization_ratio.map(thousandths);
        }
    }
    lines.into_values().collect()
}

/// More digits than a line of 20 pixels can show.
fn thousandths(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}
