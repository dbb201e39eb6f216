//! Who this host is: its key, its certificate, whom it trusts and where it reports.
//!
//! `<state_dir>/identity/` (0700) holds files of mode 0600, each replaced atomically:
//!
//! - `key.pem`: a P-256 key made on this host, synced before the first server hears of it and reused by
//!   every retry of the enrolment, which the server recognises by it. It never leaves the host.
//! - `identity.json`: all the rest, in one file, so that a crash leaves the old identity or the new one.
//!   It exists only after enrolment succeeded. After the first change it holds the key as well, and
//!   `key.pem` is gone: key and certificate change together, in one rename.
//! - `next-key.pem` and `next.json`: the key and the identity of a renewal under way ([`next`]).
//!
//! Nothing a server answers deletes or replaces what is in use: only another identity takes its place,
//! after a server accepted it.

pub mod next;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use shared_model::{EnrollResponse, Timestamp};
use uuid::Uuid;

use crate::durable;

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
    /// The server's name for that set of CAs; none: not told yet.
    pub trust_id: Option<String>,
    /// End of the certificate.
    pub not_after: Timestamp,
    /// When to renew it.
    pub renew_after: Timestamp,
    /// PKCS #8, PEM. Secret.
    pub(crate) private_key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("host_id", &self.host_id)
            .field("endpoints", &self.endpoints)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// `identity.json`.
#[derive(Serialize, Deserialize)]
struct Stored {
    host_id: Uuid,
    endpoints: Vec<String>,
    certificate_chain_pem: String,
    ca_bundle_pem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    not_after: Timestamp,
    #[serde(with = "time::serde::rfc3339")]
    renew_after: Timestamp,
    /// Absent: in `key.pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key_pem: Option<String>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Never enrolled.
    #[error("this host is not enrolled ({0} does not exist): run `procfleet-agent enroll`")]
    NotEnrolled(PathBuf),
    /// Others can read the key.
    #[error(
        "{path} is readable by others (mode {mode:04o}): run `chmod 0600 {path}`; if they may have read it, revoke the host's certificate and enrol again"
    )]
    TooOpen {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of it cannot be used.
    #[error("cannot {step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// `identity.json` is not what this program wrote.
    #[error("{0} is damaged: restore it, or remove it and enrol again")]
    Damaged(PathBuf, #[source] serde_json::Error),
    /// The key cannot be made, or `key.pem` is none.
    #[error("cannot use the key {0}")]
    Key(PathBuf, #[source] rcgen::Error),
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("key.pem")
}

fn identity_path(dir: &Path) -> PathBuf {
    dir.join("identity.json")
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |error| IdentityError::Io { step, path, error }
}

impl Identity {
    /// Reads the identity in `dir` (`<state_dir>/identity`).
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = identity_path(dir);
        read_identity(&path, &key_path(dir))?.ok_or(IdentityError::NotEnrolled(path))
    }

    /// Makes what a server answered the identity of this host, durably.
    pub fn store(dir: &Path, response: &EnrollResponse) -> Result<Self, IdentityError> {
        write_identity(&identity_path(dir), response, None)?;
        Self::load(dir)
    }

    /// Replaces the identity in `dir` by this one, of the same host and key, in one rename. The key is in
    /// `identity.json` from then on.
    pub fn keep(&self, dir: &Path) -> Result<(), IdentityError> {
        let stored = Stored {
            host_id: self.host_id,
            endpoints: self.endpoints.clone(),
            certificate_chain_pem: self.certificate_chain_pem.clone(),
            ca_bundle_pem: self.ca_bundle_pem.clone(),
            trust_id: self.trust_id.clone(),
            not_after: self.not_after,
            renew_after: self.renew_after,
            private_key_pem: Some(self.private_key_pem.clone()),
        };
        write_stored(&identity_path(dir), &stored)?;
        let old = key_path(dir);
        durable::remove(&old).map_err(failed("remove", &old))
    }

    /// Signs `message` with the host's key: ECDSA P-256 over its SHA-256, ASN.1.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        use rcgen::SigningKey as _;
        KeyPair::from_pem(&self.private_key_pem)?.sign(message)
    }
}

