//! `/v1/exits`: what ended, how, and what its whole life used.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hosts::HostProblems;
use super::params::{self, Now, Places};
use super::selection::{self, Selection};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::FleetRead;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::store::coverage::{Coverage, Reading};
use crate::store::exits::{Exit, Exits};
use crate::store::ids::{InstanceKey, ProcessKey};
use crate::store::usage::Resource;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_exits))
}

/// Of which hosts and processes, and when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExitsQuery {
    /// Only of this host, by id or name.
    host: Option<String>,
    /// Only of hosts that carry every one of these labels: `name=value`, separated by commas.
    #[param(example = "env=prod,role=db")]
    labels: Option<String>,
    /// Only of this process.
    process_id: Option<ProcessKey>,
    /// Only of this instance; needs `host`.
    instance_id: Option<InstanceKey>,
    /// Only those ended by a signal or with a status other than 0.
    #[param(default = false)]
    failed: Option<bool>,
    /// Begin of the window, excluded: RFC 3339, `now`, or back from now such as `-15m` (s, m, h, d).
    /// Default: 15 minutes before `to`. At most 31 days before `to`.
    #[param(example = "-1h")]
    from: Option<String>,
    /// End of the window, included. Default: `now`.
    #[param(example = "now")]
    to: Option<String>,
    /// Rank by what the whole life used. Default: newest first.
    #[param(inline)]
    sort: Option<Resource>,
    /// Most rows returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before. Pages of a window that is still being filled may shift: name `to`.
    after: Option<u32>,
}

/// What ended.
#[derive(Serialize, ToSchema)]
struct ExitsAnswer {
    /// Begin of the window, excluded.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// End of the window, included.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
    /// Newest first, or by the resource asked for. Exits are kept as far back as samples are.
    items: Vec<Exit>,
    /// `after` of the next page; null: this was the last.
    next: Option<String>,
    /// How complete the hosts' data are.
    coverage: Coverage,
}

/// Which processes ended in a window, how, and what their whole lives used; those that began and
/// ended between two samples among them.
#[utoipa::path(get, path = "/v1/exits", tag = "processes", security(("api_key" = ["fleet:read"])),
    params(ExitsQuery),
    responses((status = 200, description = "Exits", body = ExitsAnswer), HostProblems, OperatorProblems))]
async fn list_exits(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Query(query): Query<ExitsQuery>,
) -> ApiResult<Json<ExitsAnswer>> {
    let times = (query.from.as_deref(), query.to.as_deref());
    let Places { window, limit, skip } =
        params::places(times, now, (query.limit, 100), query.after)?;
    params::check_instance(query.instance_id, query.host.as_deref())?;
    let selection = Selection { host: query.host.as_deref(), labels: query.labels.as_deref() };
    let hosts = selection::resolve(&state.readers, selection).await?;
    let mut question = state.readers.question(selection::class(hosts.as_deref())).await?;
    let exits = Exits {
        hosts: hosts.as_deref(),
        process_id: query.process_id,
        instance_id: query.instance_id,
        failed: query.failed.unwrap_or(false),
        window,
        resource: query.sort,
        limit: limit + 1,
        skip,
    };
    let items = question.exits(exits).await?;
    let coverage = question.coverage(hosts.as_deref(), window, Reading::Series(None)).await?;
    question.answered().await?;
    let page = params::Page::cut(items, limit, |exit| exit.place.to_string());
    Ok(Json(ExitsAnswer {
        from: window.from,
        to: window.to,
        items: page.items,
        next: page.next,
        coverage,
    }))
}
