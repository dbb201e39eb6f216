//! `/v1/hosts`: which hosts there are and how each of them is.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared_model::{FieldError, ProblemCode};
use time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Page};
use super::{ApiState, OperatorProblems, selection};
use crate::auth::operator::FleetRead;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::store::Store;
use crate::store::hosts::{
    AgentState, BlockDevice, Filesystem, HostMatch, HostSummary, NetworkInterface,
};
use crate::store::question::Class;
use crate::store::rollouts::releases::HostRelease;
use crate::store::samples::{HostPoint, Window};

/// Most host ids listed when a name is ambiguous.
const MAX_AMBIGUOUS: i64 = 20;
/// Longest text looked for, bytes.
const MAX_SEARCH_BYTES: usize = 1024;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_hosts)).routes(routes!(get_host))
}

crate::problems! {
    ListProblems = BadParameter;
    /// What every route below `/v1/hosts/{host}` may answer.
    pub(super) HostProblems = BadParameter, NotFound, AmbiguousHost;
}

/// Which hosts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Text that the host name contains, upper and lower case alike.
    q: Option<String>,
    /// Only hosts whose labels fulfil all of this: `name=value`, `name!=value`, `name in (a, b)`, `name notin (a, b)`,
    /// `name`, `!name`, separated by commas.
    #[param(example = "env=prod,role=db")]
    labels: Option<String>,
    /// Most hosts returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<Uuid>,
}

/// Every host, by name, with its heartbeat and its newest CPU and memory.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(ListQuery),
    responses((status = 200, description = "Hosts, by name and id", body = Page<HostSummary>), ListProblems, OperatorProblems))]
async fn list_hosts(
    State(state): State<ApiState>,
    _: FleetRead,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<HostSummary>>> {
    let limit = params::limit(query.limit, 100, 1000)?;
    let q = params::search("q", query.q.as_deref(), MAX_SEARCH_BYTES)?;
    let labels = query.labels.as_deref().map(selection::selector).transpose()?.unwrap_or_default();
    let hosts = state.readers.list_hosts(q, &labels, query.after, limit + 1).await?;
    Ok(Json(Page::cut(hosts, limit, |host| host.host_id.to_string())))
}

/// A host in full, as it was last seen.
#[derive(Serialize, ToSchema)]
struct HostDetail {
    #[serde(flatten)]
    host: HostSummary,
    /// Its newest sample; null: it never reported, or its samples are past their retention.
    sample: Option<HostPoint>,
    /// File systems seen within the last 10 minutes it reported.
    filesystems: Vec<Filesystem>,
    /// Block devices seen within the last 10 minutes it reported.
    block_devices: Vec<BlockDevice>,
    /// Network interfaces seen within the last 10 minutes it reported.
    network_interfaces: Vec<NetworkInterface>,
    /// What its agent last said of itself.
    agent: Option<AgentState>,
    /// Which release its agent is, and which it is to be; null: nothing is known or wanted.
    release: Option<HostRelease>,
}

/// One host with its newest sample, file systems, devices, interfaces and the agent's own state.
#[utoipa::path(get, path = "/v1/hosts/{host}", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host; a name means the active host of that name")),
    responses((status = 200, description = "The host", body = HostDetail), HostProblems, OperatorProblems))]
async fn get_host(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(host): Path<String>,
) -> ApiResult<Json<HostDetail>> {
    let store = &state.readers;
    let host_id = resolve_host(store, &host).await?;
    let host = store.find_host(host_id).await?.ok_or_else(|| no_such_host(&host))?;
    let mut detail = HostDetail {
        host,
        sample: None,
        filesystems: Vec::new(),
        block_devices: Vec::new(),
        network_interfaces: Vec::new(),
        agent: None,
        release: store.host_release(host_id).await?,
    };
    if let Some(at) = detail.host.last_sampled_at {
        let newest = Window { from: at - Duration::MICROSECOND, to: at };
        let mut question = store.question(Class::Lookup).await?;
        detail.sample = question.host_series(host_id, newest, None, 1).await?.pop();
        question.answered().await?;
        detail.filesystems = store.latest_filesystems(host_id, at).await?;
        detail.block_devices = store.latest_block_devices(host_id, at).await?;
        detail.network_interfaces = store.latest_network_interfaces(host_id, at).await?;
        detail.agent = store.latest_agent_state(host_id, at).await?;
    }
    Ok(Json(detail))
}

/// The id of the host that `host` stands for: an id, or a name that one active host has, or that
/// only one host ever had.
pub(super) async fn resolve_host(store: &Store, host: &str) -> ApiResult<Uuid> {
    let host = params::search("host", Some(host), MAX_SEARCH_BYTES)?;
    let id = Uuid::try_parse(host).ok();
    let matches = store.match_hosts(id, host, MAX_AMBIGUOUS).await?;
    if let Some(id) = id.filter(|id| matches.iter().any(|found| found.host_id == *id)) {
        return Ok(id);
    }
    match matches.as_slice() {
        [] => Err(no_such_host(host)),
        [only] => Ok(only.host_id),
        [first, second, ..] if first.active && !second.active => Ok(first.host_id),
        several => Err(ambiguous(host, several)),
    }
}

/// The same for a change: a name must be that of one host alone, decommissioned ones left out. A name is
/// what a host says of itself, and an active one must not hide another that waits or was set aside.
pub(super) async fn resolve_changed_host(store: &Store, host: &str) -> ApiResult<Uuid> {
    let host = params::search("host", Some(host), MAX_SEARCH_BYTES)?;
    let id = Uuid::try_parse(host).ok();
    let matches = store.match_hosts(id, host, MAX_AMBIGUOUS).await?;
    if let Some(id) = id.filter(|id| matches.iter().any(|found| found.host_id == *id)) {
        return Ok(id);
    }
    let living: Vec<&HostMatch> = matches.iter().filter(|found| !found.decommissioned).collect();
    match (living.as_slice(), matches.as_slice()) {
        (_, []) => Err(no_such_host(host)),
        ([only], _) => Ok(only.host_id),
        ([], [only]) => Ok(only.host_id),
        _ => Err(ambiguous(host, &matches)),
    }
}

fn no_such_host(host: &str) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("There is no host {host:?}."))
}

fn ambiguous(host: &str, several: &[HostMatch]) -> ApiError {
    let mut error = ApiError::new(
        ProblemCode::AmbiguousHost,
        format!("Several hosts are called {host:?}: ask for one of them by its id, see `errors`."),
    );
    error.problem.errors = several
        .iter()
        .map(|found| FieldError { field: "host".into(), detail: found.host_id.to_string() })
        .collect();
    error
}
