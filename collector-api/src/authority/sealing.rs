//! The key that seals the authorities' private keys and the channels' destinations: 32 random bytes in a
//! file, mode 0600. And the means of sealing, for whoever has a key of another kind.
//!
//! Sealed is: 12 random bytes of nonce, then AES-256-GCM ciphertext and tag. The row's id and the
//! purpose are authenticated with it, so that what is sealed cannot be swapped between rows. A handful
//! of messages is ever sealed with one key, far from where random nonces would meet.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::auth::secret::hex;

/// Bytes of the key and of its file.
const KEY_BYTES: usize = 32;

/// Why nothing can be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The file cannot be read or written.
    #[error("the sealing key {} cannot be {what}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The authorities exist, the key does not.
    #[error(
        "the sealing key {} does not exist, but the database has authorities sealed with it: copy the file from another replica (mode 0600), or set PROCFLEET_CA_KEY_FILE to where it is", .0.display()
    )]
    Missing(PathBuf),
    /// Others may read the file.
    #[error("the sealing key {} can be read by others than its owner: chmod 600 it", .0.display())]
    Exposed(PathBuf),
    /// Not 32 bytes.
    #[error("the sealing key {} does not have {KEY_BYTES} bytes: it is damaged, copy it from another replica", .0.display())]
    Damaged(PathBuf),
    /// The authorities are sealed with another key.
    #[error(
        "the database's authorities are sealed with the key {wanted}, this replica has another: copy the sealing key from the replica that ran `procfleet-server init`"
    )]
    OtherKey {
        /// Its id.
        wanted: String,
    },
    /// Ciphertext and key do not fit.
    #[error("a sealed private key in the database is damaged")]
    Broken,
    /// The system's random number generator failed.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

/// The key. No `Debug`.
pub struct SealingKey {
    key: LessSafeKey,
    nonce_key: hmac::Key,
    id: String,
}

impl SealingKey {
    /// Reads the key's file, which must be private.
    pub fn read(path: &Path) -> Result<Self, SealingError> {
        let failed = |source| SealingError::File { path: path.into(), what: "read", source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SealingError::Missing(path.into()));
            }
            opened => opened.map_err(failed)?,
        };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(SealingError::Exposed(path.into()));
        }
        let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let bytes: [u8; KEY_BYTES] =
            bytes.try_into().map_err(|_| SealingError::Damaged(path.into()))?;
        Self::new(&bytes)
    }

    /// Reads the key, or makes it. True: it was made by this call.
    pub fn read_or_create(path: &Path) -> Result<(Self, bool), SealingError> {
        match Self::read(path) {
            Err(SealingError::Missing(_)) => {}
            read => return read.map(|key| (key, false)),
        }
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| SealingError::NoRandomness)?;
        let made = create(path, &bytes).map_err(|source| SealingError::File {
            path: path.into(),
            what: "written",
            source,
        })?;
        // Read what is there: another process may have been first.
        Self::read(path).map(|key| (key, made))
    }

    /// Removes a key that seals nothing.
    pub fn remove(path: &Path) -> Result<(), SealingError> {
        std::fs::remove_file(path).map_err(|source| SealingError::File {
            path: path.into(),
            what: "removed",
            source,
        })
    }

    /// A key of these bytes, which nobody else can know.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Result<Self, SealingError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| SealingError::Broken)?;
        let id = hex(&Sha256::digest(bytes)[..8]);
        let derived =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"procfleet-recovery-nonce-v1");
        let nonce_key = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Ok(Self { key: LessSafeKey::new(key), nonce_key, id })
    }

    /// Authenticates the nonces of recovery: derived, and the same on every replica.
    pub fn nonce_key(&self) -> hmac::Key {
        self.nonce_key.clone()
    }

    /// Hex of the first 8 bytes of the key's SHA-256.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals what belongs to a row and a purpose.
    pub fn seal(&self, id: Uuid, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealingError::NoRandomness)?;
        let mut text = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(id, purpose)),
                &mut text,
            )
            .map_err(|_| SealingError::Broken)?;
        Ok([&nonce[..], &text].concat())
    }

    /// Opens what [`SealingKey::seal`] sealed.
    pub fn open(&self, id: Uuid, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SealingError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(SealingError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealingError::Broken)?;
        let mut text = text.to_vec();
        let aad = Aad::from(associated(id, purpose));
        let plain =
            self.key.open_in_place(nonce, aad, &mut text).map_err(|_| SealingError::Broken)?;
        Ok(plain.to_vec())
    }
}

fn associated(id: Uuid, purpose: &str) -> Vec<u8> {
    [id.as_bytes(), purpose.as_bytes()].concat()
}

/// Puts a complete file at `path` unless there is one. A hard link, because unlike a rename it never
/// replaces what another process put there a moment ago. True: the file is ours.
fn create(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory)?;
    let temporary = path.with_extension(format!("{}.tmp", Uuid::new_v4().simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    File::open(directory)?.sync_all()?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        linked => linked.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_are_bound_to_their_row() {
        let key = SealingKey::new(&[7; 32]).unwrap();
        let id = Uuid::from_u128(1);
        let sealed = key.seal(id, "server", b"secret").unwrap();
        assert_eq!(key.open(id, "server", &sealed).unwrap(), b"secret");
        assert!(key.open(id, "client", &sealed).is_err());
        assert!(key.open(Uuid::from_u128(2), "server", &sealed).is_err());
        assert!(SealingKey::new(&[8; 32]).unwrap().open(id, "server", &sealed).is_err());
        assert!(key.open(id, "server", b"short").is_err());
    }

    #[test]
    fn the_file_is_private_and_made_once() {
        let directory = std::env::temp_dir().join(format!("procfleet-{}", Uuid::new_v4()));
        let path = directory.join("ca.key");
        assert!(matches!(SealingKey::read(&path), Err(SealingError::Missing(_))));
        let (first, made) = SealingKey::read_or_create(&path).unwrap();
        assert!(made);
        let (second, made) = SealingKey::read_or_create(&path).unwrap();
        assert!(!made && first.id() == second.id());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(SealingKey::read(&path), Err(SealingError::Exposed(_))));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
