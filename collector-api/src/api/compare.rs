//! `/v1/compare`: what is different from an hour ago.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hosts::HostProblems;
use super::params::{self, MAX_FLEET_WINDOW, Now};
use super::selection::{self, Selection};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::store::coverage::{Coverage, Reading};
use crate::store::samples::Window;
use crate::store::usage::{Change, Resource};

/// How far back the window compared with lies unless the question says.
const DEFAULT_BACK: &str = "1h";

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(compare))
}

/// Of which hosts, which windows, and by what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CompareQuery {
    /// Only this host, by id or name.
    host: Option<String>,
    /// Only hosts that carry every one of these labels: `name=value`, separated by commas.
    #[param(example = "env=prod,role=db")]
    labels: Option<String>,
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 31 days before `to`.
    #[param(example = "-15m")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// How much earlier the window of the same length lies that it is compared with. Default: `1h`.
    #[param(example = "1d", default = "1h")]
    back: Option<String>,
    /// What to compare. Default: `cpu`.
    #[param(inline, default = "cpu")]
    sort: Option<Resource>,
    /// Most changes returned, 1 to 1,000.
    #[param(default = 20, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What became different.
#[derive(Serialize, ToSchema)]
struct CompareAnswer {
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Begin of the window compared with, excluded.
    #[serde(with = "time::serde::rfc3339")]
    base_from: OffsetDateTime,
    /// End of the window compared with, included.
    #[serde(with = "time::serde::rfc3339")]
    base_to: OffsetDateTime,
    /// What was compared.
    sort: Resource,
    /// Processes of hosts whose use changed most, up or down.
    changes: Vec<Change>,
    /// How complete the data of the window are.
    coverage: Coverage,
    /// How complete the data of the window compared with are.
    base_coverage: Coverage,
}

/// What is different from an hour (a day, a week) ago: the processes whose use changed most, those
/// that appeared and those that vanished among them.
#[utoipa::path(get, path = "/v1/compare", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(CompareQuery),
    responses((status = 200, description = "Changes, the largest first", body = CompareAnswer), HostProblems, OperatorProblems))]
async fn compare(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Query(query): Query<CompareQuery>,
) -> ApiResult<Json<CompareAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_FLEET_WINDOW)?;
    let limit = params::limit(query.limit, 20, 1000)?;
    let back = params::back("back", query.back.as_deref().unwrap_or(DEFAULT_BACK))?;
    let base = earlier(window, back)?;
    let selection = Selection { host: query.host.as_deref(), labels: query.labels.as_deref() };
    let hosts = selection::resolve(&state.readers, selection).await?;
    let sort = query.sort.unwrap_or_default();
    let mut question = state.readers.question(selection::class(hosts.as_deref())).await?;
    let changes = question.compare(hosts.as_deref(), [window, base], sort, limit).await?;
    let coverage = question.coverage(hosts.as_deref(), window, Reading::Sums).await?;
    let base_coverage = question.coverage(hosts.as_deref(), base, Reading::Sums).await?;
    question.answered().await?;
    Ok(Json(CompareAnswer {
        from: window.from,
        to: window.to,
        base_from: base.from,
        base_to: base.to,
        sort,
        changes,
        coverage,
        base_coverage,
    }))
}

fn earlier(window: Window, back: Duration) -> ApiResult<Window> {
    let shift = |at: OffsetDateTime| at.checked_sub(back);
    match (shift(window.from), shift(window.to)) {
        (Some(from), Some(to)) => Ok(Window { from, to }),
        _ => Err(params::bad_parameter("back", "leads too far back")),
    }
}
