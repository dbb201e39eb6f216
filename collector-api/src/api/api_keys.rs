//! `/v1/api-keys`: who may ask, and what.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Now, Page, SecretsQuery};
use super::{ApiState, OperatorProblems};
use crate::auth::operator::{ApiKeysWrite, MintedApiKey, Rights, Role, Scope};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query};
use crate::store::api_keys::ApiKey;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(revoke_api_key))
}

crate::problems! {
    ListProblems = BadParameter;
    CreateProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
    RevokeProblems = BadParameter, NotFound;
}

/// Every key ever made, revoked and expired ones included; secrets are not stored.
#[utoipa::path(get, path = "/v1/api-keys", tag = "access", security(("api_key" = ["api_keys:write"])),
    params(SecretsQuery),
    responses((status = 200, description = "API keys, by id", body = Page<ApiKey>), ListProblems, OperatorProblems))]
async fn list_api_keys(
    State(state): State<ApiState>,
    _: ApiKeysWrite,
    Query(query): Query<SecretsQuery>,
) -> ApiResult<Answer<Page<ApiKey>>> {
    let limit = query.limit()?;
    let keys = state.readers.list_api_keys(query.after, limit + 1).await?;
    Ok(Answer(Page::cut(keys, limit, |key| key.api_key_id.to_string())))
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateApiKey {
    /// What to call it, 1 to 128 bytes: who or what will use it.
    #[schema(min_length = 1, max_length = 128, example = "grafana")]
    name: String,
    /// What it may do.
    role: Role,
    /// What it may do of that, for keys of scripts; absent: everything the role may.
    #[serde(default)]
    scopes: Option<Vec<Scope>>,
    /// When it ends by itself, in the future; absent: when it is revoked.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

/// A key just made.
#[derive(Serialize, ToSchema)]
struct CreatedApiKey {
    #[serde(flatten)]
    api_key: ApiKey,
    /// The whole key, `pfk1_<id>_<secret>`. Shown here and never again.
    #[schema(example = "pfk1_0190b6a2f5c87d1e9a3b4c5d6e7f8091_…")]
    key: String,
}

/// Makes a key. The answer holds its secret, which is not stored and cannot be shown again.
#[utoipa::path(post, path = "/v1/api-keys", tag = "access", security(("api_key" = ["api_keys:write"])),
    request_body = CreateApiKey,
    responses((status = 201, description = "The key, once", body = CreatedApiKey), CreateProblems, OperatorProblems))]
async fn create_api_key(
    State(state): State<ApiState>,
    ApiKeysWrite(operator): ApiKeysWrite,
    Now(now): Now,
    Json(body): Json<CreateApiKey>,
) -> ApiResult<(StatusCode, Answer<CreatedApiKey>)> {
    params::check_name("name", &body.name)?;
    if body.expires_at.is_some_and(|end| end <= now) {
        return Err(params::invalid_field("expires_at", "must lie in the future"));
    }
    let rights = Rights { role: body.role, scopes: body.scopes };
    rights.check().map_err(|wrong| params::invalid_field("scopes", wrong.to_string()))?;
    if let Some(beyond) = rights.beyond(&operator.rights) {
        let detail =
            format!("A key makes keys with its own scopes only: it does not have {beyond}.");
        return Err(ApiError::new(ProblemCode::Forbidden, detail));
    }
    let mut minted =
        MintedApiKey::from_random(params::random()?, body.name, body.role, body.expires_at);
    minted.new.rights = rights;
    let api_key = state.writers.create_api_key(&minted.new, &operator.actor()).await?;
    Ok((StatusCode::CREATED, Answer(CreatedApiKey { api_key, key: minted.to_paste() })))
}

/// Ends a key. Every server refuses it within 15 s; ending it again changes nothing.
#[utoipa::path(delete, path = "/v1/api-keys/{api_key_id}", tag = "access", security(("api_key" = ["api_keys:write"])),
    params(("api_key_id" = Uuid, Path, description = "Id of the key")),
    responses((status = 204, description = "The key is revoked"), RevokeProblems, OperatorProblems))]
async fn revoke_api_key(
    State(state): State<ApiState>,
    ApiKeysWrite(operator): ApiKeysWrite,
    Path(api_key_id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    if !state.writers.revoke_api_key(api_key_id, &operator.actor()).await? {
        let detail = format!("There is no API key {api_key_id}.");
        return Err(ApiError::new(ProblemCode::NotFound, detail));
    }
    state.operators.forget(api_key_id);
    Ok(StatusCode::NO_CONTENT)
}
