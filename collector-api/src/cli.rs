//! The command line. Secrets are printed to stdout or written to a file of mode 0600; they are never
//! taken from an argument, where every process of the machine could read them.
//!
//! One word for each thing. `hosts`, `tokens`, `api-keys`, `audit` and `profiles` ask a running server over REST,
//! with an API key and its role; `--direct` on `tokens` and `api-keys` asks the database instead, as the
//! commands that run the server itself do.

pub mod api_keys;
pub mod arguments;
pub mod audit;
pub mod authority;
pub mod client;
pub mod doctor;
pub mod door;
pub mod hosts;
pub mod manual;
pub mod output;
pub mod profiles;
mod release;
mod rollout;
pub mod table;
pub mod tokens;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use clap_complete::Shell;
use time::OffsetDateTime;

use self::door::{Direct, Door};
use self::table::Output;
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::store::Store;
use crate::{app, authority as authorities, document, metrics};

/// Variable with an API key, for commands that ask a running server.
const API_KEY_VARIABLE: &str = "PROCFLEET_API_KEY";

/// The stateless tier between agents and TimescaleDB.
///
/// `hosts`, `tokens`, `api-keys`, `profiles` and `audit` ask a running server over REST, with an API key.
/// All other commands, and `tokens --direct` and `api-keys --direct`, work on the database by the server's own
/// configuration and need no key.
#[derive(Debug, Parser)]
#[command(name = "procfleet-server", version, after_help = EXITS)]
pub struct Cli {
    /// Configuration file, TOML. Every key can also be set as `PROCFLEET_<KEY>`, such as
    /// `PROCFLEET_DATABASE_URL` or `PROCFLEET_AGENT_DOOR__LISTEN`.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How the program ends.
const EXITS: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the server refused, and will again; \
                     4 no server answered, or it cannot now: try again.";

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
    /// Hosts: list, show, approve, quarantine, decommission, label. Asks a running server.
    Hosts {
        /// Whom to ask.
        #[command(flatten)]
        door: Door,
        /// What to do.
        #[command(subcommand)]
        command: hosts::HostsCommand,
    },
    /// Enrolment tokens: what a host shows once to get its identity. Asks a running server, or the database.
    Tokens {
        /// Whom to ask.
        #[command(flatten)]
        door: Door,
        /// Or whom else.
        #[command(flatten)]
        direct: Direct,
        /// What to do.
        #[command(subcommand)]
        command: tokens::TokensCommand,
    },
    /// Operators' API keys. Asks a running server, or the database.
    ApiKeys {
        /// Whom to ask.
        #[command(flatten)]
        door: Door,
        /// Or whom else.
        #[command(flatten)]
        direct: Direct,
        /// What to do.
        #[command(subcommand)]
        command: api_keys::ApiKeysCommand,
    },
    /// What agents are to use, by label selector or for one host. Asks a running server.
    Profiles {
        /// Whom to ask.
        #[command(flatten)]
        door: Door,
        /// What to do.
        #[command(subcommand)]
        command: profiles::ProfilesCommand,
    },
    /// Who changed what. Asks a running server.
    Audit {
        /// Whom to ask.
        #[command(flatten)]
        door: Door,
        /// What to do.
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Releases of the agent: keys, signatures, the mirror that hosts install from, and how
    /// they get to the fleet.
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    /// Look at the database, clocks, certificates, doors and versions, and say what to do. Fails if anything does.
    Doctor {
        /// Columns, or JSON.
        #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Print a script that completes this program's words, for the shell to load.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual's pages, for those who make packages.
    #[command(hide = true)]
    Man {
        /// Where to; exists.
        directory: PathBuf,
    },
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
        let environment: Vec<_> = environment.collect();
        let key = environment.iter().find(|(name, _)| name == API_KEY_VARIABLE);
        let key = key.map(|(_, key)| key.clone());
        let config = || Config::load(self.config.as_deref(), environment.into_iter());
        #[expect(clippy::disallowed_methods, reason = "the program's edge")]
        let now = OffsetDateTime::now_utc();
        match self.command {
            Command::Hosts { door, command } => command.run(&door.client(key)?, door.output).await,
            Command::Profiles { door, command } => {
                command.run(&door.client(key)?, door.output).await
            }
            Command::Audit { door, command } => command.run(&door.client(key)?, door.output).await,
            Command::Tokens { door, direct, command } => {
                command.run(&door.via(&direct, config, key).await?, door.output).await
            }
            Command::ApiKeys { door, direct, command } => {
                command.run(&door.via(&direct, config, key).await?, door.output, now).await
            }
            Command::Doctor { output } =>
            {
                #[expect(clippy::disallowed_methods, reason = "the program's edge")]
                doctor::run(config(), output, OffsetDateTime::now_utc).await
            }
            Command::Release(command) => command.run(config, now).await,
            Command::Openapi => table::print(&document::yaml()),
            Command::Completions { shell } => manual::complete(shell),
            Command::Man { directory } => manual::man(&directory),
            Command::Serve { migrate, init } => {
                serve(&config()?, app::Prepare { migrate, init }).await
            }
            Command::Migrate => {
                connect(&config()?).await?.migrate().await?;
                tracing::info!("the database schema is up to date");
                Ok(())
            }
            Command::Init => initialise(&config()?, now).await,
            Command::Authority(command) => {
                let config = config()?;
                command.run(&connect(&config).await?, &config.ca_key_file, now).await
            }
        }
    }
}

/// How the program ends after an error: 3 and 4 for [`client::ClientError`]s, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<hosts::Refused>() {
        return 3;
    }
    error.downcast_ref().map_or(1, client::ClientError::exit_code)
}

async fn initialise(config: &Config, now: OffsetDateTime) -> anyhow::Result<()> {
    let store = connect(config).await?;
    store.check_schema().await?;
    authorities::init(&store, &config.ca_key_file, now).await?;
    tracing::info!(ca_key_file = %config.ca_key_file.display(), "the certificate authorities are ready");
    Ok(())
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
