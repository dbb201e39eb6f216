//! `/v1/connections`: who talked to whom.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hosts::{HostProblems, resolve_host};
use super::params::{self, Now, Places};
use super::selection::{self, Selection};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::store::connections::{Talk, Talks};
use crate::store::coverage::{Coverage, Reading};
use crate::store::ids::InstanceKey;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_connections))
}

/// Of which hosts, with whom, and when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConnectionsQuery {
    /// Only as this host saw it, by id or name.
    host: Option<String>,
    /// Only hosts that carry every one of these labels: `name=value`, separated by commas.
    #[param(example = "env=prod,role=db")]
    labels: Option<String>,
    /// Only with this other host, by id or name: with any address it used in the window. An address
    /// that is translated on the way is not recognised.
    peer: Option<String>,
    /// Only with this remote address.
    #[param(value_type = Option<String>, example = "10.0.0.8")]
    remote_address: Option<IpAddr>,
    /// Only of this instance; needs `host`.
    instance_id: Option<InstanceKey>,
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 31 days before `to`.
    #[param(example = "-1h")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// Most rows returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before. Pages of a window that is still being filled may shift: name `to`.
    after: Option<u32>,
}

/// Who talked to whom.
#[derive(Serialize, ToSchema)]
struct ConnectionsAnswer {
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Addresses that stand for `peer`; null without it.
    #[schema(value_type = Option<Vec<String>>)]
    peer_addresses: Option<Vec<IpAddr>>,
    /// By bytes. Connections are kept as samples only, as far back as those are.
    items: Vec<Talk>,
    /// `after` of the next page; null: this was the last.
    next: Option<String>,
    /// How complete the hosts' data are.
    coverage: Coverage,
}

/// Which process of which host exchanged how much with which address: between two hosts, of a host,
/// of an instance, or everybody who talked to an address.
#[utoipa::path(get, path = "/v1/connections", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(ConnectionsQuery),
    responses((status = 200, description = "Connections, by bytes", body = ConnectionsAnswer), HostProblems, OperatorProblems))]
async fn list_connections(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Query(query): Query<ConnectionsQuery>,
) -> ApiResult<Json<ConnectionsAnswer>> {
    let times = (query.from.as_deref(), query.to.as_deref());
    let Places { window, limit, skip } =
        params::places(times, now, (query.limit, 100), query.after)?;
    params::check_instance(query.instance_id, query.host.as_deref())?;
    if query.peer.is_some() && query.remote_address.is_some() {
        return Err(params::bad_parameter("peer", "cannot be combined with `remote_address`"));
    }
    let selection = Selection { host: query.host.as_deref(), labels: query.labels.as_deref() };
    let hosts = selection::resolve(&state.readers, selection).await?;
    let peer = match query.peer.as_deref() {
        Some(peer) => Some(resolve_host(&state.readers, peer).await?),
        None => None,
    };
    let mut question = state.readers.question(selection::class(hosts.as_deref())).await?;
    let peer_addresses = match peer {
        Some(peer) => Some(question.host_addresses(peer, window).await?),
        None => None,
    };
    let remotes =
        peer_addresses.clone().or_else(|| query.remote_address.map(|address| vec![address]));
    let talks = Talks {
        hosts: hosts.as_deref(),
        remotes: remotes.as_deref(),
        instance_id: query.instance_id,
        window,
        limit: limit + 1,
        skip,
    };
    let items = question.connections(talks).await?;
    let coverage = question.coverage(hosts.as_deref(), window, Reading::Series(None)).await?;
    question.answered().await?;
    let page = params::Page::cut(items, limit, |talk| talk.place.to_string());
    Ok(Json(ConnectionsAnswer {
        from: window.from,
        to: window.to,
        peer_addresses,
        items: page.items,
        next: page.next,
        coverage,
    }))
}
