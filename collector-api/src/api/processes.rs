//! Processes: the top of a window on one host, and the search for command lines across the fleet.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::hosts::{HostProblems, resolve_host};
use super::params::{self, Now, Page};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::Viewer;
use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::store::ids::{InstanceKey, ProcessKey};
use crate::store::processes::{FoundRun, ProcessUsage, Sort};
use crate::store::samples::HostTotals;

/// Most hosts listed per process found.
const MAX_HOSTS: i64 = 10;
/// Longest text looked for, bytes.
const MAX_SEARCH_BYTES: usize = 1024;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_host_processes)).routes(routes!(search_processes))
}

crate::problems! {
    SearchProblems = BadParameter;
}

/// When, and ranked by what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TopQuery {
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 31 days before `to`.
    #[param(example = "2026-11-22T03:05:00Z")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "2026-11-22T03:20:00Z")]
    to: Option<String>,
    /// What to rank by. Default: `cpu`.
    #[param(inline, default = "cpu")]
    sort: Option<Sort>,
    /// Most instances returned, 1 to 1,000.
    #[param(default = 20, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Who used what in a window. `processes`, `remaining` and `residual` add up to everything the agent
/// recorded of processes; what `host` has beyond them belongs to no process, or to processes that
/// ended between two samples.
#[derive(Serialize, ToSchema)]
struct TopAnswer {
    /// The host.
    host_id: Uuid,
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// What `processes` are ranked by.
    sort: Sort,
    /// The first `limit` instances.
    processes: Vec<ProcessUsage>,
    /// What the instances beyond `limit` sum to; null: there are none.
    remaining: Option<ProcessUsage>,
    /// What was never worth a row of its own; null: nothing.
    residual: Option<ProcessUsage>,
    /// The host as a whole.
    host: HostTotals,
}

/// Which process ate the CPU, memory, disk or network of a host in a window, and what its command
/// line was.
#[utoipa::path(get, path = "/v1/hosts/{host}/processes", tag = "processes", security(("api_key" = ["viewer"])),
    params(("host" = String, Path, description = "Id or name of the host"), TopQuery),
    responses((status = 200, description = "The top of the window", body = TopAnswer), HostProblems, OperatorProblems))]
async fn list_host_processes(
    State(state): State<ApiState>,
    _: Viewer,
    Now(now): Now,
    Path(host): Path<String>,
    Query(query): Query<TopQuery>,
) -> ApiResult<Json<TopAnswer>> {
    let window = params::window(query.from.as_deref(), query.to.as_deref(), now)?;
    let limit = params::limit(query.limit, 20, 1000)?;
    let sort = query.sort.unwrap_or_default();
    let host_id = resolve_host(&state.readers, &host).await?;
    let host = state.readers.host_totals(host_id, window).await?;
    let rows = state.readers.top_processes(host_id, window, sort, limit).await?;
    let (processes, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.place.is_some());
    let mut answer = TopAnswer {
        host_id,
        from: window.from,
        to: window.to,
        sort,
        processes,
        remaining: None,
        residual: None,
        host,
    };
    for row in rest {
        match row.instance_id {
            Some(InstanceKey(_)) => answer.residual = Some(row),
            None => answer.remaining = Some(row),
        }
    }
    Ok(Json(answer))
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// Text that the command line contains, character for character, upper and lower case alike.
    /// Absent or empty: every command line.
    #[param(example = "mysqld --port=3307")]
    q: Option<String>,
    /// Most command lines returned, 1 to 100.
    #[param(default = 20, minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<ProcessKey>,
}

/// A command line that the search found.
#[derive(Serialize, ToSchema)]
struct FoundProcess {
    /// md5 of the command line.
    process_id: ProcessKey,
    /// The command line, redacted on the host that first sent it.
    command_line: String,
    /// The kernel's short name of it.
    executable_name: String,
    /// When the fleet first saw it.
    #[serde(with = "time::serde::rfc3339")]
    first_seen_at: OffsetDateTime,
    /// Hosts that ran it.
    host_count: i64,
    /// Those of them, at most 10, that started it last.
    hosts: Vec<FoundHost>,
}

/// A host that ran the process.
#[derive(Serialize, ToSchema)]
struct FoundHost {
    /// Its id.
    host_id: Uuid,
    /// Its name.
    host_name: Option<String>,
    /// Runs of the process known there.
    instance_count: Option<i64>,
    /// Start of the newest run.
    #[serde(with = "time::serde::rfc3339::option")]
    last_started_at: Option<OffsetDateTime>,
    /// Newest sign of it: a start, a description, or a sample of the last 15 minutes. It may have
    /// run longer than this.
    #[serde(with = "time::serde::rfc3339::option")]
    last_seen_at: Option<OffsetDateTime>,
}

/// Which hosts ran a command line, and when last.
#[utoipa::path(get, path = "/v1/processes", tag = "processes", security(("api_key" = ["viewer"])),
    params(SearchQuery),
    responses((status = 200, description = "Command lines, by process id", body = Page<FoundProcess>), SearchProblems, OperatorProblems))]
async fn search_processes(
    State(state): State<ApiState>,
    _: Viewer,
    Query(query): Query<SearchQuery>,
) -> ApiResult<Json<Page<FoundProcess>>> {
    let limit = params::limit(query.limit, 20, 100)?;
    let q = params::search("q", query.q.as_deref(), MAX_SEARCH_BYTES)?;
    let runs = state.readers.search_processes(q, query.after, limit + 1, MAX_HOSTS).await?;
    let mut found: Vec<FoundProcess> = Vec::new();
    for run in runs {
        if found.last().is_none_or(|last| last.process_id != run.process_id) {
            found.push(FoundProcess {
                process_id: run.process_id,
                command_line: run.command_line.clone(),
                executable_name: run.executable_name.clone(),
                first_seen_at: run.first_seen_at,
                host_count: run.host_count,
                hosts: Vec::new(),
            });
        }
        if let (Some(process), Some(host)) = (found.last_mut(), found_host(run)) {
            process.hosts.push(host);
        }
    }
    let cursor = |process: &FoundProcess| process.process_id.0.simple().to_string();
    Ok(Json(Page::cut(found, limit, cursor)))
}

fn found_host(run: FoundRun) -> Option<FoundHost> {
    Some(FoundHost {
        host_id: run.host_id?,
        host_name: run.host_name,
        instance_count: run.instance_count,
        last_started_at: run.last_started_at,
        last_seen_at: run.last_seen_at,
    })
}
