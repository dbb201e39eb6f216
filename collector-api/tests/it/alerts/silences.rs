//! Who is told when, and when nobody is: silences, what larger things explain, and telling again.

use collector_api::alerts::provider::Kind;
use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::selector::Selector;
use collector_api::store::audit::Actor;
use collector_api::store::silence::{NewAlert, open_alerts};
use collector_api::store::silences::{CreateSilence, NewSilence};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::kit::{Alerting, StandIn};
use super::silence::{A_MINUTE_PASSES, ALL_REPORT, ONE_STOPS};
use crate::fleet::{Fleet, plain_client};

/// All hosts stop but those of one rack, among them `host-1`.
const TWO_STOP: &str = "update heartbeats set last_sampled_at = now() - interval '120 s', last_seen_at = now() - interval '120 s',
    deadline_at = now() - interval '15 s' where host_id in (select host_id from hosts where host_name in ('host-1', 'host-2'))";

impl Alerting {
    async fn silence(&self, selector: &str, rule: Option<&str>) -> Uuid {
        let silence_id = Uuid::now_v7();
        let now: OffsetDateTime =
            sqlx::query_scalar("select now()").fetch_one(&mut self.connect().await).await.unwrap();
        let new = NewSilence {
            silence_id,
            selector: selector.into(),
            requirements: match selector {
                "" => Selector::default(),
                text => Selector::parse(text).unwrap(),
            },
            host_id: None,
            rule: rule.map(str::to_owned),
            comment: "kernel update".into(),
            starts_at: now - Duration::SECOND,
            ends_at: now + Duration::HOUR,
        };
        let made = self.store.create_silence(&new, &Actor::cli()).await.unwrap();
        assert_eq!(made, CreateSilence::Created);
        silence_id
    }

    async fn sweep(&self) {
        self.store.sweep_silence().await.unwrap();
        self.deliver().await;
    }

    async fn all_recover(&self) {
        self.execute(ALL_REPORT).await;
        self.store.sweep_silence().await.unwrap();
        self.execute(A_MINUTE_PASSES).await;
        self.execute(ALL_REPORT).await;
        self.sweep().await;
    }
}

