//! The identity that is about to take the place of the one in use.
//!
//! In this order, so that a crash at any point leaves a usable identity and a renewal that goes on:
//!
//! 1. [`key`]: `next-key.pem`, before a server hears of it, reused by every retry.
//! 2. [`stage`]: `next.json`, as soon as a server answered. What is in use is still the old one.
//! 3. [`adopt`]: after a server accepted the new one, `next.json` becomes `identity.json`, in one
//!    rename. What is left of the keys before is removed.
//!
//! The server keeps the old certificate good until the first use of the new one, and for a day more.

use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use shared_model::EnrollResponse;

use super::{
    Identity, IdentityError, failed, identity_path, key_path, load_or_create, read_identity,
    write_identity,
};
use crate::durable;

fn next_key_path(dir: &Path) -> PathBuf {
    dir.join("next-key.pem")
}

fn next_path(dir: &Path) -> PathBuf {
    dir.join("next.json")
}

/// The key of the next certificate; made and synced if there is none. Never that of `current`.
pub fn key(dir: &Path, current: &Identity) -> Result<KeyPair, IdentityError> {
    let path = next_key_path(dir);
    let key = load_or_create(dir, &path)?;
    if key.serialize_pem() != current.private_key_pem {
        return Ok(key);
    }
    // A crash between the rename and the removal: the key is in use by now.
    forget_key(dir)?;
    load_or_create(dir, &path)
}

/// Removes the key of the next certificate: a server knows it for something else.
pub fn forget_key(dir: &Path) -> Result<(), IdentityError> {
    let path = next_key_path(dir);
    durable::remove(&path).map_err(failed("remove", &path))
}

/// Keeps what a server answered for `key`, beside the identity in use.
pub fn stage(
    dir: &Path,
    response: &EnrollResponse,
    key: &KeyPair,
) -> Result<Identity, IdentityError> {
    let path = next_path(dir);
    write_identity(&path, response, Some(key.serialize_pem()))?;
    staged(dir)?.ok_or(IdentityError::NotEnrolled(path))
}

/// What was staged and not yet adopted. One that is damaged counts as none: the identity in use is not
/// touched by it.
pub fn staged(dir: &Path) -> Result<Option<Identity>, IdentityError> {
    match read_identity(&next_path(dir), &next_key_path(dir)) {
        Err(IdentityError::Damaged(path, error)) => {
            tracing::warn!(path = %path.display(), %error, "a staged identity is damaged and not used");
            Ok(None)
        }
        read => read,
    }
}

/// Makes the staged identity the one in use.
pub fn adopt(dir: &Path) -> Result<Identity, IdentityError> {
    let path = identity_path(dir);
    durable::rename(&next_path(dir), &path).map_err(failed("replace", &path))?;
    let identity = Identity::load(dir)?;
    for old in [next_key_path(dir), key_path(dir)] {
        durable::remove(&old).map_err(failed("remove", &old))?;
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use shared_model::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::identity::load_or_create_key;

    fn response(host: u128) -> EnrollResponse {
        EnrollResponse {
            host_id: Uuid::from_u128(host),
            certificate_chain_pem: "chain".into(),
            ca_bundle_pem: "roots".into(),
            not_after: Timestamp::UNIX_EPOCH,
            renew_after: Timestamp::UNIX_EPOCH,
            server_time: Timestamp::UNIX_EPOCH,
            endpoints: vec!["https://a:7443".into()],
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_step_leaves_a_usable_identity() {
        let dir = std::env::temp_dir().join(format!("procfleet-next-{}", Uuid::new_v4()));
        let first_key = load_or_create_key(&dir).unwrap().serialize_pem();
        let first = Identity::store(&dir, &response(1)).unwrap();

        let next_key = key(&dir, &first).unwrap();
        assert_ne!(next_key.serialize_pem(), first_key);
        assert_eq!(key(&dir, &first).unwrap().serialize_pem(), next_key.serialize_pem());
        assert_eq!(Identity::load(&dir).unwrap().private_key_pem, first_key);

        assert!(staged(&dir).unwrap().is_none());
        stage(&dir, &response(2), &next_key).unwrap();
        assert_eq!(Identity::load(&dir).unwrap().host_id, Uuid::from_u128(1));
        assert_eq!(staged(&dir).unwrap().unwrap().host_id, Uuid::from_u128(2));

        // A torn file beside the identity does no harm.
        let whole = fs::read(next_path(&dir)).unwrap();
        fs::write(next_path(&dir), &whole[..40]).unwrap();
        assert!(staged(&dir).unwrap().is_none());
        fs::write(next_path(&dir), &whole).unwrap();

        // A crash between the rename and the removal of the old keys.
        fs::rename(next_path(&dir), identity_path(&dir)).unwrap();
        let second = Identity::load(&dir).unwrap();
        assert_eq!(second.private_key_pem, next_key.serialize_pem());
        let third_key = key(&dir, &second).unwrap();
        assert_ne!(third_key.serialize_pem(), next_key.serialize_pem(), "never a key in use");

        stage(&dir, &response(3), &third_key).unwrap();
        let third = adopt(&dir).unwrap();
        assert_eq!(third.private_key_pem, third_key.serialize_pem());
        assert_eq!(names(&dir), ["identity.json"], "keys of before are gone");
        fs::remove_dir_all(&dir).unwrap();
    }
}
