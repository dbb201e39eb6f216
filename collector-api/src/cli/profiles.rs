//! `profiles`: what agents are to use. A change that reaches hosts by a selector is only shown until `--yes`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::table::{Column, Output, cell, print_json, print_object, print_page, print_table};

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("PRIORITY", "/priority"),
    ("SELECTOR", "/selector"),
    ("VERSION", "/version"),
    ("UPDATED", "/updated_at"),
    ("ID", "/profile_id"),
    ("CONFIGURATION", "/configuration"),
];

/// Longest configuration read, bytes.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// `profiles`
#[derive(Debug, Subcommand)]
pub enum ProfilesCommand {
    /// List profiles, the one that prevails last.
    List,
    /// Show one profile.
    Show {
        /// Its name or id.
        profile: String,
    },
    /// Make a profile, or change one: shows which hosts would change, and how.
    Set {
        /// Its name; the name or id of one that there is.
        profile: String,
        /// The hosts with these labels. Not said: as it was; every host, if it is new.
        #[arg(long)]
        selector: Option<String>,
        /// Every host.
        #[arg(long, conflicts_with = "selector")]
        all_hosts: bool,
        /// Of two profiles that set the same key, the one with the greater priority prevails.
        #[arg(long, allow_hyphen_values = true)]
        priority: Option<i32>,
        /// The keys it sets, JSON; `-`: from stdin. Not said: as they were.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Remove a profile: shows which hosts would change, and how.
    Delete {
        /// Its name or id.
        profile: String,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Show what is in force for a host, and who set each key.
    Explain {
        /// The host's id or name.
        host: String,
    },
    /// Set what one host alone is to use, or take it back.
    Override {
        /// The host's id or name.
        host: String,
        /// The keys, JSON; `-`: from stdin.
        #[arg(long, value_name = "FILE", required_unless_present = "clear")]
        file: Option<PathBuf>,
        /// Profiles decide again.
        #[arg(long, conflicts_with = "file")]
        clear: bool,
    },
}

impl ProfilesCommand {
    /// Does it.
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List => print_page(&client.get(&["profiles"], &[]).await?.body, COLUMNS, output),
            Self::Show { profile } => print_object(&known(client, &profile).await?.body, output),
            Self::Set { profile, selector, all_hosts, priority, file, yes } => {
                let known = find(client, &profile).await?;
                let mut body = match &known {
                    Some(known) => writable(&known.body),
                    None => json!({ "name": profile, "selector": null, "priority": 0,
                        "configuration": {} }),
                };
                anyhow::ensure!(
                    known.is_some() || file.is_some(),
                    "there is no profile {profile:?}: --file says what a new one sets"
                );
                if all_hosts || selector.is_some() {
                    body["selector"] = json!(selector);
                }
                if let Some(priority) = priority {
                    body["priority"] = json!(priority);
                }
                if let Some(file) = file {
                    body["configuration"] = read(&file)?;
                }
                set(client, known.as_ref(), &body, yes, output).await
            }
            Self::Delete { profile, yes } => {
                let known = known(client, &profile).await?;
                if !yes {
                    let id = &known.body["profile_id"];
                    return preview(client, &json!({ "profile_id": id }), output).await;
                }
                let path = ["profiles", id_of(&known)?];
                client.send(Method::DELETE, &path, None, known.etag.as_deref()).await?;
                tracing::info!("removed");
                Ok(())
            }
            Self::Explain { host } => {
                explain(&client.get(&["hosts", &host, "configuration"], &[]).await?.body, output)
            }
            Self::Override { host, file, .. } => {
                let path = ["hosts", &host, "configuration"];
                let etag = client.get(&path, &[]).await?.etag;
                match file {
                    Some(file) => {
                        let body = json!({ "configuration": read(&file)? });
                        client.send(Method::PUT, &path, Some(&body), etag.as_deref()).await?
                    }
                    None => client.send(Method::DELETE, &path, None, etag.as_deref()).await?,
                };
                tracing::info!("done");
                Ok(())
            }
        }
    }
}

