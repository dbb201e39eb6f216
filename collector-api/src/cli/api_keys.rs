//! `api-keys`: operators' keys.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::arguments::parse_ttl;
use super::door::{Paging, Via};
use super::output::give_secret;
use super::table::{Column, Output, print_page, rfc3339};
use crate::auth::join_token::{MAX_NAME_BYTES, is_name};
use crate::auth::operator::{MintedApiKey, Rights, Role, Scope};
use crate::store::audit::Actor;

const COLUMNS: &[Column] = &[
    ("ID", "/api_key_id"),
    ("ROLE", "/role"),
    ("SCOPES", "/scopes"),
    ("LAST USED", "/last_used_at"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
    ("NAME", "/name"),
];

/// `api-keys`
#[derive(Debug, Subcommand)]
pub enum ApiKeysCommand {
    /// Make a key and print it, once.
    Create {
        /// What to call it: who or what will use it.
        #[arg(long)]
        name: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Role,
        /// Of the role's scopes only this, such as alerts:write; again for more. Without it: all.
        #[arg(long)]
        scope: Vec<Scope>,
        /// Life, such as 24h or 90d. Without it: until it is revoked.
        #[arg(long, value_parser = parse_ttl)]
        ttl: Option<Duration>,
        /// Write the key to this file (mode 0600) instead of stdout.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List the keys, without their secrets.
    List(#[command(flatten)] Paging),
    /// End a key.
    Revoke {
        /// Its id, as `list` shows it.
        id: Uuid,
    },
}

/// A key to be made.
struct Request {
    name: String,
    rights: Rights,
    expires_at: Option<OffsetDateTime>,
}

impl ApiKeysCommand {
    /// Does it.
    pub(super) async fn run(
        self,
        via: &Via,
        output: Output,
        now: OffsetDateTime,
    ) -> anyhow::Result<()> {
        match self {
            Self::Create { name, role, scope, ttl, secret_file } => {
                let end = |ttl| now.checked_add(time::Duration::try_from(ttl).ok()?);
                let expires_at =
                    ttl.map(|ttl| end(ttl).context("--ttl is too long")).transpose()?;
                let scopes = (!scope.is_empty()).then_some(scope);
                let rights = Rights { role, scopes };
                let made = create(via, Request { name, rights, expires_at }).await?;
                tracing::info!(api_key.id = %made["api_key_id"], "API key made");
                give_secret(made, "key", secret_file.as_deref(), output)
            }
            Self::List(paging) => print_page(&list(via, &paging).await?, COLUMNS, output),
            Self::Revoke { id } => revoke(via, id).await,
        }
    }
}

async fn create(via: &Via, request: Request) -> anyhow::Result<Value> {
    let Request { name, rights, expires_at } = request;
    match via {
        Via::Rest(client) => {
            let mut body = json!({ "name": name, "role": rights.role });
            if let Some(scopes) = &rights.scopes {
                body["scopes"] = json!(scopes);
            }
            if let Some(expires_at) = expires_at {
                body["expires_at"] = json!(rfc3339(expires_at)?);
            }
            Ok(client.send(Method::POST, &["api-keys"], Some(&body), None).await?.body)
        }
        Via::Direct(store, _) => {
            anyhow::ensure!(
                is_name(&name),
                "a name has 1 to {MAX_NAME_BYTES} bytes and no control characters"
            );
            rights.check()?;
            let mut random = [0; 48];
            getrandom::fill(&mut random).context("the system gave no random bytes")?;
            let mut minted = MintedApiKey::from_random(random, name, rights.role, expires_at);
            minted.new.rights = rights;
            let made = store.create_api_key(&minted.new, &Actor::cli()).await?;
            let mut made = serde_json::to_value(made)?;
            made["key"] = json!(minted.to_paste());
            Ok(made)
        }
    }
}

async fn list(via: &Via, paging: &Paging) -> anyhow::Result<Value> {
    match via {
        Via::Rest(client) => paging.all(client, &["api-keys"], &[]).await,
        Via::Direct(store, _) => {
            let more = i64::from(paging.limit) + 1;
            let rows = store.list_api_keys(paging.after_id()?, more).await?;
            let rows = rows.into_iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            Ok(paging.cut(rows, "api_key_id"))
        }
    }
}

async fn revoke(via: &Via, id: Uuid) -> anyhow::Result<()> {
    match via {
        Via::Rest(client) => {
            client.send(Method::DELETE, &["api-keys", &id.to_string()], None, None).await?;
        }
        Via::Direct(store, _) => anyhow::ensure!(
            store.revoke_api_key(id, &Actor::cli()).await?,
            "there is no API key {id}"
        ),
    }
    tracing::info!(api_key.id = %id, "revoked");
    Ok(())
}
