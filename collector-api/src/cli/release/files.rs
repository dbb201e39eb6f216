//! Releases on disk: a directory with `manifest.json` and every binary under its SHA-256.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use shared_model::release::{Artifact, MAX_RELEASE_BYTES, Manifest, PublicKey, Release};

pub(super) use crate::artifacts::MANIFEST;
use crate::artifacts::kept_manifest;
use crate::auth::secret::hex;

/// A binary to be released.
#[derive(Clone, Debug)]
pub struct Binary {
    /// For which machines.
    pub(super) target: String,
    /// Where it is.
    pub(super) file: PathBuf,
}

impl Binary {
    /// As a manifest has it.
    pub(super) fn describe(&self) -> anyhow::Result<Artifact> {
        let (size, sha256) = digest(&self.file)?;
        ensure!(size > 0, "{} is empty", self.file.display());
        Ok(Artifact { target: self.target.clone(), size, sha256 })
    }
}

/// Size and SHA-256.
fn digest(file: &Path) -> anyhow::Result<(u64, String)> {
    let read = || -> io::Result<(u64, String)> {
        let mut open = File::open(file)?;
        let (mut hash, mut size, mut chunk) = (Sha256::new(), 0, vec![0; 1 << 16]);
        loop {
            let count = open.read(&mut chunk)?;
            if count == 0 {
                return Ok((size, hex(&hash.finalize())));
            }
            hash.update(&chunk[..count]);
            size += count as u64;
        }
    };
    read().with_context(|| format!("cannot read {}", file.display()))
}

/// Reads JSON of at most [`MAX_RELEASE_BYTES`].
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?.take(MAX_RELEASE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(bytes.len() <= MAX_RELEASE_BYTES, "{} is too large", file.display());
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not what it should be", file.display()))
}

/// Writes JSON so that the file is the old one or the new one.
pub(super) fn write_json(file: &Path, document: &impl Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(document)?;
    replace(file, |open| open.write_all(&json))
}

/// Writes beside `file`, syncs, renames, syncs the directory.
fn replace(file: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> anyhow::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    let fresh = file.with_file_name(name);
    let done = || -> io::Result<()> {
        let mut open = File::create(&fresh)?;
        write(&mut open)?;
        open.sync_all()?;
        fs::rename(&fresh, file)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    done().with_context(|| format!("cannot write {}", file.display()))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut source = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    replace(to, |open| io::copy(&mut source, open).map(drop))
}

/// A release of `binaries` in a new directory.
pub(super) fn create(
    directory: &Path,
    release: &Release,
    manifest: &Manifest,
    binaries: &[Binary],
) -> anyhow::Result<()> {
    fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (binary, artifact) in binaries.iter().zip(&manifest.artifacts) {
        copy(&binary.file, &directory.join(&artifact.sha256))?;
    }
    write_json(&directory.join(MANIFEST), release)
}

/// Checks a release and copies it into a mirror, the manifest last.
pub(super) fn publish(from: &Path, to: &Path, roots: &[PublicKey]) -> anyhow::Result<Manifest> {
    let release: Release = read_json(&from.join(MANIFEST))?;
    let manifest = release.verify(roots).context("this release is not published")?;
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    refuse_older(to, &manifest)?;
    for artifact in &manifest.artifacts {
        let (source, file) = (from.join(&artifact.sha256), to.join(&artifact.sha256));
        ensure!(
            is_file_of(&source, artifact)?,
            "{} is not the file of the manifest, by its size or its SHA-256",
            source.display()
        );
        if !(file.exists() && is_file_of(&file, artifact)?) {
            copy(&source, &file)?;
        }
    }
    // For those whom a roll-out, or a pin, sends to this very release.
    write_json(&to.join(kept_manifest(manifest.seq)), &release)?;
    write_json(&to.join(MANIFEST), &release)?;
    Ok(manifest)
}

fn is_file_of(file: &Path, artifact: &Artifact) -> anyhow::Result<bool> {
    let (size, sha256) = digest(file)?;
    Ok(size == artifact.size && sha256 == artifact.sha256)
}

/// Agents would refuse it, and nobody would see why nothing happens.
fn refuse_older(mirror: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let file = mirror.join(MANIFEST);
    if !file.exists() {
        return Ok(());
    }
    let published = read_json::<Release>(&file)?.unverified()?;
    let seq = manifest.seq;
    let goes_back = published.allow_downgrade_to.contains(&seq) && !published.yanked.contains(&seq);
    let is_same = seq == published.seq && *manifest == published;
    let allowed = seq > published.seq || is_same || goes_back;
    ensure!(
        allowed,
        "release {seq} is not newer than release {}, which is published and does not allow it",
        published.seq
    );
    Ok(())
}
