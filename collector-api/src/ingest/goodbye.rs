//! `POST /v1/goodbye`: an agent that stops says so, so that nobody is woken up by a planned restart.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use shared_model::GoodbyeNote;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::IngestState;
use crate::auth::AgentIdentity;
use crate::error::ApiResult;
use crate::extract::Json;

/// The route of this resource.
pub(super) fn routes() -> OpenApiRouter<IngestState> {
    OpenApiRouter::default().routes(routes!(post_goodbye))
}

crate::problems! {
    GoodbyeProblems = BadParameter, Malformed, Truncated, InvalidUtf8, InvalidField, NoClientCertificate,
        HostUnknown, CertificateRevoked, HostPending, HostQuarantined, HostDecommissioned,
        BodyTooLarge, UnsupportedMediaType, Internal, DatabaseUnavailable;
}

/// The agent stops, and says why.
///
/// After `shutdown` and `uninstall` the host counts as stopped, not as silent. After `restart` and
/// `upgrade` it has five minutes more than usual. The next request of the host takes it back.
#[utoipa::path(post, path = "/v1/goodbye", tag = "agents", security(("agent_certificate" = [])),
    params(("procfleet-place" = Option<uuid::Uuid>, Header, description = "Where the agent runs; only the one that holds the identity is believed")),
    request_body = ref("#/components/schemas/GoodbyeNote"),
    responses((status = 204, description = "Noted"), GoodbyeProblems))]
async fn post_goodbye(
    State(state): State<IngestState>,
    identity: AgentIdentity,
    headers: HeaderMap,
    Json(note): Json<GoodbyeNote>,
) -> ApiResult<StatusCode> {
    let place = super::place(&headers)?;
    state.store.say_goodbye(identity.host_id, note.reason, place).await?;
    // Its own request is not the sign of life that takes it back.
    state.contacts.settle(identity.host_id);
    tracing::info!(host.id = %identity.host_id, reason = note.reason.as_str(), "the agent said goodbye");
    Ok(StatusCode::NO_CONTENT)
}
