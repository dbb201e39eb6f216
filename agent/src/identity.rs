//! Who this host is: its key, its certificate, whom it trusts and where it reports.

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// An enrolled host.
#[derive(Clone)]
pub struct Identity {
    /// Minted by the server.
    pub host_id: Uuid,
    /// Agent-door endpoints in order of preference.
    pub endpoints: Vec<String>,
    /// Client certificate and its issuers, PEM, leaf first.
    pub certificate_chain_pem: String,
    /// Server CAs to trust, PEM.
    pub ca_bundle_pem: String,
    /// PKCS #8, PEM. Secret.
    pub(crate) private_key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("host_id", &self.host_id)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Never enrolled.
    #[error("this host is not enrolled ({0} does not exist): run `procfleet-agent enroll`")]
    NotEnrolled(PathBuf),
    /// A file of it cannot be used.
    #[error("cannot {step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
}

impl Identity {
    /// Reads the identity in `dir` (`<state_dir>/identity`).
    pub fn load(_dir: &Path) -> Result<Self, IdentityError> {
        unimplemented!()
    }
}
