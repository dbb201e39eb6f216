//! `tokens`: enrolment tokens.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::{parse_label, parse_ttl};
use super::door::{Paging, Via};
use super::output::give_secret;
use super::table::{Column, Output, print_page};
use crate::auth::join_token::{self, TokenRequest};
use crate::authority;
use crate::config::Config;
use crate::store::Store;
use crate::store::audit::Actor;

const COLUMNS: &[Column] = &[
    ("ID", "/token_id"),
    ("USES", "/uses"),
    ("MOST", "/max_uses"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
    ("APPROVAL", "/approval_needed"),
    ("NAME", "/name"),
];

/// `tokens`
#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// Make a token and print it, once.
    Create {
        /// What to call it: which hosts it is for.
        #[arg(long)]
        name: String,
        /// Most hosts it lets in. Without it: as many as come before it expires.
        #[arg(long)]
        max_uses: Option<u32>,
        /// Life, such as 30m, 24h or 7d; at most 90d.
        #[arg(long, default_value = "24h", value_parser = parse_ttl)]
        ttl: Duration,
        /// Hosts wait for an operator's approval before their reports are taken.
        #[arg(long)]
        approval: bool,
        /// A label that its hosts begin with, as name=value; again for more.
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
        label: Vec<(String, String)>,
        /// Its hosts come and go: they wake nobody, and are decommissioned when they are gone.
        #[arg(long)]
        ephemeral: bool,
        /// A machine that enrols again is its silent or stopped host again, with its history.
        #[arg(long)]
        same_machine: bool,
        /// Write the token to this file (mode 0600) instead of stdout.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List the tokens, without their secrets.
    List(#[command(flatten)] Paging),
    /// Let nobody else in by a token. Hosts that are in stay.
    Revoke {
        /// Its id, as `list` shows it.
        id: Uuid,
    },
}

impl TokensCommand {
    /// Does it.
    pub(super) async fn run(self, via: &Via, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Create {
                name,
                max_uses,
                ttl,
                approval,
                label,
                ephemeral,
                same_machine,
                secret_file,
            } => {
                let labels = label.into_iter().collect();
                let request = TokenRequest {
                    name,
                    ttl,
                    max_uses,
                    approval_needed: approval,
                    labels,
                    ephemeral,
                    same_machine,
                };
                let made = create(via, &request).await?;
                tracing::info!(token.id = %made["token_id"], "enrolment token made");
                if let Some(command) = made["install_command"].as_str() {
                    // Not on stdout: the token is the only line there.
                    writeln!(io::stderr(), "on a host, where it asks for the token:\n{command}")?;
                }
                give_secret(made, "paste", secret_file.as_deref(), output)
            }
            Self::List(paging) => print_page(&list(via, &paging).await?, COLUMNS, output),
            Self::Revoke { id } => revoke(via, id).await,
        }
    }
}

async fn create(via: &Via, request: &TokenRequest) -> anyhow::Result<Value> {
    match via {
        Via::Rest(client) => {
            let mut body = json!({ "name": request.name, "ttl_s": request.ttl.as_secs(),
                "approval_needed": request.approval_needed, "labels": request.labels,
                "ephemeral": request.ephemeral, "same_machine": request.same_machine });
            if let Some(max_uses) = request.max_uses {
                body["max_uses"] = json!(max_uses);
            }
            let path = ["enrollment-tokens"];
            Ok(client.send(Method::POST, &path, Some(&body), None).await?.body)
        }
        Via::Direct(store, config) => {
            let token =
                join_token::create(store, config.endpoints(), request, &Actor::cli()).await?;
            let command = install_command(store, config).await?;
            let paste = token.to_paste();
            Ok(json!({ "token_id": token.id, "paste": paste, "install_command": command }))
        }
    }
}

/// As a server says it.
async fn install_command(store: &Store, config: &Config) -> anyhow::Result<Option<String>> {
    let Some(url) = config.install_url() else { return Ok(None) };
    let authorities = authority::open(&store.authorities().await?, &config.ca_key_file)?;
    Ok(join_token::install_command(&url, authorities.server.door_pin().as_deref()))
}

async fn list(via: &Via, paging: &Paging) -> anyhow::Result<Value> {
    match via {
        Via::Rest(client) => paging.all(client, &["enrollment-tokens"], &[]).await,
        Via::Direct(store, _) => {
            let more = i64::from(paging.limit) + 1;
            let rows = store.enrollment_tokens(paging.after_id()?, more).await?;
            let rows = rows.into_iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            Ok(paging.cut(rows, "token_id"))
        }
    }
}

async fn revoke(via: &Via, id: Uuid) -> anyhow::Result<()> {
    match via {
        Via::Rest(client) => {
            let path = ["enrollment-tokens", &id.to_string()];
            client.send(Method::DELETE, &path, None, None).await?;
        }
        Via::Direct(store, _) => anyhow::ensure!(
            store.revoke_enrollment_token(id, &Actor::cli()).await?,
            "there is no enrolment token {id}"
        ),
    }
    tracing::info!(token.id = %id, "revoked");
    Ok(())
}
