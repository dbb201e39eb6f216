//! `/v1/silences`: maintenance windows. They mute messages, not alerts.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Now, Page, invalid_field};
use super::{ApiState, OperatorProblems, selection};
use crate::auth::operator::{AlertsWrite, FleetRead};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query};
use crate::selector::Selector;
use crate::store::silences::{CreateSilence, MAX_SILENCES, NewSilence, Silence};

/// Longest comment, bytes.
const MAX_COMMENT_BYTES: usize = 500;
/// Furthest end of a silence: one without an end is a rule switched off.
const MAX_AHEAD: Duration = Duration::days(90);

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_silences, create_silence))
        .routes(routes!(end_silence))
}

crate::problems! {
    ListProblems = BadParameter;
    CreateProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
    SilenceProblems = BadParameter, NotFound;
}

/// Which silences.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SilencesQuery {
    /// Also those that have ended.
    ended: Option<bool>,
}

/// Silences that have not ended, the first to end first. At most 1,000.
#[utoipa::path(get, path = "/v1/silences", tag = "alerts", security(("api_key" = ["fleet:read"])),
    params(SilencesQuery),
    responses((status = 200, description = "Silences", body = Page<Silence>), ListProblems, OperatorProblems))]
async fn list_silences(
    State(state): State<ApiState>,
    _: FleetRead,
    Query(query): Query<SilencesQuery>,
) -> ApiResult<Answer<Page<Silence>>> {
    let items = state.readers.silences(query.ended.unwrap_or_default()).await?;
    Ok(Answer(Page { items, next: None }))
}

/// A silence to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SilenceBody {
    /// Hosts by their labels, such as `env=test`; empty: every host, and alerts of the fleet.
    #[serde(default)]
    #[schema(max_length = 1024)]
    selector: String,
    /// One host; absent: any.
    host_id: Option<Uuid>,
    /// One rule, such as `host_silent`; absent: any.
    #[schema(max_length = 128)]
    rule: Option<String>,
    /// Why, 1 to 500 bytes.
    #[schema(min_length = 1, max_length = 500, example = "kernel update")]
    comment: String,
    /// From when on; absent: now.
    #[serde(default, with = "time::serde::rfc3339::option")]
    starts_at: Option<OffsetDateTime>,
    /// Until when: later than its begin, at most 90 days from now.
    #[serde(with = "time::serde::rfc3339")]
    ends_at: OffsetDateTime,
}

/// A silence just made.
#[derive(Serialize, ToSchema)]
struct CreatedSilence {
    /// Its id.
    silence_id: Uuid,
}

/// Mutes messages about some alerts for a while. What still holds at its end is told then.
#[utoipa::path(post, path = "/v1/silences", tag = "alerts", security(("api_key" = ["alerts:write"])),
    request_body = SilenceBody,
    responses((status = 201, description = "The silence", body = CreatedSilence), CreateProblems, OperatorProblems))]
async fn create_silence(
    State(state): State<ApiState>,
    AlertsWrite(operator): AlertsWrite,
    Now(now): Now,
    Json(body): Json<SilenceBody>,
) -> ApiResult<(StatusCode, Answer<CreatedSilence>)> {
    let requirements = match body.selector.as_str() {
        "" => Selector::default(),
        text => selection::parse(text).map_err(|detail| invalid_field("selector", detail))?,
    };
    let is_comment = (1..=MAX_COMMENT_BYTES).contains(&body.comment.trim().len());
    if !is_comment || body.comment.contains(char::is_control) {
        let detail = format!("must have 1 to {MAX_COMMENT_BYTES} bytes and no control character");
        return Err(invalid_field("comment", detail));
    }
    if let Some(rule) = &body.rule {
        params::check_name("rule", rule)?;
    }
    let starts_at = body.starts_at.unwrap_or(now);
    if body.ends_at <= starts_at.max(now) || body.ends_at > now + MAX_AHEAD {
        let days = MAX_AHEAD.whole_days();
        let detail = format!("must lie after now and the begin, and at most {days} days ahead");
        return Err(invalid_field("ends_at", detail));
    }
    let new = NewSilence {
        silence_id: Uuid::now_v7(),
        selector: body.selector,
        requirements,
        host_id: body.host_id,
        rule: body.rule,
        comment: body.comment,
        starts_at,
        ends_at: body.ends_at,
    };
    match state.writers.create_silence(&new, &operator.actor()).await? {
        CreateSilence::Created => {
            let created = CreatedSilence { silence_id: new.silence_id };
            Ok((StatusCode::CREATED, Answer(created)))
        }
        CreateSilence::NoHost => Err(invalid_field("host_id", "is no host")),
        CreateSilence::TooMany => {
            let detail = format!("there are {MAX_SILENCES} silences that have not ended");
            Err(invalid_field("selector", detail))
        }
    }
}

/// Ends a silence now. What waits for its end is told if it still holds.
#[utoipa::path(delete, path = "/v1/silences/{silence_id}", tag = "alerts", security(("api_key" = ["alerts:write"])),
    params(("silence_id" = Uuid, Path, description = "Id of the silence")),
    responses((status = 204, description = "The silence is over"), SilenceProblems, OperatorProblems))]
async fn end_silence(
    State(state): State<ApiState>,
    AlertsWrite(operator): AlertsWrite,
    Path(silence_id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    if !state.writers.end_silence(silence_id, &operator.actor()).await? {
        let detail = format!("There is no silence {silence_id} that has not ended.");
        return Err(ApiError::new(ProblemCode::NotFound, detail));
    }
    Ok(StatusCode::NO_CONTENT)
}
