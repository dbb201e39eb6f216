//! `/v1/profiles`: what agents are to use, for the hosts that a selector means.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared_model::ProblemCode;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::etag::{IfMatch, etag, stale};
use super::params::{self, Page};
use super::{ApiState, OperatorProblems, selection};
use crate::auth::operator::{ConfigurationWrite, FleetRead};
use crate::configuration::{
    ConfigurationError, StoredProfile, compile, keys, layers, parse, stored_profiles,
};
use crate::error::{ApiError, ApiResult, Chain};
use crate::extract::{Json, Path};
use crate::store::configurations::HostLayers;
use crate::store::profiles::{MAX_PROFILES, Profile, ProfileChange, ProfileText};

/// Most hosts that a preview looks at.
const MAX_PREVIEWED: usize = 10_000;
/// Hosts compiled between two chances for others.
const YIELD_AFTER: usize = 20;
/// Most hosts that a preview names.
const MAX_NAMED: usize = 100;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_profiles, create_profile))
        .routes(routes!(get_profile, replace_profile, delete_profile))
        .routes(routes!(preview_profile))
}

crate::problems! {
    CreateProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
    PreviewProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField,
        NotFound;
    ReplaceProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField,
        BadParameter, NotFound, PreconditionFailed;
    ProfileProblems = BadParameter, NotFound;
    DeleteProblems = BadParameter, NotFound, PreconditionFailed;
}

/// A profile as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProfileBody {
    /// What to call it, 1 to 128 bytes, unlike any other.
    #[schema(min_length = 1, max_length = 128, example = "databases")]
    name: String,
    /// Which hosts, by their labels; null: every host.
    #[schema(example = "role=db")]
    selector: Option<String>,
    /// Of two profiles that set the same key, the one with the greater priority prevails.
    #[serde(default)]
    #[schema(minimum = -1000, maximum = 1000)]
    priority: i32,
    /// The keys it sets.
    #[schema(schema_with = crate::openapi::configuration)]
    configuration: Value,
}

/// A profile that was made.
#[derive(Serialize, ToSchema)]
struct CreatedProfile {
    /// Its id.
    profile_id: Uuid,
}

impl ProfileBody {
    fn text(self) -> ApiResult<ProfileText> {
        params::check_name("name", &self.name)?;
        if let Some(selector) = &self.selector {
            selection::parse(selector).map_err(|why| params::invalid_field("selector", why))?;
        }
        if !(-1000..=1000).contains(&self.priority) {
            return Err(params::invalid_field("priority", "must lie between -1000 and 1000"));
        }
        let configuration = checked(self.configuration)?;
        let Self { name, selector, priority, .. } = self;
        Ok(ProfileText { name, selector, priority, configuration })
    }
}

/// What an operator sent as a configuration, without what sets nothing.
pub(super) fn checked(configuration: Value) -> ApiResult<Value> {
    let refused = |error: ConfigurationError| {
        let (field, text) = match &error {
            ConfigurationError::UnknownKey(key) => (key.clone(), "is no key".to_owned()),
            ConfigurationError::Range(range) => (range.key.to_owned(), range.detail.clone()),
            ConfigurationError::Pattern { key, pattern, source } => {
                let detail = format!("holds {pattern:?}, which is no regular expression: {source}");
                ((*key).to_owned(), detail)
            }
            other => (String::new(), format!("cannot be used: {}", Chain(other))),
        };
        let field = if field.is_empty() {
            "configuration".to_owned()
        } else {
            format!("configuration.{field}")
        };
        params::invalid_field(&field, text)
    };
    let read = parse(configuration).map_err(refused)?;
    serde_json::to_value(read).map_err(|error| {
        ApiError::new(ProblemCode::Internal, "The server failed; nothing was changed.")
            .caused_by(error)
    })
}

/// Every profile, the one that prevails last. At most 256.
#[utoipa::path(get, path = "/v1/profiles", tag = "configuration", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "Profiles, by priority", body = Page<Profile>), OperatorProblems))]
async fn list_profiles(
    State(state): State<ApiState>,
    _: FleetRead,
) -> ApiResult<Answer<Page<Profile>>> {
    Ok(Answer(Page { items: state.readers.profiles().await?, next: None }))
}

