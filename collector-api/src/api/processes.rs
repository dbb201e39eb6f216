//! `/v1/processes`: the search for command lines across the fleet.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Page};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::store::ids::ProcessKey;
use crate::store::processes::{FoundRun, MAX_SEARCH_TEXTS};

/// Most hosts listed per process found.
const MAX_HOSTS: i64 = 10;
/// Longest text looked for, bytes.
const MAX_SEARCH_BYTES: usize = 1024;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(search_processes))
}

crate::problems! {
    SearchProblems = BadParameter;
}

/// How a command line is searched.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SearchMode {
    /// `q` is contained as it is.
    #[default]
    Text,
    /// Each of the words of `q`, at most 6, is contained, in any order.
    Words,
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// What the command line contains, character for character, upper and lower case alike. An index
    /// answers texts of 3 characters and more; shorter ones, and databases without `pg_trgm`, take a scan.
    /// Absent or empty: every command line.
    #[param(example = "mysqld --port=3307")]
    q: Option<String>,
    /// How `q` is looked for. Default: `text`.
    #[param(inline, default = "text")]
    mode: Option<SearchMode>,
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
    /// The kernel's short name of the newest run there.
    executable_name: Option<String>,
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
#[utoipa::path(get, path = "/v1/processes", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(SearchQuery),
    responses((status = 200, description = "Command lines, by process id", body = Page<FoundProcess>), SearchProblems, OperatorProblems))]
async fn search_processes(
    State(state): State<ApiState>,
    _: FleetRead,
    Query(query): Query<SearchQuery>,
) -> ApiResult<Json<Page<FoundProcess>>> {
    let limit = params::limit(query.limit, 20, 100)?;
    let q = params::search("q", query.q.as_deref(), MAX_SEARCH_BYTES)?;
    let texts: Vec<&str> = match query.mode.unwrap_or_default() {
        SearchMode::Text => vec![q],
        SearchMode::Words => q.split_whitespace().collect(),
    };
    if texts.len() > MAX_SEARCH_TEXTS {
        return Err(params::bad_parameter(
            "q",
            format!("must have at most {MAX_SEARCH_TEXTS} words"),
        ));
    }
    let runs = state.readers.search_processes(&texts, query.after, limit + 1, MAX_HOSTS).await?;
    let mut found: Vec<FoundProcess> = Vec::new();
    for run in runs {
        if found.last().is_none_or(|last| last.process_id != run.process_id) {
            found.push(FoundProcess {
                process_id: run.process_id,
                command_line: run.command_line.clone(),
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
        executable_name: run.executable_name,
        instance_count: run.instance_count,
        last_started_at: run.last_started_at,
        last_seen_at: run.last_seen_at,
    })
}