/// The profile that is meant, with its tag.
async fn find(client: &Client, profile: &str) -> anyhow::Result<Option<Answer>> {
    let all = client.get(&["profiles"], &[]).await?.body;
    let is_meant = |item: &&Value| item["name"] == profile || item["profile_id"] == profile;
    let meant = all["items"].as_array().into_iter().flatten().find(is_meant);
    match meant.and_then(|meant| meant["profile_id"].as_str()) {
        Some(id) => Ok(Some(client.get(&["profiles", id], &[]).await?)),
        None => Ok(None),
    }
}

async fn known(client: &Client, profile: &str) -> anyhow::Result<Answer> {
    find(client, profile).await?.with_context(|| format!("there is no profile {profile:?}"))
}

fn id_of(profile: &Answer) -> anyhow::Result<&str> {
    profile.body["profile_id"].as_str().context("the answer is no profile")
}

/// What of a profile can be written.
fn writable(profile: &Value) -> Value {
    let fields = ["name", "selector", "priority", "configuration"];
    fields.into_iter().map(|field| (field.to_owned(), profile[field].clone())).collect()
}

async fn set(
    client: &Client,
    known: Option<&Answer>,
    body: &Value,
    yes: bool,
    output: Output,
) -> anyhow::Result<()> {
    if !yes {
        let id = known.map(|known| &known.body["profile_id"]);
        return preview(client, &json!({ "profile_id": id, "profile": body }), output).await;
    }
    let Some(known) = known else {
        let made = client.send(Method::POST, &["profiles"], Some(body), None).await?;
        return print_object(&made.body, output);
    };
    let path = ["profiles", id_of(known)?];
    let now = client.send(Method::PUT, &path, Some(body), known.etag.as_deref()).await?;
    print_object(&now.body, output)
}

async fn preview(client: &Client, body: &Value, output: Output) -> anyhow::Result<()> {
    let path = ["profiles", "preview"];
    let preview = client.send(Method::POST, &path, Some(body), None).await?.body;
    if output == Output::Json {
        print_json(&preview)?;
    } else {
        let mut lines = vec![["HOST", "KEY", "FROM", "TO"].map(str::to_owned).to_vec()];
        for host in preview["items"].as_array().into_iter().flatten() {
            for change in host["changes"].as_array().into_iter().flatten() {
                let cells = [&host["host_name"], &change["key"], &change["from"], &change["to"]];
                lines.push(cells.map(|value| cell(Some(value))).to_vec());
            }
        }
        print_table(&lines)?;
    }
    let (changed, examined) = (&preview["changed"], &preview["examined"]);
    let more = if preview["truncated"] == true { " of those looked at" } else { "" };
    tracing::info!("{changed} of {examined} hosts{more} would change: --yes to do it");
    Ok(())
}

fn explain(host: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(host);
    }
    let mut lines = vec![["KEY", "VALUE", "SET BY"].map(str::to_owned).to_vec()];
    for (key, origin) in host["origins"].as_object().into_iter().flatten() {
        let value = host["configuration"].pointer(&format!("/{}", key.replace('.', "/")));
        let name = origin["name"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
        let by = format!("{}{name}", cell(origin.get("kind")));
        lines.push(vec![key.clone(), cell(value), cell(Some(&json!(by)))]);
    }
    print_table(&lines)?;
    let says = match &host["in_force"] {
        Value::Bool(true) => "the agent works by it",
        Value::Bool(false) => "the agent does not work by it: see `status` with --output json",
        _ => "the agent has not said anything yet",
    };
    tracing::info!("{says}");
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let shown = file.display();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {shown}"))?)
    };
    let mut text = String::new();
    let mut bounded = source.take(MAX_CONFIGURATION_BYTES);
    bounded.read_to_string(&mut text).with_context(|| format!("cannot read {shown}"))?;
    serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"))
}
