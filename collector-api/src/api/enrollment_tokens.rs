//! `/v1/enrollment-tokens`: what lets hosts in.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Page, SecretsQuery};
use super::{ApiState, OperatorProblems};
use crate::auth::join_token::{self, CreateTokenError, DEFAULT_TOKEN_TTL, TokenRequest};
use crate::auth::operator::TokensWrite;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query};
use crate::store::enrollment::EnrollmentTokenRow;
use crate::store::labels::Labels;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_enrollment_tokens, create_enrollment_token))
        .routes(routes!(revoke_enrollment_token))
}

crate::problems! {
    ListProblems = BadParameter;
    CreateProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
    RevokeProblems = BadParameter, NotFound;
}

/// Every token ever made, newest first, used up, expired and revoked ones included; secrets are not
/// stored.
#[utoipa::path(get, path = "/v1/enrollment-tokens", tag = "access", security(("api_key" = ["tokens:write"])),
    params(SecretsQuery),
    responses((status = 200, description = "Tokens, newest first", body = Page<EnrollmentTokenRow>), ListProblems, OperatorProblems))]
async fn list_enrollment_tokens(
    State(state): State<ApiState>,
    _: TokensWrite,
    Query(query): Query<SecretsQuery>,
) -> ApiResult<Answer<Page<EnrollmentTokenRow>>> {
    let limit = query.limit()?;
    let tokens = state.readers.enrollment_tokens(query.after, limit + 1).await?;
    Ok(Answer(Page::cut(tokens, limit, |token| token.token_id.to_string())))
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateEnrollmentToken {
    /// What to call it, 1 to 128 bytes: which hosts it is for.
    #[schema(min_length = 1, max_length = 128, example = "database hosts")]
    name: String,
    /// Its life in seconds, at most 90 days. Default: a day.
    #[schema(minimum = 1, maximum = 7_776_000, default = 86_400)]
    ttl_s: Option<u64>,
    /// Most hosts it lets in; absent: as many as come before it expires.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    max_uses: Option<u32>,
    /// Hosts wait for an operator's approval before their reports are taken. Default: false.
    #[serde(default)]
    approval_needed: bool,
    /// Labels that hosts begin with, at most 32. Default: none.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"env": "prod"}))]
    labels: Labels,
    /// Hosts may vanish without a word: they are then decommissioned, and nobody is woken. Default: false.
    #[serde(default)]
    ephemeral: bool,
    /// A machine that enrols again, because it was installed anew, is its silent or stopped host again, with its history.
    /// Default: false, it is a new host.
    #[serde(default)]
    same_machine: bool,
}

/// A token just made.
#[derive(Serialize, ToSchema)]
struct CreatedEnrollmentToken {
    /// Its id, for the list and to revoke it.
    token_id: Uuid,
    /// The whole token, `pfj1_…`: what `procfleet-agent enroll` asks for. Shown here and never again.
    paste: String,
    /// What installs the agent on a host: it asks for the token there, or reads it from a file named after
    /// `--token-file`. Null: this server mirrors no release.
    install_command: Option<String>,
}

/// Makes a token. The answer holds its secret, which is not stored and cannot be shown again.
#[utoipa::path(post, path = "/v1/enrollment-tokens", tag = "access", security(("api_key" = ["tokens:write"])),
    request_body = CreateEnrollmentToken,
    responses((status = 201, description = "The token, once", body = CreatedEnrollmentToken), CreateProblems, OperatorProblems))]
async fn create_enrollment_token(
    State(state): State<ApiState>,
    TokensWrite(operator): TokensWrite,
    Json(body): Json<CreateEnrollmentToken>,
) -> ApiResult<(StatusCode, Answer<CreatedEnrollmentToken>)> {
    let ttl = body.ttl_s.map_or(DEFAULT_TOKEN_TTL, Duration::from_secs);
    let request = TokenRequest {
        name: body.name,
        ttl,
        max_uses: body.max_uses,
        approval_needed: body.approval_needed,
        labels: body.labels,
        ephemeral: body.ephemeral,
        same_machine: body.same_machine,
    };
    let endpoints = state.agent_endpoints.to_vec();
    let actor = operator.actor();
    let token = join_token::create(&state.writers, endpoints, &request, &actor).await;
    let token = token.map_err(refusal)?;
    let install_command = state.install.as_deref().and_then(|(url, authorities)| {
        join_token::install_command(url, authorities.borrow().server.door_pin().as_deref())
    });
    let answer =
        CreatedEnrollmentToken { token_id: token.id, paste: token.to_paste(), install_command };
    Ok((StatusCode::CREATED, Answer(answer)))
}

fn refusal(error: CreateTokenError) -> ApiError {
    let detail = error.to_string();
    match error {
        CreateTokenError::Name => params::invalid_field("name", detail),
        CreateTokenError::Ttl => params::invalid_field("ttl_s", detail),
        CreateTokenError::Labels(detail) => params::invalid_field("labels", detail),
        CreateTokenError::MaxUses => params::invalid_field("max_uses", detail),
        CreateTokenError::Store(error) => error.into(),
        CreateTokenError::NoAuthority | CreateTokenError::Random(_) => {
            ApiError::new(ProblemCode::Internal, "The server cannot make tokens now; see its log.")
                .caused_by(error)
        }
    }
}

/// Lets nobody else in by a token. Hosts that are in stay; ending it again changes nothing.
#[utoipa::path(delete, path = "/v1/enrollment-tokens/{token_id}", tag = "access", security(("api_key" = ["tokens:write"])),
    params(("token_id" = Uuid, Path, description = "Id of the token")),
    responses((status = 204, description = "The token is revoked"), RevokeProblems, OperatorProblems))]
async fn revoke_enrollment_token(
    State(state): State<ApiState>,
    TokensWrite(operator): TokensWrite,
    Path(token_id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    if state.writers.revoke_enrollment_token(token_id, &operator.actor()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        let detail = format!("There is no enrolment token {token_id}.");
        Err(ApiError::new(ProblemCode::NotFound, detail))
    }
}
