//! At least once, whatever dies; in order; within the budget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use collector_api::alerts::delivery;
use collector_api::alerts::provider::Kind;
use collector_api::store::silence::{NewAlert, open_alerts, resolve_alerts};
use fleet_sim::eventually::eventually;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::kit::{Alerting, Answer, StandIn};

impl Alerting {
    pub(super) async fn open(&self, names: &[String]) -> Vec<Uuid> {
        let new: Vec<NewAlert> =
            names.iter().map(|name| NewAlert::of_fleet(name, "warning", json!({}))).collect();
        let mut connection = self.connect().await;
        let mut transaction = connection.begin().await.unwrap();
        let opened = open_alerts(&mut transaction, &new, 0.0).await.unwrap();
        transaction.commit().await.unwrap();
        opened
    }

    pub(super) async fn resolve(&self, ids: &[Uuid]) {
        let mut connection = self.connect().await;
        let mut transaction = connection.begin().await.unwrap();
        resolve_alerts(&mut transaction, ids).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_after_a_pause_and_what_is_refused_is_not() {
    let alerting = Alerting::create("retries").await;
    let stand_in = StandIn::start(&[
        Answer::Http(200, "", r#"{"errcode":45009}"#),
        Answer::Http(429, "retry-after: 7\r\n", ""),
        Answer::Torn,
        Answer::Closed,
    ])
    .await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.open(&["one".into()]).await;
    for (attempt, held) in [(1, 1), (2, 1), (3, 0), (4, 0)] {
        alerting.deliver().await;
        assert_eq!(stand_in.messages().len(), attempt, "no attempt before its time");
        let is_held =
            alerting.count("select count(*) from channels where held_until > now()").await;
        assert_eq!(is_held, held, "attempt {attempt}");
        let waits = "select count(*) from notifications where state = 'queued' and next_at > now() and last_error is not null";
        assert_eq!(alerting.count(waits).await, 1);
        let leaks = "select count(*) from notifications where last_error like '%canary%'";
        assert_eq!(alerting.count(leaks).await, 0);
        alerting
            .execute(
                "update channels set held_until = null; update notifications set next_at = now()",
            )
            .await;
    }
    alerting.deliver().await;
    assert_eq!(alerting.count("select count(*) from notifications where state = 'sent'").await, 1);
    stand_in.will_say(Answer::Http(200, "", r#"{"errcode":93000}"#));
    alerting.open(&["two".into()]).await;
    alerting.deliver().await;
    let dead = "select count(*) from notifications where state = 'dead' and ended_at is not null";
    assert_eq!(alerting.count(dead).await, 1);

    // After the last pause it is given up.
    stand_in.will_say(Answer::Closed);
    stand_in.will_say(Answer::Closed);
    alerting.open(&["three".into()]).await;
    for (attempts, given_up) in [(8, 1), (9, 2)] {
        let tried = format!(
            "update notifications set attempts = {attempts}, next_at = now() where state = 'queued'"
        );
        alerting.execute(tried.leak()).await;
        alerting.deliver().await;
        assert_eq!(alerting.count(dead).await, given_up, "after attempt {}", attempts + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_budget_is_one_digest() {
    let alerting = Alerting::create("budget").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    for round in 0..40 {
        let names: Vec<String> = (0..5).map(|n| format!("{round}-{n}")).collect();
        alerting.open(&names).await;
        alerting.deliver().await;
    }
    // 15, and what the seconds of the test add.
    let told = stand_in.messages().len();
    assert!((15..=20).contains(&told), "{told}");
    alerting.execute("update channels set budget = 1, budget_at = now()").await;
    alerting.deliver().await;
    assert_eq!(alerting.count("select count(*) from notifications where state <> 'sent'").await, 0);
}

/// Of every item: when it arrived first, and how often messages came that were there before.
fn arrivals(messages: &[Value]) -> (BTreeMap<(String, String), usize>, usize) {
    let (mut first, mut repeated) = (BTreeMap::new(), 0);
    for (at, message) in messages.iter().enumerate() {
        let mut is_repeat = false;
        for item in message["notifications"].as_array().unwrap() {
            let key = (item["alert_id"].to_string(), item["kind"].as_str().unwrap().to_owned());
            is_repeat |= first.contains_key(&key);
            first.entry(key).or_insert(at);
        }
        repeated += usize::from(is_repeat);
    }
    (first, repeated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_that_die_lose_nothing_and_repeat_at_most_what_died() {
    let alerting = Arc::new(Alerting::create("kills").await);
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Webhook, &stand_in).await;
    alerting.execute("update channels set per_minute = 600").await;
    let mut replicas = JoinSet::new();
    let start = |replicas: &mut JoinSet<()>| {
        let stop = CancellationToken::new();
        replicas.spawn(delivery::run(alerting.store.clone(), alerting.sender.clone(), stop))
    };
    let mut running = vec![start(&mut replicas), start(&mut replicas), start(&mut replicas)];
    let (mut before, mut kills) = (Vec::new(), 0);
    for round in 0..125 {
        let names: Vec<String> = (0..4).map(|n| format!("{round}-{n}")).collect();
        let opened = alerting.open(&names).await;
        alerting.execute("update channels set budget = 600, budget_at = now()").await;
        if round % 2 == 0 {
            let seen = stand_in.messages().len();
            // In the middle of a message, whichever replica has it.
            let arrived = async || (stand_in.messages().len() > seen).then_some(()).ok_or("none");
            drop(eventually(Duration::from_secs(2), "a message", arrived).await);
            running.remove(0).abort();
            kills += 1;
            running.push(start(&mut replicas));
        }
        alerting.resolve(&before).await;
        before = opened;
    }
    alerting.resolve(&before).await;
    eventually(Duration::from_mins(1), "all is told", async || {
        // What the dead held is free again once their leases ran out; the living hold theirs for milliseconds.
        // Two transactions: the replicas lock channels first.
        alerting
            .execute(
                "update notifications set lease_until = now() - interval '1 s'
                 where state = 'sending' and lease_until < now() + interval '57 s'",
            )
            .await;
        alerting.execute("update channels set budget = 600, budget_at = now()").await;
        let open = "select count(*) from notifications where state in ('queued', 'sending')";
        let open = alerting.count(open).await;
        (open == 0).then_some(()).ok_or(open)
    })
    .await
    .unwrap();
    let (first, repeated) = arrivals(&stand_in.messages());
    let merged = alerting.count("select count(*) from notifications where state = 'merged'").await;
    let told = first.len() + usize::try_from(merged).unwrap();
    assert!(told >= 1000, "{told} of 1000 told");
    assert_eq!(
        alerting
            .count("select count(*) from notifications where state not in ('sent', 'merged')")
            .await,
        0
    );
    assert!(repeated <= kills, "{repeated} repeated, {kills} killed");
    for ((alert, kind), at) in &first {
        let begun = first.get(&(alert.clone(), "fired".to_owned()));
        assert!(
            kind != "resolved" || begun.is_none_or(|begun| begun <= at),
            "{alert} out of order"
        );
    }
    println!(
        "{} messages, {repeated} repeated, {kills} kills, {merged} merged",
        stand_in.messages().len()
    );
}
