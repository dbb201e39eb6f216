//! The operators' REST API: resources, one file each, merged here.
//!
//! JSON in `snake_case`, times in RFC 3339, instance ids as decimal strings (JavaScript reads
//! integers above 2⁵³ wrongly), process ids as 32 hex digits. Unknown is `null`, never `0`.
//! Every answer is bounded, and every query ends after the read pool's statement timeout.

pub mod alerts;
pub mod api_keys;
pub mod authorities;
pub mod channels;
pub mod compare;
pub mod connections;
pub mod enrollment_tokens;
pub mod etag;
pub mod exits;
pub mod host_clones;
pub mod host_configuration;
pub mod host_identity;
pub mod host_labels;
pub mod host_purge;
pub mod hosts;
pub mod idempotency;
pub mod instances;
pub mod maintenance;
pub mod params;
pub mod processes;
pub mod profiles;
pub mod replicas;
pub mod rollouts;
pub mod rules;
pub mod runs;
pub mod samples;
pub mod selection;
pub mod session;
pub mod silences;
pub mod sparklines;
pub mod stack;
pub mod top;

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

use crate::alerts::sender::Sender;
use crate::auth::join_token::InstallUrl;
use crate::auth::operator::OperatorAuth;
use crate::authority::live::LiveAuthorities;
use crate::store::Store;

/// What the handlers need.
#[derive(Clone)]
pub struct ApiState {
    /// For questions: a pool of its own, read only, with a statement timeout
    /// ([`Store::connect_reader`]).
    pub readers: Store,
    /// For changes: tokens and keys.
    pub writers: Store,
    /// Checks API keys.
    pub operators: OperatorAuth,
    /// Seals the keys of new authorities.
    pub ca_key_file: PathBuf,
    /// Seals channels and sends test messages.
    pub sender: Sender,
    /// Where agents find the agent door: part of every token.
    pub agent_endpoints: Arc<[String]>,
    /// Where hosts fetch the install script, and whose pin says that it is ours; none: nothing is mirrored.
    pub install: Option<Arc<(InstallUrl, LiveAuthorities)>>,
    /// Whether the door itself speaks TLS: cookies are then for TLS only.
    pub secure_cookies: bool,
}

impl FromRef<ApiState> for OperatorAuth {
    fn from_ref(state: &ApiState) -> Self {
        state.operators.clone()
    }
}

crate::problems! {
    /// What every route with an API key may answer.
    pub(crate) OperatorProblems = Unauthorized, Forbidden, TooManyRequests, Internal, DatabaseUnavailable, QueryTimeout;
}

/// Every route of the operators' API.
pub fn routes(state: ApiState) -> OpenApiRouter {
    let once = from_fn_with_state(state.clone(), idempotency::layer);
    resources().with_state(state).layer(once)
}

/// Their documentation.
pub fn openapi() -> utoipa::openapi::OpenApi {
    resources().into_openapi()
}

fn resources() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(hosts::routes())
        .merge(host_identity::routes())
        .merge(host_clones::routes())
        .merge(host_labels::routes())
        .merge(host_purge::routes())
        .merge(profiles::routes())
        .merge(host_configuration::routes())
        .merge(samples::routes())
        .merge(top::routes())
        .merge(compare::routes())
        .merge(connections::routes())
        .merge(exits::routes())
        .merge(processes::routes())
        .merge(runs::routes())
        .merge(stack::routes())
        .merge(sparklines::routes())
        .merge(instances::routes())
        .merge(maintenance::routes())
        .merge(replicas::routes())
        .merge(rollouts::routes())
        .merge(alerts::routes())
        .merge(channels::routes())
        .merge(rules::routes())
        .merge(silences::routes())
        .merge(session::routes())
        .merge(enrollment_tokens::routes())
        .merge(api_keys::routes())
        .merge(authorities::routes())
}
