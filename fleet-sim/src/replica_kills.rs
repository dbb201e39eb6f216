//! Three real replicas of which a random one is killed every second, while alerts begin and end: what
//! arrives at a receiver is compared with what was made here.
//!
//! Most alerts are opened and resolved by this process, in the product's own transactions, so that what
//! was committed is known whatever dies. Some are found by the replicas themselves: hosts whose deadlines
//! are over. A replica that dies keeps its lease of [`LEASE_S`]; with `age_leases` those of the dead are
//! ended as soon as no living replica can hold them any more, and the rest of the time is not waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use collector_api::store::notifications::LEASE_S;
use collector_api::store::silence::{NewAlert, open_alerts, resolve_alerts};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::eventually::eventually;
use crate::provider::ProviderStandIn;
use crate::random::Random;
use crate::server::{Deployment, Doors, ServerProcess};

const REPLICAS: usize = 3;
/// A kill a second, at one of these moments of it.
const STEPS: usize = 4;
const STEP: Duration = Duration::from_millis(250);
/// How long an alert lasts, in steps.
const LASTS: usize = 12;
/// Hosts of which some fall silent: fewer than what counts as a mass.
const HOSTS: i32 = 40;
const SILENT: usize = 8;
/// No attempt of a living replica lasts longer.
const ATTEMPT: Duration = Duration::from_secs(12);
/// For all that waits at the end; longer than a lease.
const END: Duration = Duration::from_mins(3);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// One a second.
    pub kills: usize,
    /// Alerts that begin and end.
    pub alerts: usize,
    /// See the module.
    pub age_leases: bool,
    /// Of the choice and the moment of who dies.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Begins and ends that were committed.
    pub transitions: usize,
    /// Replicas killed.
    pub kills: usize,
    /// Messages that arrived.
    pub messages: usize,
    /// Those that told something that had been told before.
    pub repeated: usize,
    /// Begins told together with their end, in one message.
    pub merged: usize,
    /// Transitions that no message told.
    pub lost: Vec<String>,
    /// Alerts of which the end was told before a message about the begin.
    pub disordered: Vec<String>,
}

struct Fleet<'a> {
    deployment: &'a Deployment,
    servers: Vec<ServerProcess>,
    connection: PgConnection,
    opened: Vec<Vec<Uuid>>,
    silent: Vec<String>,
}

