//! `token` and `api-key`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::output::write_secret;
use crate::auth::join_token::{self, TokenRequest};
use crate::auth::operator::{MintedApiKey, Role};
use crate::store::Store;
use crate::store::audit::Actor;

/// Most rows listed.
const LIST_LIMIT: i64 = 1000;

/// `token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, once.
    Create {
        /// What to call it.
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
        /// Write the token to this file (mode 0600) instead of stdout.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List the tokens, without their secrets.
    List,
    /// Let nobody else in by a token. Hosts that are in stay.
    Revoke {
        /// Its id, as `list` shows it.
        id: Uuid,
    },
}

/// `api-key`
#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key and print it, once.
    Create {
        /// What to call it: who or what will use it.
        #[arg(long)]
        name: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Role,
        /// Write the key to this file (mode 0600) instead of stdout.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List the keys, without their secrets.
    List,
    /// End a key.
    Revoke {
        /// Its id, as `list` shows it.
        id: Uuid,
    },
}

impl TokenCommand {
    /// Does it.
    pub(super) async fn run(self, store: &Store, endpoints: Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Create { name, max_uses, ttl, approval, output } => {
                let request = TokenRequest { name, ttl, max_uses, approval_needed: approval };
                let token = join_token::create(store, endpoints, &request, &Actor::cli()).await?;
                tracing::info!(token.id = %token.id, "enrolment token created");
                write_secret(&token.to_paste(), output.as_deref())
            }
            Self::List => {
                let mut lines = vec![["ID", "USES", "EXPIRES", "STATE", "NAME"].map(String::from)];
                for token in store.enrollment_tokens(None, LIST_LIMIT).await? {
                    let max = token.max_uses.map_or_else(|| "-".to_owned(), |max| max.to_string());
                    lines.push([
                        token.token_id.to_string(),
                        format!("{}/{max}", token.uses),
                        rfc3339(token.expires_at)?,
                        if token.revoked_at.is_some() { "revoked" } else { "-" }.to_owned(),
                        token.name,
                    ]);
                }
                print_table(&lines)
            }
            Self::Revoke { id } => {
                anyhow::ensure!(
                    store.revoke_enrollment_token(id, &Actor::cli()).await?,
                    "there is no enrolment token {id}"
                );
                Ok(())
            }
        }
    }
}

impl ApiKeyCommand {
    /// Does it.
    pub(super) async fn run(self, store: &Store) -> anyhow::Result<()> {
        match self {
            Self::Create { name, role, output } => {
                anyhow::ensure!(
                    join_token::is_name(&name),
                    "a name has 1 to {} bytes and no control characters",
                    join_token::MAX_NAME_BYTES
                );
                let mut random = [0; 48];
                getrandom::fill(&mut random).context("the system gave no random bytes")?;
                let minted = MintedApiKey::from_random(random, name, role, None);
                store.create_api_key(&minted.new, &Actor::cli()).await?;
                tracing::info!(api_key.id = %minted.new.api_key_id, "API key created");
                write_secret(&minted.to_paste(), output.as_deref())
            }
            Self::List => {
                let mut lines =
                    vec![["ID", "ROLE", "LAST USED", "STATE", "NAME"].map(String::from)];
                for key in store.list_api_keys(None, LIST_LIMIT).await? {
                    lines.push([
                        key.api_key_id.to_string(),
                        key.role.to_string(),
                        key.last_used_at.map_or_else(|| Ok("never".to_owned()), rfc3339)?,
                        if key.revoked_at.is_some() { "revoked" } else { "-" }.to_owned(),
                        key.name,
                    ]);
                }
                print_table(&lines)
            }
            Self::Revoke { id } => {
                anyhow::ensure!(
                    store.revoke_api_key(id, &Actor::cli()).await?,
                    "there is no API key {id}"
                );
                Ok(())
            }
        }
    }
}

pub(super) fn rfc3339(at: OffsetDateTime) -> anyhow::Result<String> {
    let whole = at.replace_nanosecond(0).context("zero is a nanosecond")?;
    whole.format(&Rfc3339).context("cannot write a time")
}

pub(super) fn print_table<const N: usize>(lines: &[[String; N]]) -> anyhow::Result<()> {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = io::stdout().lock();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).context("cannot write to stdout")?;
    }
    Ok(())
}

pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and a unit: 30m, 24h, 7d (s, m, h, d)".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_a_unit() {
        assert_eq!(parse_ttl("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(parse_ttl("30m"), Ok(Duration::from_mins(30)));
        for wrong in ["", "h", "5", "-1h", "1.5h", "1w", "99999999999999999999d", "5µ"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }
}