fn texts(stand_in: &StandIn) -> Vec<String> {
    let text = |message: Value| message["markdown"]["content"].as_str().unwrap().to_owned();
    stand_in.messages().into_iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_mutes_messages_and_what_still_holds_at_its_end_is_told() {
    let alerting = Alerting::create("silences").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(8).await;
    alerting.store.sweep_silence().await.unwrap();
    let silence_id = alerting.silence("rack=r1", Some("host_silent")).await;
    alerting.execute(TWO_STOP).await;
    for _ in 0..3 {
        alerting.sweep().await;
    }
    assert_eq!(alerting.host_alerts().await, 2, "alerts are not muted");
    let told = texts(&stand_in);
    assert!(told.len() == 1 && told[0].contains("host-2: no report"), "{told:?}");
    let alerts = alerting.store.alerts(true, None, 10).await.unwrap();
    let silenced = |name: &str| {
        let alert = alerts.iter().find(|alert| alert.host_name.as_deref() == Some(name)).unwrap();
        alert.silenced_until.is_some()
    };
    assert!(silenced("host-1") && !silenced("host-2"));
    assert_eq!(alerting.store.silences(false).await.unwrap()[0].waiting, 1);

    assert!(alerting.store.end_silence(silence_id, &Actor::cli()).await.unwrap());
    assert!(!alerting.store.end_silence(silence_id, &Actor::cli()).await.unwrap());
    alerting.sweep().await;
    let told = texts(&stand_in);
    assert!(
        told.len() == 2 && told[1].contains("host-1: no report: still so after a silence"),
        "{told:?}"
    );
    alerting.all_recover().await;
    assert_eq!(texts(&stand_in).len(), 4, "{:?}", texts(&stand_in));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_begins_and_ends_in_a_silence_is_never_told_and_an_end_is_owed_to_who_knows_the_beginning()
 {
    let alerting = Alerting::create("within").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(8).await;
    alerting.execute("update hosts set host_name = 'known' where host_name = 'host-2'").await;
    alerting.store.sweep_silence().await.unwrap();
    alerting
        .execute(
            "update heartbeats set last_sampled_at = now() - interval '120 s', last_seen_at = now() - interval '120 s',
                deadline_at = now() - interval '15 s' where host_id = (select host_id from hosts where host_name = 'known')",
        )
        .await;
    alerting.sweep().await;
    assert_eq!(texts(&stand_in).len(), 1);
    alerting.silence("", None).await;
    alerting.execute(ONE_STOPS).await;
    alerting.sweep().await;
    alerting.all_recover().await;
    // The silence ends.
    alerting
        .execute("update silences set ends_at = now(); update notifications set next_at = now()")
        .await;
    alerting.sweep().await;
    let told = texts(&stand_in);
    assert!(told.len() == 2 && told[1].contains("known: no report: over"), "{told:?}");
    assert_eq!(alerting.count("select count(*) from notifications where state = 'muted'").await, 2);
    assert_eq!(
        alerting.count("select count(*) from notifications where state = 'queued'").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_stays_is_told_again_at_widening_pauses_until_somebody_knows() {
    let alerting = Alerting::create("again").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(5).await;
    alerting.store.sweep_silence().await.unwrap();
    alerting.execute(ONE_STOPS).await;
    alerting.sweep().await;
    for (hours, told) in [(1, 2), (4, 3), (24, 4), (24, 5)] {
        let minutes =
            "select round(extract(epoch from renotify_at - now()) / 60)::bigint from alerts";
        assert_eq!(alerting.count(minutes).await, hours * 60);
        alerting.sweep().await;
        assert_eq!(texts(&stand_in).len(), told - 1);
        alerting.execute("update alerts set renotify_at = now()").await;
        alerting.sweep().await;
        let texts = texts(&stand_in);
        assert!(
            texts.len() == told && texts[told - 1].contains("host-1: no report: still so"),
            "{texts:?}"
        );
    }
    let alert_id = alerting.store.alerts(true, None, 1).await.unwrap()[0].alert_id;
    assert!(alerting.store.acknowledge_alert(alert_id, 3600, &Actor::cli()).await.unwrap());
    alerting.execute("update alerts set renotify_at = now()").await;
    alerting.sweep().await;
    assert_eq!(texts(&stand_in).len(), 5, "somebody knows");
    // An hour later nobody may have done anything.
    alerting.execute("update alerts set acknowledged_until = now()").await;
    alerting.sweep().await;
    assert_eq!(texts(&stand_in).len(), 6);
    let alert = &alerting.store.alerts(true, None, 1).await.unwrap()[0];
    assert_eq!((alert.state.as_str(), &alert.acknowledged_by), ("firing", &None));
    // While nobody at all is heard, no single host is told again.
    alerting.execute("update alerts set renotify_at = now()").await;
    alerting
        .execute("update heartbeats set last_seen_at = now() - interval '90 s' where last_seen_at > now() - interval '90 s'")
        .await;
    alerting.sweep().await;
    let texts = texts(&stand_in);
    assert!(texts.len() == 7 && texts[6].contains("no host reports"), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rule_found_on_a_host_waits_while_the_host_is_silent() {
    let alerting = Alerting::create("inhibited").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(5).await;
    alerting.store.sweep_silence().await.unwrap();
    alerting.execute(ONE_STOPS).await;
    alerting.sweep().await;
    let mut db = alerting.connect().await;
    let (host_id, rule_id): (Uuid, Uuid) = sqlx::query_as(
        "select host_id, rule_id from hosts, rules where host_name = 'host-1' and name = 'memory_exhausted'",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    let found = NewAlert {
        fingerprint: "rule:x".into(),
        host_id: Some(host_id),
        rule_id: Some(rule_id),
        ..NewAlert::of_fleet(
            "memory_exhausted",
            "warning",
            json!({ "metric": "host.memory_used_ratio" }),
        )
    };
    let mut transaction = db.begin().await.unwrap();
    open_alerts(&mut transaction, &[found], 0.0).await.unwrap();
    transaction.commit().await.unwrap();
    for _ in 0..2 {
        alerting.sweep().await;
        alerting.execute("update notifications set next_at = now() where state = 'queued'").await;
    }
    assert_eq!(texts(&stand_in).len(), 1, "{:?}", texts(&stand_in));
    alerting.all_recover().await;
    alerting.execute("update notifications set next_at = now() where state = 'queued'").await;
    alerting.sweep().await;
    let told = texts(&stand_in);
    let is_found = told.iter().any(|text| text.contains("host-1: memory＿exhausted"));
    assert!(told.len() == 3 && is_found, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_that_were_over_long_ago_are_removed_with_their_messages() {
    let alerting = Alerting::create("retention").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(5).await;
    alerting.store.sweep_silence().await.unwrap();
    alerting.execute(ONE_STOPS).await;
    alerting.sweep().await;
    alerting.all_recover().await;
    alerting.execute(ONE_STOPS).await;
    alerting.sweep().await;
    alerting.silence("", None).await;
    let purge = async || {
        let holder = Uuid::new_v4();
        let mut connection = alerting.store.maintenance_connection(holder).await.unwrap().unwrap();
        let purged = connection.purge_alerts().await.unwrap();
        connection.release().await.unwrap();
        purged
    };
    alerting.execute("update maintenance_lease set retention_clock = now()").await;
    alerting.execute("update alerts set resolved_at = now() - interval '89 days' where resolved_at is not null").await;
    assert_eq!(purge().await, 0);
    alerting.execute("update alerts set resolved_at = now() - interval '91 days' where resolved_at is not null").await;
    assert_eq!(purge().await, 1);
    assert_eq!(alerting.count("select count(*) from alerts").await, 1);
    assert_eq!(alerting.count("select count(*) from notifications").await, 1);
    assert_eq!(alerting.count("select count(*) from silences").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silences_over_rest_have_a_reason_an_end_and_a_row_in_the_audit() {
    let fleet = Fleet::create("silences-rest").await;
    let server = fleet.serve(&fleet.config()).await;
    let minted = MintedApiKey::from_random([9; 48], "ada".into(), Role::Admin, None);
    fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
    let key = minted.to_paste();
    let ask = async |method: Method, path: &str, body: Value| {
        let request = plain_client().request(method, server.operator_url(path)).bearer_auth(&key);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let good = json!({ "selector": "env=test", "comment": "kernel update", "ends_at": "2200-01-01T00:00:00Z" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    #[expect(clippy::disallowed_methods, reason = "a moment ahead of the server's clock")]
    let later = OffsetDateTime::now_utc() + Duration::HOUR;
    let later = later.format(&time::format_description::well_known::Rfc3339).unwrap();
    for (body, field) in [
        (good.clone(), "ends_at"),
        (with("ends_at", json!("2020-01-01T00:00:00Z")), "ends_at"),
        (with("comment", json!("")), "comment"),
        (with("selector", json!("env=")), ""),
        (with("selector", json!("a b")), "selector"),
    ] {
        let mut body = body;
        if field != "ends_at" {
            body["ends_at"] = json!(later);
        }
        let (status, answer) = ask(Method::POST, "/v1/silences", body).await;
        if field.is_empty() {
            assert_eq!(status, 201, "an empty value is one: {answer}");
        } else {
            assert_eq!((status, answer.contains(&format!("`{field}`"))), (422, true), "{answer}");
        }
    }
    let mut body = with("ends_at", json!(later));
    body["host_id"] = json!(Uuid::nil());
    assert_eq!(ask(Method::POST, "/v1/silences", body).await.0, 422, "no such host");
    let (status, made) = ask(Method::POST, "/v1/silences", with("ends_at", json!(later))).await;
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let path = format!("/v1/silences/{}", made["silence_id"].as_str().unwrap());
    let (_, all) = ask(Method::GET, "/v1/silences", Value::Null).await;
    assert!(all.contains("kernel update") && all.contains("\"created_by\":\"ada\""), "{all}");
    assert_eq!(ask(Method::DELETE, &path, Value::Null).await.0, 204);
    assert_eq!(ask(Method::DELETE, &path, Value::Null).await.0, 404);
    let (_, audit) = ask(Method::GET, "/v1/audit-events", Value::Null).await;
    for action in ["silence.create", "silence.end"] {
        assert!(audit.contains(action), "{audit}");
    }
}
