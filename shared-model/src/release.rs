//! A release of the agent: what may be installed on a fleet, and who said so.
//!
//! Trust has three steps, after Tailscale's distsign. *Root* keys stay offline; whoever installs knows their public
//! halves: agents have them compiled in or in a directory of root's, `procfleet-server release publish` by its arguments. A root signs the list of *signing keys*,
//! a signing key signs the [`Manifest`], the manifest names every artifact by its SHA-256. A server only mirrors these
//! files: one that was broken into can withhold a release, never make one.
//!
//! What is signed is the exact bytes that travel (as base64), behind a prefix that names the kind of document, so that a
//! signature of one kind is worth nothing for another. Nothing here expires: a release that is old is one not to
//! install anew, never one not to run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The most bytes that a [`Release`] may have as JSON.
pub const MAX_RELEASE_BYTES: usize = 256 << 10;
/// The most keys of a list, signatures of a document and artifacts of a manifest.
const MAX_ENTRIES: usize = 64;

/// An Ed25519 public key (RFC 8032): 32 bytes, base64 in JSON and in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Of a pair whose private half is at hand.
    pub fn of(pair: &Ed25519KeyPair) -> Self {
        use ring::signature::KeyPair as _;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(pair.public_key().as_ref());
        Self(bytes)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = ReleaseError;

    fn try_from(text: String) -> Result<Self, ReleaseError> {
        text.parse()
    }
}

impl std::str::FromStr for PublicKey {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| ReleaseError::NotAKey)?;
        Ok(Self(bytes.try_into().map_err(|_| ReleaseError::NotAKey)?))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

/// A document and its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The signed bytes: JSON, as base64.
    pub payload: String,
    /// Ed25519 signatures over the prefix and those bytes, as base64; one good one is enough.
    pub signatures: Vec<String>,
}

/// A document that is signed.
pub trait Document: Serialize + DeserializeOwned {
    /// What stands before the signed bytes.
    const PREFIX: &'static str;
}

/// Which keys may sign manifests; signed by a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKeys {
    /// Public keys.
    pub keys: Vec<PublicKey>,
}

impl Document for SigningKeys {
    const PREFIX: &'static str = "procfleet signing keys 1\n";
}

/// One version of the agent; signed by a signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Grows with every release; an agent never goes back to a smaller one unless the manifest of the
    /// installed release allows it.
    pub seq: u64,
    /// As the binary's `--version` says it: `1.4.2`.
    pub version: String,
    /// When it was signed; for people.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: Timestamp,
    /// One binary of each target.
    pub artifacts: Vec<Artifact>,
    /// `seq`s of older releases that may be installed over this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_downgrade_to: Vec<u64>,
    /// `seq`s of releases that nobody may install any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yanked: Vec<u64>,
}

impl Document for Manifest {
    const PREFIX: &'static str = "procfleet manifest 1\n";
}

/// One file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// For which machines: `x86_64-linux`, `aarch64-linux`; [`target`] is that of this build.
    pub target: String,
    /// Size, bytes.
    pub size: u64,
    /// SHA-256 of the file, 64 lowercase hexadecimal digits: its name in the mirror.
    pub sha256: String,
}

/// What a server mirrors as `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// [`SigningKeys`], signed by a root.
    pub signing_keys: Signed,
    /// [`Manifest`], signed by a signing key.
    pub manifest: Signed,
}