/// One profile.
#[utoipa::path(get, path = "/v1/profiles/{profile_id}", tag = "configuration", security(("api_key" = ["fleet:read"])),
    params(("profile_id" = Uuid, Path, description = "Id of the profile")),
    responses((status = 200, description = "The profile", body = Profile,
        headers(("ETag" = String, description = "Names this state of the profile"))), ProfileProblems, OperatorProblems))]
async fn get_profile(
    State(state): State<ApiState>,
    _: FleetRead,
    Path(profile_id): Path<Uuid>,
) -> ApiResult<impl IntoResponse> {
    tagged(profile_id, state.readers.profile(profile_id).await?)
}

fn tagged(profile_id: Uuid, profile: Option<Profile>) -> ApiResult<impl IntoResponse> {
    let profile = profile.ok_or_else(|| no_such_profile(profile_id))?;
    Ok((etag(profile.version), Answer(profile)))
}

/// Makes a profile. Agents learn of it with the next answer to their reports.
#[utoipa::path(post, path = "/v1/profiles", tag = "configuration", security(("api_key" = ["configuration:write"])),
    request_body = ProfileBody,
    responses((status = 201, description = "The profile", body = CreatedProfile), CreateProblems, OperatorProblems))]
async fn create_profile(
    State(state): State<ApiState>,
    ConfigurationWrite(operator): ConfigurationWrite,
    Json(body): Json<ProfileBody>,
) -> ApiResult<(StatusCode, Answer<CreatedProfile>)> {
    let profile_id = Uuid::now_v7();
    let text = body.text()?;
    let change = state.writers.create_profile(profile_id, &text, &operator.actor()).await?;
    done(profile_id, change)?;
    Ok((StatusCode::CREATED, Answer(CreatedProfile { profile_id })))
}

/// Replaces a profile; with `If-Match`, only if nobody changed it since it was read.
#[utoipa::path(put, path = "/v1/profiles/{profile_id}", tag = "configuration", security(("api_key" = ["configuration:write"])),
    params(("profile_id" = Uuid, Path, description = "Id of the profile"),
        ("If-Match" = Option<String>, Header, description = "`ETag` of the profile as it was read, or `*`")),
    request_body = ProfileBody,
    responses((status = 200, description = "The profile as it is now", body = Profile,
        headers(("ETag" = String, description = "Names this state of the profile"))), ReplaceProblems, OperatorProblems))]
async fn replace_profile(
    State(state): State<ApiState>,
    ConfigurationWrite(operator): ConfigurationWrite,
    Path(profile_id): Path<Uuid>,
    expected: IfMatch,
    Json(body): Json<ProfileBody>,
) -> ApiResult<impl IntoResponse> {
    let (expected, text) = (expected.version()?, body.text()?);
    let actor = operator.actor();
    let change = state.writers.replace_profile(profile_id, expected, &text, &actor).await?;
    done(profile_id, change)?;
    tagged(profile_id, state.writers.profile(profile_id).await?)
}

/// Removes a profile; with `If-Match`, only if nobody changed it since it was read. Its hosts go back to what their other layers say.
#[utoipa::path(delete, path = "/v1/profiles/{profile_id}", tag = "configuration", security(("api_key" = ["configuration:write"])),
    params(("profile_id" = Uuid, Path, description = "Id of the profile"),
        ("If-Match" = Option<String>, Header, description = "`ETag` of the profile as it was read, or `*`")),
    responses((status = 204, description = "The profile is gone"), DeleteProblems, OperatorProblems))]
async fn delete_profile(
    State(state): State<ApiState>,
    ConfigurationWrite(operator): ConfigurationWrite,
    Path(profile_id): Path<Uuid>,
    expected: IfMatch,
) -> ApiResult<StatusCode> {
    let expected = expected.version()?;
    let change = state.writers.delete_profile(profile_id, expected, &operator.actor()).await?;
    done(profile_id, change)?;
    Ok(StatusCode::NO_CONTENT)
}

fn done(profile_id: Uuid, change: ProfileChange) -> ApiResult<()> {
    match change {
        ProfileChange::Done(_) => Ok(()),
        ProfileChange::NoProfile => Err(no_such_profile(profile_id)),
        ProfileChange::Stale => Err(stale()),
        ProfileChange::NameTaken => Err(params::invalid_field("name", "another profile has it")),
        ProfileChange::TooMany => {
            let detail = format!("there are {MAX_PROFILES} profiles, and no more are served");
            Err(params::invalid_field("name", detail))
        }
    }
}

