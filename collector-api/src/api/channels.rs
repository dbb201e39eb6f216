//! `/v1/channels`: where alerts are told. Addresses and secrets go in and never come out.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Now, Page};
use super::{ApiState, OperatorProblems};
use crate::alerts::provider::{Destination, Kind, Verdict};
use crate::alerts::wording::Language;
use crate::auth::operator::ChannelsWrite;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path};
use crate::store::channels::{Channel, CreateChannel, MAX_CHANNELS, NewChannel};

/// Longest address or secret, bytes.
const MAX_DESTINATION_BYTES: usize = 2048;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_channels, create_channel))
        .routes(routes!(delete_channel))
        .routes(routes!(test_channel))
}

crate::problems! {
    CreateProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
    ChannelProblems = BadParameter, NotFound;
}

/// Every channel, by name. At most 32.
#[utoipa::path(get, path = "/v1/channels", tag = "alerts", security(("api_key" = ["channels:write"])),
    responses((status = 200, description = "Channels, by name", body = Page<Channel>), OperatorProblems))]
async fn list_channels(
    State(state): State<ApiState>,
    _: ChannelsWrite,
) -> ApiResult<Answer<Page<Channel>>> {
    Ok(Answer(Page { items: state.readers.channels().await?, next: None }))
}

/// A channel to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateChannelBody {
    /// What to call it, 1 to 128 bytes, unlike any other.
    #[schema(min_length = 1, max_length = 128, example = "operations")]
    name: String,
    /// Which provider.
    kind: Kind,
    /// Language of its messages.
    #[serde(default)]
    language: Language,
    /// The whole address, with its key. Stored sealed, never shown. `email`: `smtp://host:587?from=…&to=…&user=…` (STARTTLS) or
    /// `smtps://…` (TLS at once). `alertmanager`: the URL of every peer, separated by spaces.
    #[schema(max_length = 2048, example = "https://hooks.example/send?key=…")]
    url: String,
    /// What requests are signed with (DingTalk, Feishu, webhook), the password (e-mail), the bearer token (Alertmanager).
    /// Stored sealed, never shown.
    #[schema(max_length = 2048)]
    secret: Option<String>,
    /// Most messages a minute; absent: what the provider takes.
    #[schema(minimum = 1, maximum = 600)]
    per_minute: Option<i32>,
}

/// A channel just made.
#[derive(Serialize, ToSchema)]
struct CreatedChannel {
    /// Its id.
    channel_id: Uuid,
}

/// Makes a channel. Alerts that begin from now on are told there.
#[utoipa::path(post, path = "/v1/channels", tag = "alerts", security(("api_key" = ["channels:write"])),
    request_body = CreateChannelBody,
    responses((status = 201, description = "The channel", body = CreatedChannel), CreateProblems, OperatorProblems))]
async fn create_channel(
    State(state): State<ApiState>,
    ChannelsWrite(operator): ChannelsWrite,
    Json(body): Json<CreateChannelBody>,
) -> ApiResult<(StatusCode, Answer<CreatedChannel>)> {
    params::check_name("name", &body.name)?;
    let per_minute = body.per_minute.unwrap_or(body.kind.per_minute());
    if !(1..=600).contains(&per_minute) {
        return Err(params::invalid_field("per_minute", "must lie between 1 and 600"));
    }
    if body.url.len() > MAX_DESTINATION_BYTES {
        let detail = format!("must have at most {MAX_DESTINATION_BYTES} bytes");
        return Err(params::invalid_field("url", detail));
    }
    if let Some(why) = body.kind.refuses(&body.url) {
        return Err(params::invalid_field("url", why));
    }
    if body.secret.as_ref().is_some_and(|s| s.is_empty() || s.len() > MAX_DESTINATION_BYTES) {
        let detail = format!("must have 1 to {MAX_DESTINATION_BYTES} bytes");
        return Err(params::invalid_field("secret", detail));
    }
    let channel_id = Uuid::now_v7();
    let destination = Destination { url: body.url, secret: body.secret };
    let sealed = state.sender.seal(channel_id, &destination).map_err(|error| {
        ApiError::new(
            ProblemCode::Internal,
            "The channel's address cannot be sealed; nothing was changed.",
        )
        .caused_by(error)
    })?;
    let new = NewChannel {
        channel_id,
        name: body.name,
        kind: body.kind.as_str(),
        language: body.language.as_str(),
        per_minute,
        sealed,
    };
    match state.writers.create_channel(&new, &operator.actor()).await? {
        CreateChannel::Created => Ok((StatusCode::CREATED, Answer(CreatedChannel { channel_id }))),
        CreateChannel::NameTaken => Err(params::invalid_field("name", "another channel has it")),
        CreateChannel::TooMany => {
            let detail = format!("there are {MAX_CHANNELS} channels, and no more are served");
            Err(params::invalid_field("name", detail))
        }
    }
}

/// Removes a channel, and what waits to be sent through it.
#[utoipa::path(delete, path = "/v1/channels/{channel_id}", tag = "alerts", security(("api_key" = ["channels:write"])),
    params(("channel_id" = Uuid, Path, description = "Id of the channel")),
    responses((status = 204, description = "The channel is gone"), ChannelProblems, OperatorProblems))]
async fn delete_channel(
    State(state): State<ApiState>,
    ChannelsWrite(operator): ChannelsWrite,
    Path(channel_id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    if !state.writers.delete_channel(channel_id, &operator.actor()).await? {
        return Err(no_such_channel(channel_id));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What became of a test message.
#[derive(Serialize, ToSchema)]
struct ChannelTest {
    /// Whether the provider took it.
    delivered: bool,
    /// What it said otherwise.
    #[schema(example = "errcode 93000")]
    answer: Option<String>,
}

/// Sends a test message at once, outside the queue and its budget.
#[utoipa::path(post, path = "/v1/channels/{channel_id}/test", tag = "alerts", security(("api_key" = ["channels:write"])),
    params(("channel_id" = Uuid, Path, description = "Id of the channel")),
    responses((status = 200, description = "What the provider said", body = ChannelTest), ChannelProblems, OperatorProblems))]
async fn test_channel(
    State(state): State<ApiState>,
    ChannelsWrite(operator): ChannelsWrite,
    Now(now): Now,
    Path(channel_id): Path<Uuid>,
) -> ApiResult<Answer<ChannelTest>> {
    let channel = state.readers.sealed_channel(channel_id).await?;
    let channel = channel.ok_or_else(|| no_such_channel(channel_id))?;
    let answer = match state.sender.test(&channel, now).await {
        Verdict::Delivered => None,
        Verdict::Later(_, why) | Verdict::TooLong(why) | Verdict::Refused(why) => Some(why),
    };
    state.writers.note_channel_test(channel_id, answer.as_deref(), &operator.actor()).await?;
    Ok(Answer(ChannelTest { delivered: answer.is_none(), answer }))
}

fn no_such_channel(channel_id: Uuid) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("There is no channel {channel_id}."))
}