/// `None`: there is no such file.
fn read_identity(path: &Path, key_path: &Path) -> Result<Option<Identity>, IdentityError> {
    let json = match fs::read(path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let stored: Stored = serde_json::from_slice(&json)
        .map_err(|error| IdentityError::Damaged(path.to_owned(), error))?;
    let private_key_pem = match stored.private_key_pem {
        Some(pem) => {
            check_private(path)?;
            pem
        }
        None => read_key(key_path)?,
    };
    Ok(Some(Identity {
        host_id: stored.host_id,
        endpoints: stored.endpoints,
        certificate_chain_pem: stored.certificate_chain_pem,
        ca_bundle_pem: stored.ca_bundle_pem,
        trust_id: stored.trust_id,
        not_after: stored.not_after,
        renew_after: stored.renew_after,
        private_key_pem,
    }))
}

fn write_identity(
    path: &Path,
    response: &EnrollResponse,
    private_key_pem: Option<String>,
) -> Result<(), IdentityError> {
    let stored = Stored {
        host_id: response.host_id,
        endpoints: response.endpoints.clone(),
        certificate_chain_pem: response.certificate_chain_pem.clone(),
        ca_bundle_pem: response.ca_bundle_pem.clone(),
        trust_id: None,
        not_after: response.not_after,
        renew_after: response.renew_after,
        private_key_pem,
    };
    write_stored(path, &stored)
}

fn write_stored(path: &Path, stored: &Stored) -> Result<(), IdentityError> {
    let json = serde_json::to_vec_pretty(stored)
        .map_err(|error| IdentityError::Damaged(path.to_owned(), error))?;
    durable::write(path, &json).map_err(failed("write", path))
}

/// The key in `dir`; made and synced if there is none.
pub fn load_or_create_key(dir: &Path) -> Result<KeyPair, IdentityError> {
    load_or_create(dir, &key_path(dir))
}

fn load_or_create(dir: &Path, path: &Path) -> Result<KeyPair, IdentityError> {
    let unusable = |error| IdentityError::Key(path.to_owned(), error);
    match read_key(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(unusable),
        Err(IdentityError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            durable::create_dir(dir).map_err(failed("create", dir))?;
            let key = KeyPair::generate().map_err(unusable)?;
            durable::write(path, key.serialize_pem().as_bytes()).map_err(failed("write", path))?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

fn read_key(path: &Path) -> Result<String, IdentityError> {
    check_private(path)?;
    fs::read_to_string(path).map_err(failed("read", path))
}

fn check_private(path: &Path) -> Result<(), IdentityError> {
    let mode = fs::metadata(path).map_err(failed("read", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn response() -> EnrollResponse {
        EnrollResponse {
            host_id: Uuid::from_u128(5),
            certificate_chain_pem: "chain".into(),
            ca_bundle_pem: "roots".into(),
            not_after: Timestamp::UNIX_EPOCH,
            renew_after: Timestamp::UNIX_EPOCH,
            server_time: Timestamp::UNIX_EPOCH,
            endpoints: vec!["https://a:7443".into()],
        }
    }

    #[test]
    fn files_are_private_and_the_key_is_made_once() {
        let dir = std::env::temp_dir().join(format!("procfleet-identity-{}", Uuid::new_v4()));
        assert!(matches!(Identity::load(&dir), Err(IdentityError::NotEnrolled(_))));
        let key = load_or_create_key(&dir).unwrap();
        assert_eq!(load_or_create_key(&dir).unwrap().serialize_pem(), key.serialize_pem());
        let identity = Identity::store(&dir, &response()).unwrap();
        assert_eq!(identity.host_id, Uuid::from_u128(5));
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        for path in [key_path(&dir), identity_path(&dir)] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing temporary is left");
        assert!(!format!("{identity:?}").contains("PRIVATE"));

        fs::set_permissions(key_path(&dir), fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(&dir).unwrap_err().to_string();
        assert!(error.contains("chmod 0600") && error.contains("0640"), "{error}");
        assert!(load_or_create_key(&dir).is_err(), "a key others know is not used");
        fs::remove_dir_all(&dir).unwrap();
    }
}