/// Does all of it with replicas of `deployment`, of which none runs yet and whose database has no host.
pub async fn run(deployment: &mut Deployment, plan: &Plan) -> Result<Outcome> {
    let provider = ProviderStandIn::start(plan.seed).await?;
    let mut fleet = Fleet::start(deployment, &provider).await?;
    let mut random = Random::new(plan.seed);
    let mut pace = interval(STEP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let steps = plan.kills * STEPS;
    for second in 0..plan.kills {
        let moment = usize::try_from(random.below(STEPS as u64))?;
        for step in (0..STEPS).map(|part| second * STEPS + part) {
            pace.tick().await;
            fleet.step(plan.alerts * step / steps..plan.alerts * (step + 1) / steps).await?;
            if step % STEPS == moment {
                let victim = usize::try_from(random.below(REPLICAS as u64))?;
                let victim = &mut fleet.servers[victim];
                victim.kill()?;
                victim.restart(fleet.deployment)?;
            }
        }
        if second * SILENT / plan.kills >= fleet.silent.len() {
            fleet.fall_silent().await?;
        }
    }
    let last_kill = (Instant::now(), fleet.now().await?);
    for opened in fleet.opened.iter().rev().take(LASTS).rev() {
        resolve(&mut fleet.connection, opened).await?;
    }
    fleet.all_told(plan, last_kill).await?;
    let outcome = fleet.judge(plan, &provider.messages()).await?;
    for server in &mut fleet.servers {
        server.wait_ready().await?;
        server.terminate().await?;
    }
    Ok(outcome)
}

impl<'a> Fleet<'a> {
    async fn start(deployment: &'a mut Deployment, provider: &ProviderStandIn) -> Result<Self> {
        deployment.environment.push(("PROCFLEET_ALERTS__ALLOWED_NETWORKS", "127.0.0.0/8".into()));
        let mut servers = Vec::new();
        for number in 0..REPLICAS {
            servers.push(deployment.start(&format!("server-{number}"), Doors::free()?).await?);
        }
        let key = deployment.create_api_key("admin").await?;
        let channel = json!({ "name": "stand-in", "kind": "webhook", "per_minute": 600,
            "url": format!("http://{}/", provider.address) });
        servers[0].post("/v1/channels", &key, &channel).await?;
        let mut connection = PgConnection::connect(&deployment.database_url).await?;
        crate::heartbeats::create(&mut connection, HOSTS).await?;
        Ok(Self { deployment, servers, connection, opened: Vec::new(), silent: Vec::new() })
    }

    /// New alerts begin, and those of [`LASTS`] steps ago end.
    async fn step(&mut self, numbers: std::ops::Range<usize>) -> Result<()> {
        let new: Vec<NewAlert> = numbers
            .map(|number| NewAlert::of_fleet(&format!("made-{number}"), "warning", json!({})))
            .collect();
        let mut transaction = self.connection.begin().await?;
        let opened = open_alerts(&mut transaction, &new, 0.0).await?;
        ensure!(opened.len() == new.len(), "an alert of that name is open");
        transaction.commit().await?;
        self.opened.push(opened);
        if let Some(before) = self.opened.len().checked_sub(LASTS + 1) {
            resolve(&mut self.connection, &self.opened[before]).await?;
        }
        Ok(())
    }

    /// One more host is silent; the others are heard.
    async fn fall_silent(&mut self) -> Result<()> {
        self.silent.push(format!("host-{}", self.silent.len() + 1));
        sqlx::query(
            "update heartbeats b set
                last_seen_at = case when h.host_name = any($1) then b.last_seen_at - interval '1 hour' else now() end,
                deadline_at = case when h.host_name = any($1) then now() else procfleet_deadline(now(), b.interval_ms) end
             from hosts h where h.host_id = b.host_id",
        )
        .bind(&self.silent)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn now(&mut self) -> Result<OffsetDateTime> {
        Ok(sqlx::query_scalar("select now()").fetch_one(&mut self.connection).await?)
    }

    async fn all_told(
        &mut self,
        plan: &Plan,
        (ended, last_kill): (Instant, OffsetDateTime),
    ) -> Result<()> {
        eventually(END, "all is told", async || {
            if plan.age_leases && ended.elapsed() > ATTEMPT {
                sqlx::query(
                    "update notifications set lease_until = now()
                     where state = 'sending' and lease_until < $1 + $2 * interval '1 s'",
                )
                .bind(last_kill)
                .bind(LEASE_S)
                .execute(&mut self.connection)
                .await?;
            }
            let (open, silent): (i64, i64) = sqlx::query_as(
                "select (select count(*) from notifications where state in ('queued', 'sending')),
                    (select count(*) from alerts where rule = 'host_silent')",
            )
            .fetch_one(&mut self.connection)
            .await?;
            ensure!(open == 0, "{open} wait");
            ensure!(silent >= i64::try_from(self.silent.len())?, "{silent} silent hosts found");
            Ok(())
        })
        .await
        .with_context(|| self.servers[0].log_tail())
    }

    async fn judge(&mut self, plan: &Plan, messages: &[Value]) -> Result<Outcome> {
        let merged: BTreeSet<Uuid> = sqlx::query_scalar(
            "select alert_id from notifications where state = 'merged' and kind = 'fired'",
        )
        .fetch_all(&mut self.connection)
        .await?
        .into_iter()
        .collect();
        let (arrived, repeated) = arrivals(messages)?;
        let (mut lost, mut disordered) = (Vec::new(), Vec::new());
        for alert in self.opened.iter().flatten() {
            let fired = arrived.get(&(alert.to_string(), "fired".into()));
            let resolved = arrived.get(&(alert.to_string(), "resolved".into()));
            if fired.is_none() && !merged.contains(alert) {
                lost.push(format!("the begin of {alert}"));
            }
            match (fired.and_then(|at| at.last()), resolved.and_then(|at| at.first())) {
                (_, None) => lost.push(format!("the end of {alert}")),
                (Some(fired), Some(resolved)) if fired > resolved => {
                    disordered.push(alert.to_string());
                }
                _ => {}
            }
        }
        let told: BTreeSet<&str> = items(messages)
            .filter(|(_, item)| item["rule"] == "host_silent")
            .filter_map(|(_, item)| item["host_name"].as_str())
            .collect();
        let silent = self.silent.iter().filter(|host| !told.contains(host.as_str()));
        lost.extend(silent.map(|host| format!("the silence of {host}")));
        Ok(Outcome {
            transitions: 2 * self.opened.iter().flatten().count() + self.silent.len(),
            kills: plan.kills,
            messages: messages.len(),
            repeated,
            merged: merged.len(),
            lost,
            disordered,
        })
    }
}

async fn resolve(connection: &mut PgConnection, alerts: &[Uuid]) -> Result<()> {
    let mut transaction = connection.begin().await?;
    resolve_alerts(&mut transaction, alerts).await?;
    Ok(transaction.commit().await?)
}

/// What was told, each with the number of its message.
fn items(messages: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    messages.iter().enumerate().flat_map(|(at, message)| {
        let items = message["notifications"].as_array();
        items.into_iter().flatten().map(move |item| (at, item))
    })
}

/// By alert and kind: the numbers of the messages that told it.
type Arrivals = BTreeMap<(String, String), Vec<usize>>;

/// What arrived, and how many messages repeated something.
fn arrivals(messages: &[Value]) -> Result<(Arrivals, usize)> {
    let mut arrived = Arrivals::new();
    let mut repeats = BTreeSet::new();
    for (at, item) in items(messages) {
        let alert = item["alert_id"].as_str().context("an alert")?.to_owned();
        let kind = item["kind"].as_str().context("a kind")?.to_owned();
        let seen = arrived.entry((alert, kind)).or_default();
        if !seen.is_empty() {
            repeats.insert(at);
        }
        seen.push(at);
    }
    Ok((arrived, repeats.len()))
}
