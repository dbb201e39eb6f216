//! `/v1/hosts/{host}/lifecycle`, `/v1/hosts/{host}/certificates`, `/v1/audit-events`: what operators
//! decide about a host's identity, and who decided it.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::hosts::{HostProblems, resolve_changed_host, resolve_host};
use super::params::{self, Page};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::{AuditRead, CertificatesWrite, FleetRead, HostsWrite};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query};
use crate::store::audit::AuditRow;
use crate::store::certificates::CertificateRow;
use crate::store::lifecycle::{Lifecycle, LifecycleChange};

/// Longest reason, bytes.
const MAX_REASON_BYTES: usize = 512;
/// Longest object id asked for, bytes.
const MAX_OBJECT_BYTES: usize = 256;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(set_host_lifecycle))
        .routes(routes!(list_host_certificates, revoke_host_certificates))
        .routes(routes!(list_audit_events))
}

crate::problems! {
    LifecycleProblems = Malformed, Truncated, InvalidUtf8, BadParameter, NotFound, AmbiguousHost,
        LifecycleConflict, BodyTooLarge, UnsupportedMediaType, InvalidField;
    AuditProblems = BadParameter;
}

/// What is to become of a host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetLifecycle {
    /// `active` approves a pending host and releases a quarantined one.
    lifecycle: Lifecycle,
    /// Why, at most 512 bytes: kept with the host and in the audit.
    #[schema(max_length = 512, example = "two machines use its identity")]
    reason: Option<String>,
}

/// What a host is now.
#[derive(Serialize, ToSchema)]
struct HostLifecycle {
    /// The host.
    host_id: Uuid,
    /// What it is now.
    lifecycle: Lifecycle,
    /// Whether this request changed it.
    changed: bool,
}

/// An operator, as the audit names one.
/// A reason that can be kept.
pub(super) fn reason_of(reason: Option<&str>) -> ApiResult<Option<&str>> {
    let reason = reason.filter(|reason| !reason.is_empty());
    if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES || reason.contains('\0')) {
        let detail = format!("must have at most {MAX_REASON_BYTES} bytes, none of them NUL");
        return Err(params::invalid_field("reason", detail));
    }
    Ok(reason)
}

/// Approves, quarantines, releases or decommissions a host.
///
/// Servers act on it within 10 seconds, also on open connections. A quarantined host keeps its
/// identity and spools its reports. A decommissioned one never comes back under this id: what was
/// recorded of it stays until its retention.
#[utoipa::path(put, path = "/v1/hosts/{host}/lifecycle", tag = "hosts", security(("api_key" = ["hosts:write"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    request_body = SetLifecycle,
    responses((status = 200, description = "What the host is now", body = HostLifecycle), LifecycleProblems, OperatorProblems))]
async fn set_host_lifecycle(
    State(state): State<ApiState>,
    HostsWrite(operator): HostsWrite,
    Path(host): Path<String>,
    Json(body): Json<SetLifecycle>,
) -> ApiResult<Answer<HostLifecycle>> {
    let reason = reason_of(body.reason.as_deref())?;
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    let lifecycle = body.lifecycle;
    let change = state.writers.set_lifecycle(host_id, lifecycle, reason, &operator.actor()).await?;
    let changed = match change {
        LifecycleChange::Changed => true,
        LifecycleChange::Unchanged => false,
        LifecycleChange::NoHost => return Err(no_such_host(host_id)),
        LifecycleChange::Tombstone => {
            let detail =
                "The host was decommissioned for good: enrol the machine again with a new token.";
            return Err(ApiError::new(ProblemCode::LifecycleConflict, detail));
        }
    };
    Ok(Answer(HostLifecycle { host_id, lifecycle, changed }))
}

/// A host's certificates, newest first, at most 100.
#[utoipa::path(get, path = "/v1/hosts/{host}/certificates", tag = "hosts", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 200, description = "Certificates, newest first", body = Page<CertificateRow>), HostProblems, OperatorProblems))]
async fn list_host_certificates(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(host): Path<String>,
) -> ApiResult<Answer<Page<CertificateRow>>> {
    let host_id = resolve_host(&state.readers, &host).await?;
    let certificates = state.readers.host_certificates(host_id).await?;
    Ok(Answer(Page { items: certificates, next: None }))
}

/// Revokes every certificate of a host, and with them its keys.
///
/// Servers refuse them within 10 seconds, also on open connections and resumed TLS sessions. The host
/// keeps its reports. It can neither renew nor recover: its identity directory must be removed and
/// the machine enrolled again with a new token.
#[utoipa::path(delete, path = "/v1/hosts/{host}/certificates", tag = "hosts", security(("api_key" = ["certificates:write"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 204, description = "No certificate of the host is good"), HostProblems, OperatorProblems))]
async fn revoke_host_certificates(
    State(state): State<ApiState>,
    CertificatesWrite(operator): CertificatesWrite,
    Path(host): Path<String>,
) -> ApiResult<StatusCode> {
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    let revoked = state.writers.revoke_certificates(host_id, &operator.actor()).await?;
    let revoked = revoked.ok_or_else(|| no_such_host(host_id))?;
    tracing::info!(host.id = %host_id, revoked, "certificates revoked");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn no_such_host(host_id: Uuid) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("There is no host {host_id}."))
}

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only those of the object with this id, such as a host's.
    object_id: Option<String>,
    /// Most events returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<Uuid>,
}

/// Changes that operators made, newest first.
#[utoipa::path(get, path = "/v1/audit-events", tag = "access", security(("api_key" = ["audit:read"])),
    params(AuditQuery),
    responses((status = 200, description = "Changes, newest first", body = Page<AuditRow>), AuditProblems, OperatorProblems))]
async fn list_audit_events(
    State(state): State<ApiState>,
    _: AuditRead,
    Query(query): Query<AuditQuery>,
) -> ApiResult<Answer<Page<AuditRow>>> {
    let limit = params::limit(query.limit, 100, 1000)?;
    let object_id = query.object_id.as_deref();
    let object_id =
        object_id.map(|id| params::search("object_id", Some(id), MAX_OBJECT_BYTES)).transpose()?;
    let events = state.readers.audit_events(object_id, query.after, limit + 1).await?;
    Ok(Answer(Page::cut(events, limit, |event| event.event_id.to_string())))
}
