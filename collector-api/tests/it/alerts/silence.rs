//! Who is silent, and who is not although nothing is heard of him.

use collector_api::alerts::provider::Kind;

use super::kit::{Alerting, StandIn};

/// One host of those that have names like it stops: its last report is two minutes old.
pub(super) const ONE_STOPS: &str = "update heartbeats set last_sampled_at = now() - interval '120 s', last_seen_at = now() - interval '120 s',
    deadline_at = now() - interval '15 s' where host_id = (select host_id from hosts where host_name = 'host-1')";
pub(super) const ALL_REPORT: &str = "update heartbeats set last_seen_at = clock_timestamp(), deadline_at = clock_timestamp() + interval '105 s'";
/// A minute passes for the recovery.
pub(super) const A_MINUTE_PASSES: &str = "update alerts set fired_at = fired_at - interval '61 s',
    recovering_since = recovering_since - interval '61 s'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_is_told_once_and_its_return_once() {
    let alerting = Alerting::create("silence").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(5).await;
    alerting.store.sweep_silence().await.unwrap();
    alerting.execute(ONE_STOPS).await;
    for _ in 0..3 {
        alerting.store.sweep_silence().await.unwrap();
        alerting.deliver().await;
    }
    assert_eq!(alerting.host_alerts().await, 1);
    let told = stand_in.messages();
    assert_eq!(told.len(), 1, "{told:?}");
    let text = told[0]["markdown"]["content"].as_str().unwrap();
    assert!(text.contains("host-1: no report since"), "{text}");

    alerting.execute(ALL_REPORT).await;
    assert_eq!(
        alerting.store.sweep_silence().await.unwrap().resolved,
        0,
        "one report is no recovery"
    );
    alerting.execute(A_MINUTE_PASSES).await;
    alerting.execute(ALL_REPORT).await;
    assert_eq!(alerting.store.sweep_silence().await.unwrap().resolved, 1);
    alerting.deliver().await;
    let text = stand_in.messages()[1]["markdown"]["content"].to_string();
    assert!(text.contains("host-1: no report: over after"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_sweep_at_once_open_one_alert() {
    let alerting = Alerting::create("replicas").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(5).await;
    alerting.execute(ONE_STOPS).await;
    for _ in 0..10 {
        let (a, b, c) = tokio::join!(
            alerting.store.sweep_silence(),
            alerting.store.sweep_silence(),
            alerting.store.sweep_silence()
        );
        assert!([a, b, c].into_iter().any(|swept| swept.unwrap().ran));
    }
    assert_eq!(alerting.count("select count(*) from alerts").await, 1);
    assert_eq!(alerting.count("select count(*) from notifications").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_servers_or_database_is_a_gap_and_no_silence() {
    let alerting = Alerting::create("gap").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(20).await;
    alerting.store.sweep_silence().await.unwrap();
    alerting
        .execute(
            "update alert_sweep set last_ok_at = now() - interval '20 minutes';
             update heartbeats set last_sampled_at = now() - interval '20 minutes', last_seen_at = now() - interval '20 minutes',
                deadline_at = now() - interval '18 minutes'",
        )
        .await;
    assert!(alerting.store.sweep_silence().await.unwrap().gap);
    // The first hosts are back, the others not yet.
    alerting
        .execute(
            "update heartbeats set last_seen_at = now(), deadline_at = now() + interval '105 s'
             where host_id in (select host_id from hosts where host_name like 'host-1%')",
        )
        .await;
    for _ in 0..3 {
        alerting.store.sweep_silence().await.unwrap();
    }
    alerting.deliver().await;
    assert_eq!(alerting.host_alerts().await, 0);
    assert_eq!(
        alerting.count("select count(*) from alerts where rule = 'observation_gap'").await,
        1
    );
    assert_eq!(stand_in.messages().len(), 1);
    // Who is still away after the grace is silent after all.
    alerting
        .execute(
            "update heartbeats set deadline_at = deadline_at - interval '10 minutes'
             where host_id not in (select host_id from hosts where host_name like 'host-1%')",
        )
        .await;
    alerting.store.sweep_silence().await.unwrap();
    assert_eq!(alerting.host_alerts().await, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_heard_at_all_is_one_alert_of_the_fleet() {
    let alerting = Alerting::create("deaf").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(20).await;
    alerting.store.sweep_silence().await.unwrap();
    for quiet in ["70", "120", "300"] {
        let quiet: &str = match quiet {
            "70" => {
                "update heartbeats set last_sampled_at = now() - interval '70 s', last_seen_at = now() - interval '70 s', deadline_at = now() + interval '35 s'"
            }
            "120" => {
                "update heartbeats set last_sampled_at = now() - interval '120 s', last_seen_at = now() - interval '120 s', deadline_at = now() - interval '15 s'"
            }
            _ => {
                "update heartbeats set last_sampled_at = now() - interval '300 s', last_seen_at = now() - interval '300 s', deadline_at = now() - interval '195 s'"
            }
        };
        let mut connection = alerting.connect().await;
        sqlx::raw_sql(quiet).execute(&mut connection).await.unwrap();
        assert!(alerting.store.sweep_silence().await.unwrap().deaf);
    }
    // One host is heard again: the others have their time to follow.
    alerting
        .execute(
            "update heartbeats set last_seen_at = now(), deadline_at = now() + interval '105 s'
             where host_id = (select host_id from hosts where host_name = 'host-1')",
        )
        .await;
    for _ in 0..3 {
        assert!(!alerting.store.sweep_silence().await.unwrap().deaf);
    }
    alerting.deliver().await;
    assert_eq!(alerting.host_alerts().await, 0);
    let rules = alerting
        .count("select count(*) from alerts where rule = 'no_reports' and resolved_at is not null");
    assert_eq!(rules.await, 1);
    assert_eq!(alerting.count("select count(*) from alerts").await, 1);
    assert_eq!(stand_in.messages().len(), 1, "begun and over before it was sent: one message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_fleet_that_loses_power_is_one_alert_and_a_digest() {
    let alerting = Alerting::create("mass").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.hosts(1000).await;
    alerting.store.sweep_silence().await.unwrap();
    alerting
        .execute(
            "update heartbeats set last_sampled_at = now() - interval '120 s', last_seen_at = now() - interval '120 s', deadline_at = now() - interval '15 s'
             where host_id in (select host_id from hosts where substr(host_name, 6)::int <= 500)",
        )
        .await;
    for _ in 0..3 {
        alerting.store.sweep_silence().await.unwrap();
        alerting.deliver().await;
    }
    let told = stand_in.messages();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to_string().contains("500 of 1000 hosts fell silent"), "{}", told[0]);
    let labels = "select jsonb_array_length(detail->'labels')::bigint from alerts where rule = 'mass_silence'";
    assert_eq!(alerting.count(labels).await, 4);
    assert_eq!(alerting.host_alerts().await, 500);
    // Two minutes later the digest.
    alerting.execute("update notifications set next_at = now() where state = 'queued'").await;
    alerting.deliver().await;
    let told = stand_in.messages();
    assert!((2..=20).contains(&told.len()), "{}", told.len());
    assert_eq!(
        alerting.count("select count(*) from notifications where state = 'sent'").await,
        501
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_comes_and_goes_is_told_as_flapping_and_then_muted() {
    let alerting = Alerting::create("flapping").await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Webhook, &stand_in).await;
    alerting.hosts(5).await;
    alerting.store.sweep_silence().await.unwrap();
    for _ in 0..6 {
        alerting.execute(ONE_STOPS).await;
        alerting.store.sweep_silence().await.unwrap();
        alerting.deliver().await;
        alerting.execute(ALL_REPORT).await;
        alerting.store.sweep_silence().await.unwrap();
        alerting.execute(A_MINUTE_PASSES).await;
        alerting.execute(ALL_REPORT).await;
        assert_eq!(alerting.store.sweep_silence().await.unwrap().resolved, 1);
        alerting.deliver().await;
    }
    let kinds: Vec<String> = stand_in
        .messages()
        .iter()
        .map(|message| message["notifications"][0]["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["fired", "resolved", "fired", "resolved", "fired", "resolved", "flapping"]);
    assert_eq!(alerting.count("select count(*) from alerts where rule = 'host_silent'").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_never_reported_or_whose_clock_is_ahead_are_told() {
    let alerting = Alerting::create("others").await;
    alerting.hosts(5).await;
    alerting
        .execute(
            "update heartbeats set last_seen_at = null, deadline_at = null where host_id = (select host_id from hosts where host_name = 'host-1');
             update hosts set enrolled_at = now() - interval '11 minutes', lifecycle_changed_at = now() - interval '11 minutes';
             update heartbeats set last_sampled_at = now() + interval '1 hour' where host_id = (select host_id from hosts where host_name = 'host-2')",
        )
        .await;
    assert_eq!(alerting.store.sweep_silence().await.unwrap().opened, 2);
    alerting.execute(ALL_REPORT).await;
    alerting.execute("update heartbeats set last_sampled_at = now()").await;
    assert_eq!(alerting.store.sweep_silence().await.unwrap().resolved, 2);
}
