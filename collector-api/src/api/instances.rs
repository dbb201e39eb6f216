//! `/v1/instances`: the search for runs by port, user, container, unit or pid.
//!
//! A scan of the dictionary of runs, ended by the statement timeout of the readers' pool: what is
//! looked for is rare in it, and an index per field would cost every new process of the fleet.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hosts::{HostProblems, resolve_host};
use super::params;
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::store::instances::{FoundInstance, Wanted};

/// Longest text looked for, bytes.
const MAX_SEARCH_BYTES: usize = 256;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(search_instances))
}

/// What the runs must have, all of it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InstancesQuery {
    /// Only on this host, by id or name.
    host: Option<String>,
    /// A port they listen on.
    #[param(example = 3306)]
    port: Option<u16>,
    /// Their process id.
    pid: Option<i32>,
    /// The name of their user, in full.
    #[param(example = "mysql")]
    owner: Option<String>,
    /// A part of their container's id.
    container: Option<String>,
    /// A part of their systemd unit's name.
    unit: Option<String>,
    /// Most runs returned, 1 to 500.
    #[param(default = 100, minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Runs.
#[derive(Debug, Serialize, ToSchema)]
struct InstancesAnswer {
    /// Those described last first.
    items: Vec<FoundInstance>,
    /// Whether there are more than `limit`.
    more: bool,
}

/// Which runs listened on a port, belonged to a user, a container or a systemd unit, or had a pid.
#[utoipa::path(get, path = "/v1/instances", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(InstancesQuery),
    responses((status = 200, description = "Runs, newest sign of them first", body = InstancesAnswer), HostProblems, OperatorProblems))]
async fn search_instances(
    State(state): State<ApiState>,
    _: FleetRead,
    Query(query): Query<InstancesQuery>,
) -> ApiResult<Json<InstancesAnswer>> {
    let limit = params::limit(query.limit, 100, 500)?;
    let owner = wanted_text("owner", query.owner.as_deref())?;
    let container = wanted_text("container", query.container.as_deref())?;
    let unit = wanted_text("unit", query.unit.as_deref())?;
    let host_id = match query.host.as_deref() {
        Some(host) => Some(resolve_host(&state.readers, host).await?),
        None => None,
    };
    let port = query.port.map(i32::from);
    let wanted = Wanted { host_id, port, pid: query.pid, owner, container, unit };
    let mut items = state.readers.search_instances(wanted, limit + 1).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > most;
    items.truncate(most);
    Ok(Json(InstancesAnswer { items, more }))
}

/// A text to look for; an empty one is none.
fn wanted_text<'a>(name: &str, text: Option<&'a str>) -> ApiResult<Option<&'a str>> {
    let text = params::search(name, text, MAX_SEARCH_BYTES)?;
    Ok((!text.is_empty()).then_some(text))
}
