//! The peers of an Alertmanager hear of everything that holds, again and again, each of them.

use collector_api::alerts::alertmanager::sync_one;
use collector_api::alerts::provider::{Kind, Verdict};
use fleet_sim::database::Engine;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::kit::{Alerting, Answer, StandIn};

/// What an Alertmanager says: nothing, with status 200.
const OK: Answer = Answer::Http(200, "", "");

impl Alerting {
    /// As if a round had passed.
    async fn round(&self) -> bool {
        self.execute("update channels set synced_at = synced_at - interval '61 s'").await;
        sync_one(&self.store, &self.sender).await.unwrap()
    }

    async fn failing_since(&self) -> Option<OffsetDateTime> {
        let since = "select max(failing_since) from channels";
        sqlx::query_scalar(since).fetch_one(&mut self.connect().await).await.unwrap()
    }
}

fn names(message: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = message
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| alert["labels"]["alertname"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    names
}

fn time_of(alert: &Value, name: &str) -> OffsetDateTime {
    OffsetDateTime::parse(alert[name].as_str().unwrap(), &Rfc3339).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_peer_is_told_what_holds_each_round_and_what_is_over() {
    for engine in [Engine::PostgreSql, Engine::TimescaleDb] {
        let alerting = Alerting::create_on("peers", engine).await;
        let peers = [StandIn::start(&[]).await, StandIn::start(&[]).await];
        let url = format!("http://{} http://{}/", peers[0].address, peers[1].address);
        alerting.channel_at(Kind::Alertmanager, url).await;
        let opened = alerting.open(&["one".into(), "two".into()]).await;
        assert_eq!(
            alerting.count("select count(*) from notifications").await,
            0,
            "nothing waits in the outbox"
        );
        assert!(sync_one(&alerting.store, &alerting.sender).await.unwrap());
        assert!(
            !sync_one(&alerting.store, &alerting.sender).await.unwrap(),
            "nothing new, no round passed"
        );
        assert!(alerting.round().await);
        for peer in &peers {
            let told = peer.messages();
            assert_eq!(told.len(), 2);
            assert_eq!(names(&told[1]), ["one", "two"]);
            assert_eq!(told[0][0]["labels"], told[1][0]["labels"], "labels stay the same");
            assert_eq!(told[0][0]["startsAt"], told[1][0]["startsAt"]);
            for alert in told[1].as_array().unwrap() {
                let ahead = time_of(alert, "endsAt") - alerting.now().await;
                assert!(
                    ahead > time::Duration::minutes(2),
                    "it lasts until after the next rounds: {ahead}"
                );
            }
        }
        alerting.resolve(&opened[..1]).await;
        alerting.round().await;
        let told = peers[0].messages();
        let now = alerting.now().await;
        let over: Vec<&Value> = told[2]
            .as_array()
            .unwrap()
            .iter()
            .filter(|alert| time_of(alert, "endsAt") <= now)
            .collect();
        assert_eq!((names(&told[2]).len(), over.len()), (2, 1), "{told:?}");
        alerting
            .execute("update alerts set resolved_at = resolved_at - interval '6 minutes'")
            .await;
        alerting.round().await;
        assert_eq!(peers[0].messages()[3].as_array().unwrap().len(), 1, "five minutes are enough");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_fails_keeps_nobody_from_hearing_and_is_told_after_five_minutes() {
    let alerting = Alerting::create("peer_fails").await;
    let (bad, good, chat) =
        (StandIn::start(&[]).await, StandIn::start(&[]).await, StandIn::start(&[]).await);
    let url = format!("http://{} http://{}", bad.address, good.address);
    alerting.channel_at(Kind::Alertmanager, url).await;
    alerting.channel(Kind::Slack, &chat).await;
    for answer in [Answer::Torn, Answer::Http(503, "", "")] {
        bad.will_say(answer);
    }
    alerting.open(&["one".into()]).await;
    alerting.round().await;
    assert_eq!(good.messages().len(), 1, "the other peer was told");
    let dead =
        "select count(*) from alerts where rule = 'notification_dead' and resolved_at is null";
    assert_eq!(alerting.count(dead).await, 0, "not at once");
    let soon = "select count(*) from channels where synced_at < now() - interval '40 s' and synced_at > now() - interval '50 s'";
    assert_eq!(alerting.count(soon).await, 1, "tried again in fifteen seconds");
    alerting.execute("update channels set failing_since = now() - interval '6 minutes' where failing_since is not null").await;
    alerting.round().await;
    assert_eq!(alerting.count(dead).await, 1);
    alerting.deliver().await;
    assert!(chat.messages().iter().any(|m| m["text"].to_string().contains("does not take")));
    bad.will_say(OK);
    assert!(alerting.round().await);
    assert_eq!(alerting.failing_since().await, None);
    assert_eq!(alerting.count(dead).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_silenced_or_explained_by_something_larger_is_not_sent() {
    let alerting = Alerting::create("peers_muted").await;
    let peer = StandIn::start(&[]).await;
    let channel_id =
        alerting.channel_at(Kind::Alertmanager, format!("http://{}", peer.address)).await;
    alerting.hosts(1).await;
    alerting
        .execute(
            "insert into alerts (alert_id, fingerprint, rule, severity, host_id, began_at)
             select gen_random_uuid(), 'host_silent:' || host_id, 'host_silent', 'critical', host_id, now() from hosts;
             insert into alerts (alert_id, fingerprint, rule, severity, began_at)
             values (gen_random_uuid(), 'no_reports', 'no_reports', 'critical', now())",
        )
        .await;
    alerting.round().await;
    assert_eq!(names(&peer.messages()[0]), ["no_reports"]);
    let channel = alerting.store.sealed_channel(channel_id).await.unwrap().unwrap();
    let verdict = alerting.test(&channel).await;
    assert_eq!(verdict, Verdict::Delivered);
    assert_eq!(names(&peer.messages()[1]), ["procfleet_test"]);
}
