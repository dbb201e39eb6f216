//! `release`: keys, signatures and the mirror of what is installed on hosts. Files only: no server, no
//! database, but for `rollout`.
//!
//! Who makes releases keeps a *root* key offline and a *signing* key near the build (`keygen`). The root says once which
//! signing keys count (`keys`); a signing key signs each release (`sign`), which is a directory with the binaries under
//! their SHA-256 and `manifest.json`. `publish` checks every signature, size and hash and copies it into a server's
//! `[artifacts] directory`, the manifest last: whoever reads the mirror meanwhile sees the old release or the new one. What
//! is there of older releases stays, for hosts that are under way; remove it by hand.

mod files;
mod keys;

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use shared_model::release::{Manifest, PublicKey, Release, Signed, SigningKeys};
use time::OffsetDateTime;

use super::rollout::RolloutCommand;
use super::table;
use crate::config::{Config, ConfigError};
use files::{Binary, MANIFEST};

/// Most binaries of a release, keys of a list.
const MAX_ENTRIES: usize = 64;

/// `release`
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Make a key pair, root or signing: the private half into a new file, the public half is printed.
    Keygen {
        /// The private half's file, mode 0600; must not exist.
        file: PathBuf,
    },
    /// Say with a root key which signing keys count.
    Keys {
        /// A root's private half.
        #[arg(long, value_name = "FILE")]
        root_key: PathBuf,
        /// A signing key's public half, as `keygen` printed it; may be repeated. Whichever is not named counts no more.
        #[arg(long = "signing", value_name = "KEY", required = true)]
        signing: Vec<PublicKey>,
        /// The list, for `sign`.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Make a release of binaries, and sign it.
    Sign {
        /// A signing key's private half.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What `keys` wrote.
        #[arg(long, value_name = "FILE")]
        signing_keys: PathBuf,
        /// As the binaries say it of themselves.
        #[arg(long, value_name = "VERSION")]
        version: String,
        /// Larger than that of any release before.
        #[arg(long)]
        seq: u64,
        /// A binary, such as `x86_64-linux=target/release/procfleet-agent`; may be repeated.
        #[arg(long = "artifact", value_name = "TARGET=FILE", required = true)]
        artifacts: Vec<Binary>,
        /// An older release's number that may be installed over this one; may be repeated.
        #[arg(long, value_name = "SEQ")]
        allow_downgrade_to: Vec<u64>,
        /// A release's number that nobody may install any more; may be repeated.
        #[arg(long = "yank", value_name = "SEQ")]
        yanked: Vec<u64>,
        /// The release: a new directory.
        #[arg(long, value_name = "DIRECTORY")]
        output: PathBuf,
    },
    /// Check a release and put it where servers look for it.
    Publish {
        /// What `sign` made.
        release: PathBuf,
        /// `[artifacts] directory` of a server; every replica needs the same.
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
        /// A root's public half; may be repeated.
        #[arg(long = "root", value_name = "KEY", required = true)]
        roots: Vec<PublicKey>,
    },
    /// Bring a release to the fleet, step by step. Works on the database.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Print what a release says of itself.
    Show {
        /// A release or a mirror.
        directory: PathBuf,
        /// Roots' public halves: also check who says so.
        #[arg(long = "root", value_name = "KEY")]
        roots: Vec<PublicKey>,
    },
}

impl ReleaseCommand {
    /// Does it.
    pub async fn run(
        self,
        config: impl FnOnce() -> Result<Config, ConfigError>,
        now: OffsetDateTime,
    ) -> anyhow::Result<()> {
        match self {
            Self::Rollout(command) => command.run(&super::connect(&config()?).await?).await,
            Self::Keygen { file } => table::print(&format!("{}\n", keys::generate(&file)?)),
            Self::Keys { root_key, signing, output } => {
                ensure!(signing.len() <= MAX_ENTRIES, "more than {MAX_ENTRIES} signing keys");
                let signed =
                    Signed::sign(&SigningKeys { keys: signing }, &[&keys::read(&root_key)?]);
                files::write_json(&output, &signed)
            }
            Self::Sign {
                key,
                signing_keys,
                version,
                seq,
                artifacts,
                allow_downgrade_to,
                yanked,
                output,
            } => {
                ensure!(artifacts.len() <= MAX_ENTRIES, "more than {MAX_ENTRIES} binaries");
                let pair = keys::read(&key)?;
                let list: Signed = files::read_json(&signing_keys)?;
                let described = artifacts.iter().map(Binary::describe);
                let manifest = Manifest {
                    seq,
                    version,
                    created_at: now,
                    artifacts: described.collect::<anyhow::Result<_>>()?,
                    allow_downgrade_to,
                    yanked,
                };
                let release =
                    Release { signing_keys: list, manifest: Signed::sign(&manifest, &[&pair]) };
                release.unverified().context("this release would be refused everywhere")?;
                files::create(&output, &release, &manifest, &artifacts)?;
                table::print(&said(&manifest))
            }
            Self::Publish { release, to, roots } => {
                let manifest = files::publish(&release, &to, &roots)?;
                table::print(&format!("published to {}\n{}", to.display(), said(&manifest)))
            }
            Self::Show { directory, roots } => {
                let release: Release = files::read_json(&directory.join(MANIFEST))?;
                let manifest = if roots.is_empty() {
                    release.unverified()?
                } else {
                    release.verify(&roots)?
                };
                table::print(&said(&manifest))
            }
        }
    }
}

fn said(manifest: &Manifest) -> String {
    let mut lines = vec![format!("release {} ({})", manifest.seq, manifest.version)];
    lines.extend(manifest.artifacts.iter().map(|artifact| {
        format!("{}  {:>10} bytes  {}", artifact.sha256, artifact.size, artifact.target)
    }));
    lines.join("\n") + "\n"
}

/// `TARGET=FILE`.
impl std::str::FromStr for Binary {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((target, file)) = text.split_once('=') else {
            bail!("a binary is TARGET=FILE, such as x86_64-linux=procfleet-agent");
        };
        Ok(Self { target: target.to_owned(), file: file.into() })
    }
}
