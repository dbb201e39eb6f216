//! An endpoint that several hosts cannot reach is one alert.

use collector_api::alerts::provider::Kind;
use fleet_sim::database::Engine;
use serde_json::{Value, json};
use uuid::Uuid;

use super::kit::{Alerting, StandIn};

const DEAD: &str = "https://collector-1.example:7443";

impl Alerting {
    async fn some_hosts(&self, count: i32) -> Vec<Uuid> {
        let some = "select host_id from hosts order by host_name limit $1";
        sqlx::query_scalar(some).bind(count).fetch_all(&mut self.connect().await).await.unwrap()
    }

    /// The first `count` hosts say that they cannot reach the endpoint.
    async fn witness(&self, count: i32) {
        let hosts = self.some_hosts(count).await;
        let endpoints = vec![DEAD; hosts.len()];
        self.store.note_endpoint_witnesses(&endpoints, &hosts).await.unwrap();
        self.store.sweep_silence().await.unwrap();
    }

    async fn detail(&self) -> Vec<Value> {
        let open = "select detail from alerts where rule = 'endpoint_down' and resolved_at is null";
        sqlx::query_scalar(open).fetch_all(&mut self.connect().await).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_witnesses_make_one_alert_which_ends_when_nobody_says_so_any_more() {
    for engine in [Engine::PostgreSql, Engine::TimescaleDb] {
        let alerting = Alerting::create_on("endpoints", engine).await;
        let stand_in = StandIn::start(&[]).await;
        alerting.channel(Kind::Wecom, &stand_in).await;
        alerting.hosts(10).await;
        alerting.witness(2).await;
        assert_eq!(
            alerting.detail().await,
            Vec::<Value>::new(),
            "two of ten may have their own trouble"
        );
        alerting.witness(3).await;
        alerting.witness(7).await;
        alerting.deliver().await;
        assert_eq!(
            alerting.detail().await,
            [json!({ "object": DEAD, "witnesses": 7, "hosts": 10 })]
        );
        let told = stand_in.messages();
        assert_eq!(told.len(), 1, "one for the fleet: {told:?}");
        let text = told[0]["markdown"]["content"].as_str().unwrap();
        assert!(text.contains("does not answer 7 of 10 hosts"), "{text}");
        assert!(!text.contains("://"), "{text}");

        let minutes_pass =
            "update endpoint_witnesses set seen_at = seen_at - interval '3 minutes 1 s'";
        alerting.execute(minutes_pass).await;
        alerting.witness(1).await;
        assert_eq!(alerting.detail().await.len(), 1, "one still says so");
        alerting.execute(minutes_pass).await;
        alerting.store.sweep_silence().await.unwrap();
        assert_eq!(alerting.detail().await, Vec::<Value>::new());
        alerting.deliver().await;
        let told = stand_in.messages();
        assert_eq!(told.len(), 2);
        assert!(told[1].to_string().contains("over after"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_small_fleet_all_of_it_are_enough() {
    let alerting = Alerting::create("endpoints_small").await;
    alerting.hosts(2).await;
    alerting.witness(1).await;
    assert_eq!(alerting.detail().await.len(), 0);
    alerting.witness(2).await;
    assert_eq!(alerting.detail().await.len(), 1);
}
