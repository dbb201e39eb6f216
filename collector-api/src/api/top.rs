//! The top of a window: `/v1/top` of many hosts, `/v1/hosts/{host}/processes` of one.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::hosts::{HostProblems, resolve_host};
use super::params::{self, MAX_WINDOW, Now, Places};
use super::selection::{self, Selection};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::store::coverage::{Coverage, Reading};
use crate::store::question::Class;
use crate::store::samples::HostTotals;
use crate::store::usage::{Resource, Subject, Top, Usage};

/// Most rows of a page.
const MAX_ROWS: u32 = 1000;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(top)).routes(routes!(list_host_processes))
}

/// When, and ranked by what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HostTopQuery {
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 400 days before `to`.
    #[param(example = "2026-11-22T03:05:00Z")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "2026-11-22T03:20:00Z")]
    to: Option<String>,
    /// What to rank by. Default: `cpu`.
    #[param(inline, default = "cpu")]
    sort: Option<Resource>,
    /// Most instances returned, 1 to 1,000.
    #[param(default = 20, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Who used what in a window. `processes`, `remaining` and `residual` add up to everything the agent
/// recorded of processes; what `host` has beyond them belongs to no process, or to processes that
/// ended between two samples.
#[derive(Serialize, ToSchema)]
struct HostTopAnswer {
    /// The host.
    host_id: Uuid,
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// What `processes` are ranked by.
    sort: Resource,
    /// The first `limit` instances.
    processes: Vec<Usage>,
    /// What the instances beyond `limit` sum to; null: there are none.
    remaining: Option<Usage>,
    /// What was never worth a row of its own; null: nothing.
    residual: Option<Usage>,
    /// The host as a whole.
    host: HostTotals,
    /// How complete this is, and how finely it was read.
    coverage: Coverage,
}

/// Which process ate the CPU, memory, disk or network of a host in a window, and what its command
/// line was.
#[utoipa::path(get, path = "/v1/hosts/{host}/processes", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host"), HostTopQuery),
    responses((status = 200, description = "The top of the window", body = HostTopAnswer), HostProblems, OperatorProblems))]
async fn list_host_processes(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Path(host): Path<String>,
    Query(query): Query<HostTopQuery>,
) -> ApiResult<Json<HostTopAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now, MAX_WINDOW)?;
    let limit = params::limit(query.limit, 20, MAX_ROWS)?;
    let sort = query.sort.unwrap_or_default();
    let host_id = resolve_host(&state.readers, &host).await?;
    let hosts = [host_id];
    let mut question = state.readers.question(Class::Window).await?;
    let top = Top {
        hosts: Some(&hosts),
        window,
        resource: sort,
        subject: Subject::Instance,
        limit,
        skip: 0,
    };
    let rows = Ranking::of(question.top(top).await?);
    let host = question.host_totals(host_id, window).await?;
    let coverage = question.coverage(Some(&hosts), window, Reading::Sums).await?;
    question.answered().await?;
    Ok(Json(HostTopAnswer {
        host_id,
        from: window.from,
        to: window.to,
        sort,
        processes: rows.subjects,
        remaining: rows.remaining,
        residual: rows.residual,
        host,
        coverage,
    }))
}

/// Of which hosts, when, and ranked by what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TopQuery {
    /// Only this host, by id or name.
    host: Option<String>,
    /// Only hosts that carry every one of these labels: `name=value`, separated by commas.
    #[param(example = "env=prod,role=db")]
    labels: Option<String>,
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 31 days before `to`.
    #[param(example = "-1h")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// What to rank by. Default: `cpu`.
    #[param(inline, default = "cpu")]
    sort: Option<Resource>,
    /// What to rank. Default: `instance`.
    #[param(inline, default = "instance")]
    by: Option<Subject>,
    /// Most rows returned, 1 to 1,000.
    #[param(default = 20, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before. Pages of a window that is still being filled may shift: name `to`.
    after: Option<u32>,
}

/// Who used most of a resource. `items`, `remaining` and `residual` add up to everything recorded,
/// on the first page.
#[derive(Serialize, ToSchema)]
struct TopAnswer {
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// What `items` are ranked by.
    sort: Resource,
    /// What they are.
    by: Subject,
    /// Subjects, by place.
    items: Vec<Usage>,
    /// `after` of the next page; null: this was the last.
    next: Option<String>,
    /// What the subjects after these sum to; null: there are none.
    remaining: Option<Usage>,
    /// What was never worth a row of its own, on all hosts; null: nothing, or hosts are ranked.
    residual: Option<Usage>,
    /// How complete this is, and how finely it was read.
    coverage: Coverage,
}

/// Who used most of a resource in a window: of the fleet, of hosts with a label, of one host; by
/// instance, by command line or by host.
#[utoipa::path(get, path = "/v1/top", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(TopQuery),
    responses((status = 200, description = "The top of the window, by place", body = TopAnswer), HostProblems, OperatorProblems))]
async fn top(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Query(query): Query<TopQuery>,
) -> ApiResult<Json<TopAnswer>> {
    let times = (query.from.as_deref(), query.to.as_deref());
    let Places { window, limit, skip } =
        params::places(times, now, (query.limit, 20), query.after)?;
    let selection = Selection { host: query.host.as_deref(), labels: query.labels.as_deref() };
    let hosts = selection::resolve(&state.readers, selection).await?;
    let (sort, by) = (query.sort.unwrap_or_default(), query.by.unwrap_or_default());
    let mut question = state.readers.question(selection::class(hosts.as_deref())).await?;
    let top = Top { hosts: hosts.as_deref(), window, resource: sort, subject: by, limit, skip };
    let rows = Ranking::of(question.top(top).await?);
    let coverage = question.coverage(hosts.as_deref(), window, Reading::Sums).await?;
    question.answered().await?;
    let last = rows.subjects.last().and_then(|row| row.place);
    Ok(Json(TopAnswer {
        from: window.from,
        to: window.to,
        sort,
        by,
        next: last.filter(|_| rows.remaining.is_some()).map(|place| place.to_string()),
        items: rows.subjects,
        remaining: rows.remaining,
        residual: rows.residual,
        coverage,
    }))
}

/// The three kinds of rows of a ranking, apart.
struct Ranking {
    subjects: Vec<Usage>,
    remaining: Option<Usage>,
    residual: Option<Usage>,
}

impl Ranking {
    fn of(rows: Vec<Usage>) -> Self {
        let (subjects, rest): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.place.is_some());
        let (residual, remaining): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|row| row.instance_id.is_some());
        Self {
            subjects,
            remaining: remaining.into_iter().next(),
            residual: residual.into_iter().next(),
        }
    }
}
