//! `release rollout`: how a release gets to the fleet, on the database itself.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::arguments::parse_ttl;
use super::table::{Column, Output, print_object, print_page};
use crate::store::Store;
use crate::store::audit::Actor;
use crate::store::rollouts::changes::{NewRollout, RolloutChange, RolloutChanged, check_seq};
use crate::store::rollouts::questions::RolloutRow;

const COLUMNS: &[Column] = &[
    ("ID", "/rollout_id"),
    ("RELEASE", "/target_seq"),
    ("STATE", "/state"),
    ("PERCENT", "/percent"),
    ("STARTED", "/hosts_started"),
    ("CONFIRMED", "/hosts_confirmed"),
    ("ROLLED BACK", "/hosts_rolled_back"),
    ("FAILED", "/hosts_failed"),
    ("LOST", "/hosts_lost"),
    ("REASON", "/reason"),
];
const HOSTS: &[Column] = &[
    ("HOST", "/host_name"),
    ("ID", "/host_id"),
    ("CANARY", "/is_canary"),
    ("STARTED", "/started_at"),
    ("OUTCOME", "/outcome"),
    ("STATE", "/state"),
    ("RELEASE", "/installed_seq"),
    ("REASON", "/reason"),
];

/// Which rollout.
#[derive(Clone, Copy, Debug, Args)]
pub struct Which {
    /// Its id, as `list` shows it. Without it: the newest.
    id: Option<Uuid>,
}

/// `release rollout`
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Begin: a few hosts first, then 1, 10, 50 and 100 % of the fleet. Prints the rollout's id.
    Start {
        /// The release's number; it must be in every server's mirror.
        #[arg(long)]
        seq: i64,
        /// How many hosts try it first, at most 100.
        #[arg(long, default_value_t = 5)]
        canaries: i32,
        /// Which hosts these may be, by their labels, such as env=test. Without it: any.
        #[arg(long, value_name = "SELECTOR")]
        canary_selector: Option<String>,
        /// Most hosts under way at once.
        #[arg(long, default_value_t = 100)]
        max_in_flight: i32,
        /// How long each step is looked at before the next, at most 7d.
        #[arg(long, default_value = "30m", value_parser = parse_ttl)]
        soak: Duration,
    },
    /// List rollouts, the newest first.
    List {
        /// Columns, or JSON.
        #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// Print a rollout and its hosts, those with trouble first.
    Show {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Columns, or JSON.
        #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// Start nobody until it is resumed. Hosts under way go on.
    Pause(#[command(flatten)] Which),
    /// Go on where it was.
    Resume(#[command(flatten)] Which),
    /// Do not wait for the end of this step's soak. What halts it still does.
    Advance(#[command(flatten)] Which),
    /// End it for good. Hosts that run the release keep it.
    Cancel(#[command(flatten)] Which),
    /// Decide which release one host runs, whatever is rolled out.
    Pin {
        /// The host's id, as `hosts list` shows it.
        host: Uuid,
        /// The release's number.
        seq: i64,
    },
    /// Let rollouts decide again which release a host runs.
    Unpin {
        /// The host's id, as `hosts list` shows it.
        host: Uuid,
    },
}

impl RolloutCommand {
    /// Does it.
    pub(super) async fn run(self, store: &Store) -> anyhow::Result<()> {
        match self {
            Self::Start { seq, canaries, canary_selector, max_in_flight, soak } => {
                let soak_s = i32::try_from(soak.as_secs()).unwrap_or(i32::MAX);
                let new = NewRollout::new(seq, canaries, canary_selector, max_in_flight, soak_s)?;
                let made = store.create_rollout(&new, &Actor::cli()).await?;
                ensure!(made, "another rollout is open: wait for its end, or cancel it");
                super::table::print(&format!("{}\n", new.rollout_id))
            }
            Self::List { output } => {
                let rollouts = store.rollouts(None).await?;
                print_page(&json!({ "items": rollouts, "next": null }), COLUMNS, output)
            }
            Self::Show { which, output } => show(store, which, output).await,
            Self::Pause(which) => change(store, which, RolloutChange::Pause).await,
            Self::Resume(which) => change(store, which, RolloutChange::Resume).await,
            Self::Advance(which) => change(store, which, RolloutChange::Advance).await,
            Self::Cancel(which) => change(store, which, RolloutChange::Cancel).await,
            Self::Pin { host, seq } => {
                check_seq("the release", seq)?;
                pin(store, host, Some(seq)).await
            }
            Self::Unpin { host } => pin(store, host, None).await,
        }
    }
}

async fn find(store: &Store, which: Which) -> anyhow::Result<RolloutRow> {
    let found = store.rollouts(which.id).await?.into_iter().next();
    found.with_context(|| match which.id {
        Some(id) => format!("there is no rollout {id}"),
        None => "there is no rollout: begin one with `release rollout start`".into(),
    })
}

async fn show(store: &Store, which: Which, output: Output) -> anyhow::Result<()> {
    let rollout = find(store, which).await?;
    let hosts = store.rollout_hosts(rollout.rollout_id).await?;
    let mut object = serde_json::to_value(rollout)?;
    if output == Output::Json {
        object["hosts"] = serde_json::to_value(hosts)?;
        return print_object(&object, output);
    }
    print_object(&object, output)?;
    super::table::print("\n")?;
    print_page(&json!({ "items": hosts }), HOSTS, output)
}

async fn change(store: &Store, which: Which, change: RolloutChange) -> anyhow::Result<()> {
    let id = find(store, which).await?.rollout_id;
    match store.change_rollout(id, change, &Actor::cli()).await? {
        RolloutChanged::Done => {}
        RolloutChanged::NoRollout => bail!("there is no rollout {id}"),
        RolloutChanged::NotNow(state) => {
            bail!("the rollout {id} is {}: that cannot be done with it", state.as_str())
        }
    }
    tracing::info!(rollout = %id, "done");
    Ok(())
}

async fn pin(store: &Store, host: Uuid, seq: Option<i64>) -> anyhow::Result<()> {
    let found = store.pin_release(host, seq, &Actor::cli()).await?;
    ensure!(found, "there is no host {host}");
    tracing::info!(host = %host, release = seq, "done");
    Ok(())
}
