//! Private keys of releases: Ed25519 as PKCS #8 in PEM (RFC 8410), in files that their owner alone may read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use shared_model::release::PublicKey;

/// Makes a pair; the private half goes to `file`, which must not exist.
pub(super) fn generate(file: &Path) -> anyhow::Result<PublicKey> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| anyhow!("the system gave no random bytes"))?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())
        .map_err(|error| anyhow!("the new key cannot be used: {error}"))?;
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        wrapped(&STANDARD.encode(pkcs8.as_ref()))
    );
    let mut options = fs::OpenOptions::new();
    let mut open = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    open.write_all(pem.as_bytes())
        .and_then(|()| open.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(PublicKey::of(&pair))
}

/// Reads a private half.
pub(super) fn read(file: &Path) -> anyhow::Result<Ed25519KeyPair> {
    let name = file.display();
    let meta = fs::metadata(file).with_context(|| format!("cannot read {name}"))?;
    let others = meta.mode() & 0o077;
    ensure!(others == 0, "{name} can be read by others: set its mode to 0600");
    let pem = fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .map_err(|_| anyhow!("{name} holds no private key in PEM (PKCS #8)"))?;
    Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der())
        .map_err(|error| anyhow!("{name} holds no Ed25519 key: {error}"))
}

/// In lines of 64 characters (RFC 7468).
fn wrapped(text: &str) -> String {
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    lines.join("\n")
}
