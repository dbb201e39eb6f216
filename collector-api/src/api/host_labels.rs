//! `/v1/hosts/{host}/labels` and `/v1/hosts/bulk`: labels, and one change for many hosts.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::etag::{IfMatch, etag, stale};
use super::host_identity::{no_such_host, reason_of};
use super::hosts::{HostProblems, resolve_changed_host, resolve_host};
use super::{ApiState, OperatorProblems, params, selection};
use crate::auth::operator::{FleetRead, HostsWrite};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path};
use crate::store::audit::Actor;
use crate::store::labels::{
    Labels, LabelsChange, LabelsEdit, MAX_LABELS, Selected, check_labels, labels_tag,
};
use crate::store::lifecycle::{Lifecycle, LifecycleChange};

/// Most hosts of one bulk change: each is a transaction of its own.
const MAX_BULK: usize = 2_000;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_host_labels, put_host_labels))
        .routes(routes!(post_hosts_bulk))
}

crate::problems! {
    LabelProblems = Malformed, Truncated, InvalidUtf8, BadParameter, NotFound, AmbiguousHost,
        PreconditionFailed, BodyTooLarge, UnsupportedMediaType, InvalidField;
    BulkProblems = Malformed, Truncated, InvalidUtf8, BadParameter, BodyTooLarge, UnsupportedMediaType,
        InvalidField;
}

/// The labels of a host, all of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HostLabels {
    /// Name to value, at most 32. A name has 1 to 63 letters, digits, `.`, `_`, `-` and `/`; a value at most 255
    /// bytes without commas and parentheses.
    #[schema(value_type = Object, example = json!({"env": "prod", "role": "db"}))]
    labels: BTreeMap<String, String>,
}

/// The labels of a host. `ETag` names this state of them.
#[utoipa::path(get, path = "/v1/hosts/{host}/labels", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 200, description = "Its labels", body = HostLabels,
        headers(("ETag" = String, description = "Names this state of the labels"))), HostProblems, OperatorProblems))]
async fn get_host_labels(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(host): Path<String>,
) -> ApiResult<impl IntoResponse> {
    let host_id = resolve_host(&state.readers, &host).await?;
    let labels = state.readers.host_labels(host_id).await?.ok_or_else(|| no_such_host(host_id))?;
    Ok((etag(labels_tag(&labels)), Answer(HostLabels { labels })))
}

/// Gives a host these labels and no others; with `If-Match`, only if nobody changed them since they were read.
#[utoipa::path(put, path = "/v1/hosts/{host}/labels", tag = "hosts", security(("api_key" = ["hosts:write"])),
    params(("host" = String, Path, description = "Id or name of the host"),
        ("If-Match" = Option<String>, Header, description = "`ETag` of the labels as they were read, or `*`")),
    request_body = HostLabels,
    responses((status = 200, description = "The labels it has now", body = HostLabels,
        headers(("ETag" = String, description = "Names this state of the labels"))), LabelProblems, OperatorProblems))]
async fn put_host_labels(
    State(state): State<ApiState>,
    HostsWrite(operator): HostsWrite,
    Path(host): Path<String>,
    IfMatch(expected): IfMatch,
    Json(body): Json<HostLabels>,
) -> ApiResult<impl IntoResponse> {
    check(&body.labels)?;
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    let edit = LabelsEdit { replace: true, set: body.labels, remove: Vec::new(), expected };
    match state.writers.edit_labels(host_id, &edit, &operator.actor()).await? {
        LabelsChange::Changed | LabelsChange::Unchanged => {
            Ok((etag(labels_tag(&edit.set)), Answer(HostLabels { labels: edit.set })))
        }
        LabelsChange::Stale => Err(stale()),
        LabelsChange::NoHost => Err(no_such_host(host_id)),
        LabelsChange::TooMany => Err(too_many()),
    }
}

fn check(labels: &Labels) -> ApiResult<()> {
    check_labels(labels).map_err(|detail| params::invalid_field("labels", detail))
}

fn too_many() -> ApiError {
    params::invalid_field("labels", format!("has more than {MAX_LABELS} names"))
}

/// One change for many hosts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Bulk {
    /// Which hosts, by their labels, such as `env=prod,role in (db, cache)`. Decommissioned ones are never meant.
    #[schema(example = "env=test,!keep")]
    selector: String,
    /// What they are to become.
    lifecycle: Option<Lifecycle>,
    /// Labels to give them.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"env": "prod"}))]
    set_labels: BTreeMap<String, String>,
    /// Labels to take from them.
    #[serde(default)]
    #[schema(max_items = 32)]
    remove_labels: Vec<String>,
    /// Why, at most 512 bytes: kept with the hosts and in the audit.
    #[schema(max_length = 512)]
    reason: Option<String>,
    /// Changes nothing and says what would change.
    dry_run: bool,
}

