//! The command line. Secrets are printed to stdout or written to a file of mode 0600; they are never
//! taken from an argument, where every process of the machine could read them.

pub mod access;
pub mod authority;
pub mod output;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use time::OffsetDateTime;

use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::store::Store;
use crate::{app, authority as authorities, document, metrics};

/// The stateless tier between agents and TimescaleDB.
#[derive(Debug, Parser)]
#[command(name = "procfleet-server", version)]
pub struct Cli {
    /// Configuration file, TOML. Every key can also be set as `PROCFLEET_<KEY>`, such as
    /// `PROCFLEET_DATABASE_URL` or `PROCFLEET_AGENT_DOOR__LISTEN`.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve agents and operators until SIGTERM.
    Serve {
        /// Bring the database schema up to date first.
        #[arg(long)]
        migrate: bool,
        /// Make the certificate authorities and the key that seals them first, unless they exist. Replicas
        /// that start at once agree on one of each, if they share the key's file.
        #[arg(long)]
        init: bool,
    },
    /// Bring the database schema up to date.
    Migrate,
    /// Make the certificate authorities and the key that seals them, unless they exist.
    Init,
    /// The certificate authorities: list and replace them.
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// Enrolment tokens: what a host shows once to get its identity.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Operators' API keys.
    #[command(subcommand)]
    ApiKey(access::ApiKeyCommand),
    /// Print the OpenAPI document.
    Openapi,
}

impl Cli {
    /// Whether this is the long-running command.
    pub fn serves(&self) -> bool {
        matches!(self.command, Command::Serve { .. })
    }

    /// Does it.
    pub async fn run(
        self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<()> {
        let config = Config::load(self.config.as_deref(), environment)?;
        match self.command {
            Command::Serve { migrate, init } => {
                serve(&config, app::Prepare { migrate, init }).await
            }
            Command::Migrate => {
                connect(&config).await?.migrate().await?;
                tracing::info!("the database schema is up to date");
                Ok(())
            }
            Command::Init => {
                let store = connect(&config).await?;
                store.check_schema().await?;
                #[expect(clippy::disallowed_methods, reason = "the program's edge")]
                let now = OffsetDateTime::now_utc();
                authorities::init(&store, &config.ca_key_file, now).await?;
                tracing::info!(ca_key_file = %config.ca_key_file.display(), "the certificate authorities are ready");
                Ok(())
            }
            Command::Authority(command) => {
                #[expect(clippy::disallowed_methods, reason = "the program's edge")]
                let now = OffsetDateTime::now_utc();
                command.run(&connect(&config).await?, &config.ca_key_file, now).await
            }
            Command::Token(command) => {
                command.run(&connect(&config).await?, config.endpoints()).await
            }
            Command::ApiKey(command) => command.run(&connect(&config).await?).await,
            Command::Openapi => {
                print!("{}", document::yaml());
                Ok(())
            }
        }
    }
}

async fn connect(config: &Config) -> anyhow::Result<Store> {
    let url = config.database_url()?;
    Store::connect(url.expose(), 2).await.with_context(|| format!("cannot use the database {url}"))
}

async fn serve(config: &Config, prepare: app::Prepare) -> anyhow::Result<()> {
    let lifecycle = Lifecycle::default();
    let signals = lifecycle.clone();
    let drain_delay = Duration::from_millis(config.drain_delay_ms);
    // Signals are heard from the beginning: also while the database is waited for.
    let stopped = signals.run(drain_delay);
    let mut stopped = std::pin::pin!(stopped);
    let started = app::start(config, &lifecycle, prepare, metrics::install());
    tokio::select! {
        biased;
        started = started => { started?; }
        stopped = stopped.as_mut() => return Ok(stopped?),
    }
    Ok(stopped.await?)
}
