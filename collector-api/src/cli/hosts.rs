//! `hosts`: which there are, and what operators decide about them.
//!
//! A change is for hosts that are named, or for all that a selector means. The latter is only shown until
//! `--yes` is said.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::parse_label;
use super::client::{Client, ClientError};
use super::door::Paging;
use super::table::{Column, Output, print_object, print_page};

const COLUMNS: &[Column] = &[
    ("HOST", "/host_name"),
    ("LIFECYCLE", "/lifecycle"),
    ("LIVENESS", "/liveness"),
    ("LAST SEEN", "/last_seen_at"),
    ("AGENT", "/agent_version"),
    ("ID", "/host_id"),
    ("LABELS", "/labels"),
];
const CHANGES: &[Column] =
    &[("HOST", "/host_name"), ("ID", "/host_id"), ("CHANGED", "/changed"), ("REFUSED", "/refused")];
const CERTIFICATES: &[Column] =
    &[("SERIAL", "/serial"), ("STATUS", "/status"), ("FROM", "/not_before"), ("TO", "/not_after")];

/// How often labels are read again when somebody else was faster.
const MAX_TRIES: usize = 5;

/// `hosts`
#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// List hosts, by name.
    List {
        /// Text that the name contains.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// Only hosts with these labels, such as `env=prod,role in (db, cache)`.
        #[arg(long)]
        selector: Option<String>,
        /// How much of it.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one host.
    Show {
        /// Its id or name.
        host: String,
    },
    /// List the certificates of a host.
    Certificates {
        /// Its id or name.
        host: String,
    },
    /// Take the reports of hosts that wait for approval, or that were quarantined.
    #[command(visible_alias = "release")]
    Approve(#[command(flatten)] Decision),
    /// Set hosts aside: they keep their identity and spool their reports.
    Quarantine(#[command(flatten)] Decision),
    /// End hosts for good. What was recorded of them stays until its retention.
    Decommission(#[command(flatten)] Decision),
    /// Change labels.
    Label {
        /// Whose.
        #[command(flatten)]
        which: Which,
        /// Give this label, `name=value`.
        #[arg(long = "set", value_name = "LABEL", value_parser = parse_label, required_unless_present = "remove")]
        set: Vec<(String, String)>,
        /// Take the label of this name.
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
    },
}

/// Which hosts.
#[derive(Debug, Args)]
pub struct Which {
    /// Ids or names.
    #[arg(value_name = "HOST", required_unless_present = "selector", conflicts_with = "selector")]
    hosts: Vec<String>,
    /// All hosts with these labels, at most 2,000: shows what would change.
    #[arg(long)]
    selector: Option<String>,
    /// Do it.
    #[arg(long, requires = "selector")]
    yes: bool,
}

/// Which hosts, and why.
#[derive(Debug, Args)]
pub struct Decision {
    #[command(flatten)]
    which: Which,
    /// Why: kept with the hosts and in the audit.
    #[arg(long)]
    reason: Option<String>,
}

impl HostsCommand {
    /// Does it.
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List { search, selector, paging } => {
                let mut query = Vec::new();
                query.extend(search.as_deref().map(|text| ("q", text)));
                query.extend(selector.as_deref().map(|selector| ("labels", selector)));
                print_page(&paging.all(client, &["hosts"], &query).await?, COLUMNS, output)
            }
            Self::Show { host } => {
                print_object(&client.get(&["hosts", &host], &[]).await?.body, output)
            }
            Self::Certificates { host } => {
                let page = client.get(&["hosts", &host, "certificates"], &[]).await?.body;
                print_page(&page, CERTIFICATES, output)
            }
            Self::Approve(decision) => decide(client, decision, "active", output).await,
            Self::Quarantine(decision) => decide(client, decision, "quarantined", output).await,
            Self::Decommission(decision) => {
                decide(client, decision, "decommissioned", output).await
            }
            Self::Label { which, set, remove } => {
                let edit = Edit { set: set.into_iter().collect(), remove };
                if let Some(selector) = &which.selector {
                    let body = json!({ "selector": selector, "set_labels": edit.set,
                        "remove_labels": edit.remove, "dry_run": !which.yes });
                    return bulk(client, &body, output).await;
                }
                let mut changes = Changes::default();
                for host in &which.hosts {
                    changes.note(host, label(client, host, &edit).await)?;
                }
                changes.show(output)
            }
        }
    }
}

async fn decide(
    client: &Client,
    decision: Decision,
    lifecycle: &str,
    output: Output,
) -> anyhow::Result<()> {
    let Decision { which, reason } = decision;
    if let Some(selector) = &which.selector {
        let body = json!({ "selector": selector, "lifecycle": lifecycle, "reason": reason,
            "dry_run": !which.yes });
        return bulk(client, &body, output).await;
    }
    let body = json!({ "lifecycle": lifecycle, "reason": reason });
    let mut changes = Changes::default();
    for host in &which.hosts {
        let path = ["hosts", host, "lifecycle"];
        let done = client.send(Method::PUT, &path, Some(&body), None).await;
        changes.note(host, done.map(|answer| answer.body))?;
    }
    changes.show(output)
}

async fn bulk(client: &Client, body: &Value, output: Output) -> anyhow::Result<()> {
    let done = client.send(Method::POST, &["hosts", "bulk"], Some(body), None).await?.body;
    print_page(&done, CHANGES, output)?;
    let (matched, changed) = (&done["matched"], &done["changed"]);
    if done["dry_run"] == true {
        tracing::info!("{matched} hosts match, {changed} would change: --yes to do it");
    } else {
        tracing::info!("{matched} hosts match, {changed} changed");
    }
    refusals(&done["items"])
}

/// An error if any of them was refused.
fn refusals(items: &Value) -> anyhow::Result<()> {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = items.iter().filter(|item| item["refused"].is_string()).count();
    anyhow::ensure!(refused == 0, Refused { refused, of: items.len() });
    Ok(())
}

/// Some of the hosts were not changed.
#[derive(Debug, thiserror::Error)]
#[error("{refused} of {of} hosts refused: see above")]
pub(super) struct Refused {
    refused: usize,
    of: usize,
}

/// What became of hosts that were named, in the form of a bulk change.
#[derive(Default)]
struct Changes(Vec<Value>);

impl Changes {
    fn note(&mut self, host: &str, done: Result<Value, ClientError>) -> anyhow::Result<()> {
        let item = match done {
            Ok(answer) => json!({ "host_name": host, "host_id": answer["host_id"],
                "changed": answer["changed"], "refused": null }),
            Err(error) if error.exit_code() == 3 => json!({ "host_name": host, "host_id": null,
                "changed": false, "refused": error.to_string() }),
            // The next one would fare no better.
            Err(error) => return Err(error.into()),
        };
        self.0.push(item);
        Ok(())
    }

    fn show(self, output: Output) -> anyhow::Result<()> {
        let page = json!({ "items": self.0 });
        print_page(&page, CHANGES, output)?;
        refusals(&page["items"])
    }
}

/// How labels are to change.
struct Edit {
    set: BTreeMap<String, String>,
    remove: Vec<String>,
}

/// Changes the labels of a host, whatever others do to them meanwhile.
async fn label(client: &Client, host: &str, edit: &Edit) -> Result<Value, ClientError> {
    let path = ["hosts", host, "labels"];
    let mut tries = 0;
    loop {
        tries += 1;
        let read = client.get(&path, &[]).await?;
        let before = &read.body["labels"];
        let mut labels = before.as_object().cloned().unwrap_or_default();
        labels.retain(|name, _| !edit.remove.contains(name));
        labels.extend(edit.set.iter().map(|(name, value)| (name.clone(), json!(value))));
        let changed = *before != Value::Object(labels.clone());
        let body = json!({ "labels": labels });
        match client.send(Method::PUT, &path, Some(&body), read.etag.as_deref()).await {
            Ok(_) => return Ok(json!({ "changed": changed })),
            Err(error) if error.is_stale() && tries < MAX_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}
