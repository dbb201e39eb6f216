//! How a host gets its identity, once.

use std::path::{Path, PathBuf};

use shared_model::{HostFacts, JoinToken, Timestamp};

use crate::identity::{Identity, IdentityError};

/// Environment variable with the enrolment token.
pub const TOKEN_VARIABLE: &str = "PROCFLEET_TOKEN";

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token file cannot be used.
    #[error("cannot read the token file {0}")]
    TokenFile(PathBuf, #[source] std::io::Error),
}

/// The outcome of enrolment.
#[derive(Debug)]
pub enum Enrolled {
    /// The host has its identity now.
    New(Identity),
    /// It had one already; no server was asked and no token used.
    Already(Identity),
}

/// Finds the token: in `file` (0600, removed by [`enroll`] after success), else in
/// `PROCFLEET_TOKEN`, else asks on the terminal without echo. Never in argv.
pub fn read_token(_file: Option<&Path>) -> Result<JoinToken, EnrollError> {
    unimplemented!()
}

/// Enrols this host with `token` and stores the identity in `identity_dir`. Idempotent: a retry
/// uses the same key, and the server answers it with the same identity.
///
/// Needs a tokio runtime (current-thread will do).
pub async fn enroll(
    _token: &JoinToken,
    _facts: HostFacts,
    _identity_dir: &Path,
    _now: Timestamp,
) -> Result<Enrolled, EnrollError> {
    unimplemented!()
}

/// Removes the token file after success.
pub fn remove_token(_file: &Path) -> Result<(), EnrollError> {
    unimplemented!()
}
