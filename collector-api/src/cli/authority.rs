//! `authority`: the certificate authorities, on the database itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Subcommand, ValueEnum};
use rcgen::KeyPair;
use time::OffsetDateTime;

use super::arguments::parse_ttl;
use super::output::write_secret;
use super::table::{print_table, rfc3339};
use crate::authority::rotation::{self, Step};
use crate::authority::{self, Purpose};
use crate::store::Store;
use crate::store::audit::Actor;

/// Longest life of a certificate for a proxy.
const MAX_PROXY_TTL: Duration = Duration::from_hours(398 * 24);

/// Which authority.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    /// Signs what servers show.
    Server,
    /// Signs what agents show.
    Client,
}

impl From<Which> for Purpose {
    fn from(which: Which) -> Self {
        match which {
            Which::Server => Self::Server,
            Which::Client => Self::Client,
        }
    }
}

/// `authority`
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// List the authorities, and how many hosts the next step of a rotation would shut out.
    List,
    /// Print the certificates that are trusted, PEM: for proxies that end TLS.
    Export {
        /// Whose.
        which: Which,
        /// Write them to this file instead of stdout.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Begin to replace an authority: make the next one, trusted, not used yet.
    Rotate {
        /// Which.
        which: Which,
    },
    /// Take a rotation a step further: activate, finish, or abort.
    Step {
        /// Which authority's.
        which: Which,
        /// What to do.
        step: Step,
        /// Also if hosts are shut out by it.
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate that agents accept, for a proxy that ends TLS.
    IssueProxy {
        /// DNS names and IP addresses; agents connect to these.
        #[arg(long = "name", required = true)]
        names: Vec<String>,
        /// Life, at most 398d.
        #[arg(long, default_value = "90d", value_parser = parse_ttl)]
        ttl: Duration,
        /// Writes leaf, authority and the bridges to it here, PEM.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Writes the private key here, PEM, mode 0600.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
}

impl AuthorityCommand {
    /// Does it.
    pub(super) async fn run(
        self,
        store: &Store,
        key_file: &Path,
        now: OffsetDateTime,
    ) -> anyhow::Result<()> {
        let actor = Actor::cli();
        match self {
            Self::List => list(store).await,
            Self::Export { which, output } => {
                let authorities = authority::open(&store.authorities().await?, key_file)?;
                let bundle = match which {
                    Which::Server => authorities.trust.server_bundle_pem,
                    Which::Client => authorities.trust.client_bundle_pem,
                };
                write_secret(bundle.trim_end(), output.as_deref())
            }
            Self::Rotate { which } => {
                let begun = rotation::begin(store, key_file, which.into(), &actor, now).await?;
                rotation::refusal(begun).map_or(Ok(()), |refusal| bail!(refusal))
            }
            Self::Step { which, step, force } => {
                let taken = rotation::step(store, which.into(), step, force, &actor).await?;
                rotation::refusal(taken).map_or(Ok(()), |refusal| bail!(refusal))
            }
            Self::IssueProxy { names, ttl, certificate, key } => {
                ensure!(ttl <= MAX_PROXY_TTL, "a proxy's certificate lives at most 398 days");
                let authorities = authority::open(&store.authorities().await?, key_file)?;
                let life = time::Duration::try_from(ttl)?;
                let pair = KeyPair::generate().context("make a key")?;
                let leaf = authorities.server.issue_server(&names, &pair, life, now)?;
                write_secret(pair.serialize_pem().trim_end(), Some(&key))?;
                let server = &authorities.server;
                let chain = leaf.pem() + &server.certificate_pem + &server.bridge_pem;
                std::fs::write(&certificate, chain)
                    .with_context(|| format!("write {}", certificate.display()))
            }
        }
    }
}

async fn list(store: &Store) -> anyhow::Result<()> {
    let mut lines =
        vec![["ID", "PURPOSE", "STATE", "SINCE", "EXPIRES", "HOSTS"].map(String::from).to_vec()];
    for authority in rotation::status(store).await? {
        lines.push(vec![
            authority.authority_id.to_string(),
            authority.purpose,
            authority.state,
            rfc3339(authority.state_changed_at)?,
            rfc3339(authority.not_after)?,
            authority.hosts.to_string(),
        ]);
    }
    print_table(&lines)
}
