//! Whom a command asks: a running server, over REST as any other client, or the database itself (`--direct`),
//! for the first key and for when no server answers.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::Url;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Target};
use super::table::Output;
use crate::config::{Config, ConfigError};
use crate::store::Store;

/// Most rows of one answer.
const MAX_PAGE: u32 = 1000;

/// Where the operator door is, who asks, and how the answer is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Operator door")]
pub struct Door {
    /// The operator door's address.
    #[arg(
        long,
        global = true,
        env = "PROCFLEET_URL",
        default_value = "http://127.0.0.1:7080",
        value_name = "URL"
    )]
    url: Url,
    /// File with an API key, readable by nobody else. Without it: the variable `PROCFLEET_API_KEY`.
    #[arg(long, global = true, env = "PROCFLEET_API_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's.
    #[arg(long, global = true, env = "PROCFLEET_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send the key to another machine without TLS.
    #[arg(long, global = true)]
    plain_http: bool,
    /// Columns, or what the server said.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// Ask the database, not a server.
#[derive(Debug, Args)]
pub struct Direct {
    /// On the database itself, by the server's own configuration and without an API key: for the first key, and
    /// for when no server answers.
    #[arg(long, global = true)]
    pub direct: bool,
}

/// How much of a list.
#[derive(Debug, Args)]
pub struct Paging {
    /// Most rows; pages are followed to there.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// `next` of a list that was cut.
    #[arg(long, value_name = "NEXT")]
    pub after: Option<String>,
}

/// Whom to ask.
pub enum Via {
    /// A running server.
    Rest(Client),
    /// The database, by this configuration.
    Direct(Store, Box<Config>),
}

impl Door {
    /// Asks a running server. `key`: of the environment.
    pub fn client(&self, key: Option<String>) -> anyhow::Result<Client> {
        let target = Target {
            url: self.url.clone(),
            key_file: self.key_file.clone(),
            ca_file: self.ca_file.clone(),
            plain_http: self.plain_http,
        };
        Ok(Client::new(&target, key)?)
    }

    /// Asks a running server, or the database.
    pub async fn via(
        &self,
        direct: &Direct,
        config: impl FnOnce() -> Result<Config, ConfigError>,
        key: Option<String>,
    ) -> anyhow::Result<Via> {
        if direct.direct {
            let config = config()?;
            return Ok(Via::Direct(super::connect(&config).await?, Box::new(config)));
        }
        Ok(Via::Rest(self.client(key)?))
    }
}

impl Paging {
    /// Follows the pages of a list, and says on stderr if there is more.
    pub async fn all(
        &self,
        client: &Client,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        let mut items: Vec<Value> = Vec::new();
        let mut next = self.after.clone();
        loop {
            let left = self.limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
            let size = left.min(MAX_PAGE).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &size));
            query.extend(next.as_deref().map(|next| ("after", next)));
            let mut page = client.get(path, &query).await?.body;
            let rows = page["items"].as_array_mut().context("the answer is no list")?;
            let got = rows.len();
            items.append(rows);
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() || got == 0 || items.len() >= self.limit as usize {
                break;
            }
        }
        if let Some(next) = &next {
            tracing::warn!("there is more: --limit for more rows, --after {next} to go on");
        }
        Ok(json!({ "items": items, "next": next }))
    }

    /// A list of the database's own, of which one row more than [`Paging::limit`] was asked for.
    pub fn cut(&self, mut items: Vec<Value>, id: &str) -> Value {
        let more = items.len() > self.limit as usize;
        items.truncate(self.limit as usize);
        let next = items.last().filter(|_| more).map(|last| last[id].clone());
        if let Some(next) = next.as_ref().and_then(Value::as_str) {
            tracing::warn!("there is more: --limit for more rows, --after {next} to go on");
        }
        json!({ "items": items, "next": next })
    }

    /// Where a list of secrets begins.
    pub fn after_id(&self) -> anyhow::Result<Option<Uuid>> {
        self.after.as_deref().map(Uuid::try_parse).transpose().context("--after is no id")
    }
}
