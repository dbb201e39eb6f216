//! Which releases may be installed: who has to have signed them, and which of those are a step forward.
//!
//! Roots' public keys are compiled in (`PROCFLEET_RELEASE_ROOTS` at build time, separated by spaces) or lie, for those who sign their own
//! releases, in `[update] trusted_keys`, a directory that root alone may write. Nothing expires: an old release keeps running.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ring::digest::{Context, SHA256};
use shared_model::release::{Artifact, Manifest, PublicKey, Release, ReleaseError, target};

use super::layout::id_of;
use super::ledger::Ledger;

/// Public keys of the roots that this build trusts.
const COMPILED_IN: Option<&str> = option_env!("PROCFLEET_RELEASE_ROOTS");
/// Most keys that are read.
const MAX_KEYS: usize = 64;
/// Largest file of a key, bytes.
const MAX_KEY_BYTES: u64 = 1024;

/// Why a release is not installed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is nobody whose word counts.
    #[error(
        "no root key is known: put those of whoever makes your releases into [update] trusted_keys"
    )]
    NoKeys,
    /// By the roots, nobody who counts signed it.
    #[error(transparent)]
    Signature(#[from] ReleaseError),
    /// There is none for this machine.
    #[error("release {seq} has no binary for {target}")]
    NoArtifact {
        /// The release.
        seq: u64,
        /// This machine.
        target: &'static str,
    },
    /// It is no step forward, and the installed one does not allow the step back.
    #[error("release {seq} is not newer than the installed release {installed}")]
    Older {
        /// The release.
        seq: u64,
        /// What is installed.
        installed: u64,
    },
    /// Its maker withdrew it.
    #[error("release {0} was withdrawn")]
    Yanked(u64),
    /// It was tried here and did not work.
    #[error("release {0} was tried on this host and did not work")]
    Bad(u64),
}

/// The roots' keys: compiled in and of the directory. What cannot be read, or can be written by others than root, does not count.
pub fn roots(directory: &Path) -> Vec<PublicKey> {
    let compiled = COMPILED_IN.unwrap_or_default().split_whitespace().map(str::to_owned);
    let mut keys: Vec<PublicKey> = compiled.filter_map(|text| text.parse().ok()).collect();
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let files =
        files.map(|entry| entry.path()).filter(|path| path.extension() == Some("pub".as_ref()));
    for path in files.take(MAX_KEYS) {
        match read_key(&path) {
            Ok(key) => keys.push(key),
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "this key does not count");
            }
        }
    }
    keys
}

fn read_key(path: &Path) -> Result<PublicKey, &'static str> {
    let file = fs::File::open(path).map_err(|_| "it cannot be read")?;
    let metadata = file.metadata().map_err(|_| "it cannot be read")?;
    // The owner of this program: root on a host.
    let is_ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o022 != 0 {
        return Err("others than root may write it");
    }
    let mut text = String::new();
    file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(|_| "it is no text")?;
    text.parse().map_err(|_| "it is no Ed25519 public key in base64")
}

/// The manifest of a release that somebody who counts signed.
pub fn verify(release: &Release, roots: &[PublicKey]) -> Result<Manifest, Refused> {
    if roots.is_empty() {
        return Err(Refused::NoKeys);
    }
    Ok(release.verify(roots)?)
}

/// The binary to install, if the release is a step that may be taken from the installed one.
pub fn admit(
    manifest: &Manifest,
    installed: Option<&Manifest>,
    ledger: &Ledger,
) -> Result<Artifact, Refused> {
    let seq = manifest.seq;
    let artifact =
        manifest.artifact(target()).ok_or(Refused::NoArtifact { seq, target: target() })?;
    if manifest.yanked.contains(&seq)
        || installed.is_some_and(|installed| installed.yanked.contains(&seq))
    {
        return Err(Refused::Yanked(seq));
    }
    if ledger.is_bad(seq, id_of(&artifact.sha256)) {
        return Err(Refused::Bad(seq));
    }
    match installed {
        Some(installed) if seq <= installed.seq && !installed.allow_downgrade_to.contains(&seq) => {
            Err(Refused::Older { seq, installed: installed.seq })
        }
        _ => Ok(artifact.clone()),
    }
}

/// SHA-256 in the making.
pub struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In lower-case hexadecimal digits.
    pub fn finish(self) -> String {
        let mut text = String::new();
        for byte in self.0.finish().as_ref() {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use shared_model::Timestamp;

    use super::super::ledger::Bad;
    use super::*;

    fn manifest(seq: u64, digit: char) -> Manifest {
        let artifact =
            Artifact { target: target().into(), size: 1, sha256: digit.to_string().repeat(64) };
        Manifest {
            seq,
            version: format!("1.{seq}.0"),
            created_at: Timestamp::UNIX_EPOCH,
            artifacts: vec![artifact],
            allow_downgrade_to: Vec::new(),
            yanked: Vec::new(),
        }
    }

    #[test]
    fn only_steps_forward_are_taken_unless_the_installed_release_allows_others() {
        let none = Ledger::default();
        let installed =
            Manifest { allow_downgrade_to: vec![5], yanked: vec![9], ..manifest(7, '7') };
        let admitted = |seq| admit(&manifest(seq, 'a'), Some(&installed), &none).map(drop);
        assert!(admitted(8).is_ok());
        assert!(admitted(5).is_ok());
        assert!(matches!(admitted(7), Err(Refused::Older { seq: 7, installed: 7 })));
        assert!(matches!(admitted(6), Err(Refused::Older { seq: 6, installed: 7 })));
        assert!(matches!(admitted(9), Err(Refused::Yanked(9))));
        assert!(admit(&manifest(1, 'a'), None, &none).is_ok(), "installed without a release");
    }

    #[test]
    fn what_was_bad_here_waits_for_another_release_with_another_binary() {
        let bad = vec![Bad { seq: 8, id: "a".repeat(16) }];
        let ledger = Ledger { bad, ..Ledger::default() };
        let admitted = |seq, digit| admit(&manifest(seq, digit), None, &ledger).map(drop);
        assert!(matches!(admitted(8, 'b'), Err(Refused::Bad(8))));
        assert!(matches!(admitted(9, 'a'), Err(Refused::Bad(9))));
        assert!(admitted(9, 'b').is_ok());
    }

    #[test]
    fn a_release_needs_a_binary_for_this_machine_and_somebody_who_counts() {
        let mut other = manifest(8, 'a');
        other.artifacts[0].target = "vax-bsd".into();
        let refused = admit(&other, None, &Ledger::default());
        assert!(matches!(refused, Err(Refused::NoArtifact { seq: 8, .. })));
    }
}