/// What became of the hosts, or would.
#[derive(Serialize, ToSchema)]
struct BulkAnswer {
    /// Whether nothing was changed because of that.
    dry_run: bool,
    /// Hosts that the selector means.
    matched: usize,
    /// Hosts that changed, or would.
    changed: usize,
    /// Every host that the selector means, by name.
    items: Vec<BulkItem>,
}

/// One host of a bulk change.
#[derive(Serialize, ToSchema)]
struct BulkItem {
    /// The host.
    host_id: Uuid,
    /// Its name.
    host_name: String,
    /// Whether it changed, or would.
    changed: bool,
    /// Why it could not be changed; null: it could.
    refused: Option<String>,
}

/// Changes every host that a selector means: life cycle, labels, or both.
///
/// At most 2,000 hosts at once; more are refused as a whole, and nothing is changed. Each host is changed and
/// audited by itself: asked again, the request does what was left.
#[utoipa::path(post, path = "/v1/hosts/bulk", tag = "hosts", security(("api_key" = ["hosts:write"])),
    request_body = Bulk,
    responses((status = 200, description = "What became of each host", body = BulkAnswer), BulkProblems, OperatorProblems))]
async fn post_hosts_bulk(
    State(state): State<ApiState>,
    HostsWrite(operator): HostsWrite,
    Json(body): Json<Bulk>,
) -> ApiResult<Answer<BulkAnswer>> {
    let selector = selection::parse(&body.selector)
        .map_err(|detail| params::invalid_field("selector", detail))?;
    check(&body.set_labels)?;
    if body.remove_labels.len() > MAX_LABELS {
        return Err(params::invalid_field(
            "remove_labels",
            format!("has more than {MAX_LABELS} names"),
        ));
    }
    reason_of(body.reason.as_deref())?;
    if body.lifecycle.is_none() && body.set_labels.is_empty() && body.remove_labels.is_empty() {
        let detail = "is missing, and no labels are to change: nothing is asked for";
        return Err(params::invalid_field("lifecycle", detail));
    }
    let limit = i64::try_from(MAX_BULK).unwrap_or(i64::MAX).saturating_add(1);
    let hosts = state.readers.hosts_selected(&selector, limit).await?;
    if hosts.len() > MAX_BULK {
        let detail = format!("means more than {MAX_BULK} hosts: narrow it, and ask several times");
        return Err(params::invalid_field("selector", detail));
    }
    let mut items = Vec::with_capacity(hosts.len());
    for host in hosts {
        let outcome = if body.dry_run {
            would_change(&body, &host)
        } else {
            change(&state, &body, &host, &operator.actor()).await?
        };
        let (changed, refused) = match outcome {
            Ok(changed) => (changed, None),
            Err(why) => (false, Some(why.to_owned())),
        };
        items.push(BulkItem { host_id: host.host_id, host_name: host.host_name, changed, refused });
    }
    let (matched, changed) = (items.len(), items.iter().filter(|item| item.changed).count());
    Ok(Answer(BulkAnswer { dry_run: body.dry_run, matched, changed, items }))
}

/// Whether a host changes, or why it cannot.
type Change = Result<bool, &'static str>;

fn edit(body: &Bulk) -> LabelsEdit {
    let (set, remove) = (body.set_labels.clone(), body.remove_labels.clone());
    LabelsEdit { replace: false, set, remove, expected: None }
}

fn would_change(body: &Bulk, host: &Selected) -> Change {
    let labels = edit(body).apply(&host.labels);
    if labels.len() > MAX_LABELS {
        return Err("it would have too many labels");
    }
    let lifecycle = body.lifecycle.is_some_and(|to| to.as_str() != host.lifecycle);
    Ok(lifecycle || labels != *host.labels)
}

async fn change(
    state: &ApiState,
    body: &Bulk,
    host: &Selected,
    actor: &Actor,
) -> ApiResult<Change> {
    let mut changed = match state.writers.edit_labels(host.host_id, &edit(body), actor).await? {
        LabelsChange::Changed => true,
        LabelsChange::Unchanged => false,
        LabelsChange::NoHost => return Ok(Err("it is gone")),
        LabelsChange::Stale => return Ok(Err("it was changed meanwhile")),
        LabelsChange::TooMany => return Ok(Err("it would have too many labels")),
    };
    if let Some(to) = body.lifecycle {
        let reason = body.reason.as_deref();
        match state.writers.set_lifecycle(host.host_id, to, reason, actor).await? {
            LifecycleChange::Changed => changed = true,
            LifecycleChange::Unchanged => {}
            LifecycleChange::NoHost => return Ok(Err("it is gone")),
            LifecycleChange::Tombstone => return Ok(Err("it was decommissioned for good")),
        }
    }
    Ok(Ok(changed))
}
