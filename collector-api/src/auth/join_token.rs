//! Making enrolment tokens: the one place, for the command line and for the REST API.

use std::time::Duration;

use shared_model::JoinToken;
use uuid::Uuid;

use super::secret::{self, NoRandomness, hex};
use crate::store::audit::Actor;
use crate::store::enrollment::NewEnrollmentToken;
use crate::store::labels::{Labels, check_labels};
use crate::store::{Store, StoreError};

/// Longest life of a token.
pub const MAX_TOKEN_TTL: Duration = Duration::from_hours(90 * 24);
/// Life of a token when nothing is said.
pub const DEFAULT_TOKEN_TTL: Duration = Duration::from_hours(24);
/// Longest name of a token or key, bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// A token that was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// The name is empty, too long or has control characters.
    #[error("a name has 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    /// The life is too long or zero.
    #[error("a token lives at least 1 second and at most 90 days")]
    Ttl,
    /// `max_uses` is 0 or too large.
    #[error("a token has at least 1 use and at most 2147483647")]
    MaxUses,
    /// More labels than a host may have, or one that cannot be.
    #[error("labels: {0}")]
    Labels(String),
    /// There is no authority to pin.
    #[error("there is no server authority yet: run procfleet-server init")]
    NoAuthority,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No secret could be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Where hosts fetch the install script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallUrl {
    /// Without a slash at its end.
    pub url: String,
    /// Its certificate is one that hosts trust anyway.
    pub is_public: bool,
}

/// What the operator wants.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// For people.
    pub name: String,
    /// Life from now.
    pub ttl: Duration,
    /// None: as many as wanted.
    pub max_uses: Option<u32>,
    /// Hosts wait for an operator's approval.
    pub approval_needed: bool,
    /// Labels that hosts begin with.
    pub labels: Labels,
    /// Hosts may vanish without a word: they are then decommissioned, and nobody is woken.
    pub ephemeral: bool,
    /// A machine that enrols again is its silent or stopped host again.
    pub same_machine: bool,
}

/// Whether a name can be stored and shown.
pub fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains(char::is_control)
}

/// What installs the agent on a host, without a secret: the script asks for the token there. Who answers is known by the pin of
/// its key, as nobody trusts our authority yet. None: there is no pin, and nothing is run that anybody could have sent.
pub fn install_command(url: &InstallUrl, door_pin: Option<&str>) -> Option<String> {
    let pinned = match (url.is_public, door_pin) {
        (true, _) => String::new(),
        (false, Some(pin)) => format!("-k --pinnedpubkey 'sha256//{pin}' "),
        (false, None) => return None,
    };
    let url = &url.url;
    Some(format!(
        "curl -fsS {pinned}{url}/v1/install.sh -o procfleet-install.sh && sudo sh procfleet-install.sh"
    ))
}

/// Stores a token's digest and gives its paste, which is never shown again.
pub async fn create(
    store: &Store,
    endpoints: Vec<String>,
    request: &TokenRequest,
    actor: &Actor,
) -> Result<JoinToken, CreateTokenError> {
    if !is_name(&request.name) {
        return Err(CreateTokenError::Name);
    }
    if request.ttl < Duration::from_secs(1) || request.ttl > MAX_TOKEN_TTL {
        return Err(CreateTokenError::Ttl);
    }
    let max_uses = request.max_uses.map(i32::try_from).transpose();
    let max_uses = max_uses.map_err(|_| CreateTokenError::MaxUses)?;
    if max_uses == Some(0) {
        return Err(CreateTokenError::MaxUses);
    }
    check_labels(&request.labels).map_err(CreateTokenError::Labels)?;
    let pins: Vec<String> =
        store.server_authority_pins().await?.iter().map(|pin| hex(pin)).collect();
    if pins.is_empty() {
        return Err(CreateTokenError::NoAuthority);
    }
    let token =
        JoinToken { version: 1, endpoints, pins, id: Uuid::now_v7(), secret: secret::generate()? };
    let stored = NewEnrollmentToken {
        token_id: token.id,
        name: &request.name,
        secret_sha256: secret::digest(&token.secret),
        ttl: request.ttl,
        max_uses,
        approval_needed: request.approval_needed,
        labels: &request.labels,
        ephemeral: request.ephemeral,
        same_machine: request.same_machine,
    };
    store.insert_enrollment_token(&stored, actor).await?;
    Ok(token)
}