/// What is wrong with a release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not a public key.
    #[error("not an Ed25519 public key: 32 bytes as base64 are expected")]
    NotAKey,
    /// No key that may sign did.
    #[error("the {0} carry no signature of a key that is trusted")]
    Untrusted(&'static str),
    /// The bytes do not say what they should.
    #[error("the {document} cannot be read: {reason}")]
    Unreadable {
        /// Which document.
        document: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// The target of this build, as in [`Artifact::target`].
pub fn target() -> &'static str {
    if cfg!(target_arch = "aarch64") { "aarch64-linux" } else { "x86_64-linux" }
}

impl Signed {
    /// Signs a document.
    pub fn sign<D: Document>(document: &D, pairs: &[&Ed25519KeyPair]) -> Self {
        // Proof: the documents above are structs of strings, numbers and lists; JSON has all of these.
        #[expect(clippy::expect_used, reason = "proved above")]
        let bytes = serde_json::to_vec(document).expect("a document is JSON");
        let message = message::<D>(&bytes);
        let signatures = pairs.iter().map(|pair| STANDARD.encode(pair.sign(&message))).collect();
        Self { payload: STANDARD.encode(bytes), signatures }
    }

    /// The document, if one of `trusted` signed it.
    pub fn verify<D: Document>(
        &self,
        trusted: &[PublicKey],
        name: &'static str,
    ) -> Result<D, ReleaseError> {
        let unreadable = |reason: String| ReleaseError::Unreadable { document: name, reason };
        if self.signatures.len() > MAX_ENTRIES {
            return Err(unreadable(format!("more than {MAX_ENTRIES} signatures")));
        }
        let bytes = self.bytes(name)?;
        let message = message::<D>(&bytes);
        let good =
            self.signatures.iter().filter_map(|text| STANDARD.decode(text).ok()).any(|signature| {
                trusted.iter().any(|key| {
                    UnparsedPublicKey::new(&ED25519, key.0).verify(&message, &signature).is_ok()
                })
            });
        if !good {
            return Err(ReleaseError::Untrusted(name));
        }
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))
    }

    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, ReleaseError> {
        STANDARD
            .decode(&self.payload)
            .map_err(|error| ReleaseError::Unreadable { document: name, reason: error.to_string() })
    }
}

impl Release {
    /// The manifest, if a root vouches for the key that signed it.
    pub fn verify(&self, roots: &[PublicKey]) -> Result<Manifest, ReleaseError> {
        let keys: SigningKeys = self.signing_keys.verify(roots, "signing keys")?;
        let keys = keys.keys.get(..MAX_ENTRIES).unwrap_or(&keys.keys);
        let manifest: Manifest = self.manifest.verify(keys, "contents of the manifest")?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as it says of itself, for who mirrors or shows it and installs nothing.
    pub fn unverified(&self) -> Result<Manifest, ReleaseError> {
        let name = "contents of the manifest";
        let bytes = self.manifest.bytes(name)?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
            ReleaseError::Unreadable { document: name, reason: error.to_string() }
        })?;
        manifest.check()?;
        Ok(manifest)
    }
}

impl Manifest {
    /// The binary for a target.
    pub fn artifact(&self, target: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.target == target)
    }

    /// What a signature cannot say: names that are safe in paths and scripts.
    fn check(&self) -> Result<(), ReleaseError> {
        let bad = |reason: String| {
            Err(ReleaseError::Unreadable { document: "contents of the manifest", reason })
        };
        let plain = |text: &str, most: usize| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte))
        };
        if !plain(&self.version, 64)
            || !self.version.starts_with(|first: char| first.is_ascii_digit())
        {
            return bad(format!("the version {:?} is none", self.version));
        }
        if self.artifacts.len() > MAX_ENTRIES {
            return bad(format!("more than {MAX_ENTRIES} artifacts"));
        }
        for artifact in &self.artifacts {
            if !plain(&artifact.target, 32) {
                return bad(format!("the target {:?} is none", artifact.target));
            }
            if !is_sha256(&artifact.sha256) {
                return bad(format!("{:?} is not a SHA-256", artifact.sha256));
            }
        }
        Ok(())
    }
}

/// Whether a text is a SHA-256 as [`Artifact::sha256`] has it.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn message<D: Document>(bytes: &[u8]) -> Vec<u8> {
    [D::PREFIX.as_bytes(), bytes].concat()
}

#[cfg(test)]
#[path = "release/tests.rs"]
mod tests;
