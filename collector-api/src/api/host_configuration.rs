//! `/v1/hosts/{host}/configuration` and `/v1/host-configurations`: what is in force for a host and who set
//! it, what is set for it alone, and what agents made of it.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::etag::{IfMatch, etag, stale};
use super::host_identity::no_such_host;
use super::hosts::{HostProblems, resolve_changed_host, resolve_host};
use super::params::{self, Page};
use super::profiles::checked;
use super::{ApiState, OperatorProblems};
use crate::auth::operator::{ConfigurationWrite, FleetRead};
use crate::auth::secret::hex;
use crate::configuration::{ConfigurationError, Origin, compile, layers, stored_profiles};
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query};
use crate::store::configurations::{HostConfigurationRow, OverrideChange};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_configuration, set_configuration, clear_configuration))
        .routes(routes!(list_configurations))
}

crate::problems! {
    SetProblems = Malformed, Truncated, InvalidUtf8, BadParameter, NotFound, AmbiguousHost,
        PreconditionFailed, BodyTooLarge, UnsupportedMediaType, InvalidField;
    ClearProblems = BadParameter, NotFound, AmbiguousHost, PreconditionFailed;
    ListProblems = BadParameter;
}

/// What is in force for a host, and how it came to be.
#[derive(Serialize, ToSchema)]
struct HostConfiguration {
    /// The host.
    host_id: Uuid,
    /// SHA-256 of `configuration`, hex: what `received`, `applied` and `failed` are compared with.
    hash: String,
    /// What is in force. A key that is not here is what the agent's own file or its default says.
    #[schema(schema_with = crate::openapi::configuration)]
    configuration: Value,
    /// Who set each key.
    #[schema(value_type = Object, example = json!({"profile.top": {"kind": "host"}}))]
    origins: BTreeMap<String, Origin>,
    /// What is set for this host alone; null: nothing.
    #[schema(schema_with = crate::openapi::configuration_or_null)]
    own: Option<Value>,
    /// Version of `own`, and the `ETag`; 0: nothing was ever set.
    version: i32,
    /// Whether the agent works by it; null: the agent has not said anything yet.
    in_force: Option<bool>,
    /// What the agent said last; null: nothing yet.
    #[schema(inline = false)]
    status: Option<HostConfigurationRow>,
}

/// What is in force for a host, which layer set each key, and what its agent made of it.
#[utoipa::path(get, path = "/v1/hosts/{host}/configuration", tag = "configuration", security(("api_key" = ["fleet:read"])),
    params(("host" = String, Path, description = "Id or name of the host")),
    responses((status = 200, description = "What is in force", body = HostConfiguration,
        headers(("ETag" = String, description = "Names this state of what is set for the host alone"))), HostProblems, OperatorProblems))]
async fn get_configuration(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(host): Path<String>,
) -> ApiResult<impl IntoResponse> {
    let host_id = resolve_host(&state.readers, &host).await?;
    let profiles = stored_profiles(state.readers.profiles().await?)?;
    let host = state.readers.host_layers(host_id).await?.ok_or_else(|| no_such_host(host_id))?;
    let compiled = layers(&profiles, &host).and_then(compile)?;
    let status = state.readers.host_configurations(Some(host_id), None, None, 1).await?.pop();
    let hash = hex(&compiled.hash);
    let in_force = status.as_ref().map(|status| status.applied.as_ref() == Some(&hash));
    let configuration = serde_json::to_value(&compiled.values).map_err(ConfigurationError::Join)?;
    let version = host.version.unwrap_or(0);
    let answer = HostConfiguration {
        host_id,
        hash,
        configuration,
        origins: compiled.origins,
        own: host.configuration,
        version,
        in_force,
        status,
    };
    Ok((etag(version), Answer(answer)))
}

/// What is set for one host alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OwnConfiguration {
    /// The keys it sets: they prevail over every profile.
    #[schema(schema_with = crate::openapi::configuration)]
    configuration: Value,
}

/// Sets what one host alone is to use; with `If-Match`, only if nobody changed it since it was read.
#[utoipa::path(put, path = "/v1/hosts/{host}/configuration", tag = "configuration", security(("api_key" = ["configuration:write"])),
    params(("host" = String, Path, description = "Id or name of the host"),
        ("If-Match" = Option<String>, Header, description = "`ETag` of it as it was read, or `*`")),
    request_body = OwnConfiguration,
    responses((status = 204, description = "It is set"), SetProblems, OperatorProblems))]
async fn set_configuration(
    State(state): State<ApiState>,
    ConfigurationWrite(operator): ConfigurationWrite,
    Path(host): Path<String>,
    expected: IfMatch,
    Json(body): Json<OwnConfiguration>,
) -> ApiResult<StatusCode> {
    let configuration = checked(body.configuration)?;
    let expected = expected.version()?;
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    let actor = operator.actor();
    let change =
        state.writers.set_host_override(host_id, expected, Some(&configuration), &actor).await?;
    done(host_id, change)
}

/// Removes what is set for one host alone: profiles decide again. With `If-Match`, only if nobody changed it.
#[utoipa::path(delete, path = "/v1/hosts/{host}/configuration", tag = "configuration", security(("api_key" = ["configuration:write"])),
    params(("host" = String, Path, description = "Id or name of the host"),
        ("If-Match" = Option<String>, Header, description = "`ETag` of it as it was read, or `*`")),
    responses((status = 204, description = "Nothing is set for it alone"), ClearProblems, OperatorProblems))]
async fn clear_configuration(
    State(state): State<ApiState>,
    ConfigurationWrite(operator): ConfigurationWrite,
    Path(host): Path<String>,
    expected: IfMatch,
) -> ApiResult<StatusCode> {
    let expected = expected.version()?;
    let host_id = resolve_changed_host(&state.readers, &host).await?;
    let change =
        state.writers.set_host_override(host_id, expected, None, &operator.actor()).await?;
    done(host_id, change)
}

fn done(host_id: Uuid, change: OverrideChange) -> ApiResult<StatusCode> {
    match change {
        OverrideChange::Done => Ok(StatusCode::NO_CONTENT),
        OverrideChange::NoHost => Err(no_such_host(host_id)),
        OverrideChange::Stale => Err(stale()),
    }
}

/// What an agent made of its configuration.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ConfigurationState {
    /// It works by what it read last.
    Applied,
    /// It tries it.
    Applying,
    /// It could not apply it, or went back from it.
    Failed,
}

/// Which hosts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only hosts whose agent is there.
    #[param(inline)]
    state: Option<ConfigurationState>,
    /// `next` of the page before.
    after: Option<Uuid>,
    /// Most rows returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What agents said of their configuration, by host id: hosts that never said anything are not here.
#[utoipa::path(get, path = "/v1/host-configurations", tag = "configuration", security(("api_key" = ["fleet:read"])),
    params(ListQuery),
    responses((status = 200, description = "What agents said", body = Page<HostConfigurationRow>), ListProblems, OperatorProblems))]
async fn list_configurations(
    State(state): State<ApiState>,
    _: FleetRead,
    Query(query): Query<ListQuery>,
) -> ApiResult<Answer<Page<HostConfigurationRow>>> {
    let limit = params::limit(query.limit, 100, 1000)?;
    let wanted = query.state.map(|state| match state {
        ConfigurationState::Applied => "applied",
        ConfigurationState::Applying => "applying",
        ConfigurationState::Failed => "failed",
    });
    let more = limit.saturating_add(1);
    let rows = state.readers.host_configurations(None, wanted, query.after, more).await?;
    Ok(Answer(Page::cut(rows, limit, |row| row.host_id.to_string())))
}