fn no_such_profile(profile_id: Uuid) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("There is no profile {profile_id}."))
}

/// A change to be tried.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreviewBody {
    /// The profile that is to be replaced or removed; null: a new one.
    profile_id: Option<Uuid>,
    /// What it is to be; null: it is to be removed.
    profile: Option<ProfileBody>,
}

/// What a change would do.
#[derive(Serialize, ToSchema)]
struct Preview {
    /// Hosts looked at, by name: at most 10,000.
    examined: usize,
    /// Whether there are more hosts than were looked at.
    truncated: bool,
    /// Hosts whose configuration would be another.
    changed: usize,
    /// The first 100 of them, by name.
    items: Vec<HostPreview>,
}

/// What a change would do to one host.
#[derive(Serialize, ToSchema)]
struct HostPreview {
    /// The host.
    host_id: Uuid,
    /// Its name.
    host_name: String,
    /// Every key whose value would be another.
    changes: Vec<KeyChange>,
}

/// A key whose value would be another.
#[derive(Serialize, ToSchema)]
struct KeyChange {
    /// With a dot between table and key.
    #[schema(example = "profile.top")]
    key: String,
    /// What is in force; null: what the agent's own file or its default says.
    from: Option<Value>,
    /// What would be.
    to: Option<Value>,
}

/// Says which hosts' configuration a change would change, and how. Changes nothing.
#[utoipa::path(post, path = "/v1/profiles/preview", tag = "configuration", security(("api_key" = ["fleet:read"])),
    request_body = PreviewBody,
    responses((status = 200, description = "What would change", body = Preview), PreviewProblems, OperatorProblems))]
async fn preview_profile(
    State(state): State<ApiState>,
    _: FleetRead,
    Json(body): Json<PreviewBody>,
) -> ApiResult<Answer<Preview>> {
    let stored = state.readers.profiles().await?;
    if let Some(id) = body.profile_id.filter(|id| !stored.iter().any(|p| p.profile_id == *id)) {
        return Err(no_such_profile(id));
    }
    if body.profile_id.is_none() && body.profile.is_none() {
        return Err(params::invalid_field("profile", "is missing: nothing is to be tried"));
    }
    let before = stored_profiles(stored)?;
    let mut after = before.clone();
    after.retain(|profile| profile.id() != body.profile_id || body.profile_id.is_none());
    if let Some(profile) = body.profile {
        let profile_id = body.profile_id.unwrap_or_else(Uuid::now_v7);
        after.push(StoredProfile::new(profile_id, profile.text()?)?);
    }
    let limit = i64::try_from(MAX_PREVIEWED).unwrap_or(i64::MAX).saturating_add(1);
    let mut hosts = state.readers.all_host_layers(limit).await?;
    let truncated = hosts.len() > MAX_PREVIEWED;
    hosts.truncate(MAX_PREVIEWED);
    let mut preview = Preview { examined: hosts.len(), truncated, changed: 0, items: Vec::new() };
    for (n, host) in hosts.into_iter().enumerate() {
        if n.is_multiple_of(YIELD_AFTER) {
            // Thousands of compilations: agents are served on the same threads.
            tokio::task::yield_now().await;
        }
        let changes = changes(&before, &after, &host)?;
        if changes.is_empty() {
            continue;
        }
        preview.changed = preview.changed.saturating_add(1);
        if preview.items.len() < MAX_NAMED {
            let (host_id, host_name) = (host.host_id, host.host_name);
            preview.items.push(HostPreview { host_id, host_name, changes });
        }
    }
    Ok(Answer(preview))
}

fn changes(
    before: &[StoredProfile],
    after: &[StoredProfile],
    host: &HostLayers,
) -> Result<Vec<KeyChange>, ConfigurationError> {
    let before = keys(&compile(layers(before, host)?)?.values)?;
    let mut after = keys(&compile(layers(after, host)?)?.values)?;
    let mut changes = Vec::new();
    for (key, from) in before {
        let to = after.remove(&key);
        if to.as_ref() != Some(&from) {
            changes.push(KeyChange { key, from: Some(from), to });
        }
    }
    let added = after.into_iter().map(|(key, to)| KeyChange { key, from: None, to: Some(to) });
    changes.extend(added);
    Ok(changes)
}
