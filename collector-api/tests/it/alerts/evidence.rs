//! Messages lead to their evidence: who was busiest on the host, and where to look.

use collector_api::alerts::provider::Kind;
use collector_api::config::Alerts;
use collector_api::store::silence::{NewAlert, open_alerts};
use fleet_sim::database::Engine;
use serde_json::json;
use sqlx::Connection as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::kit::{Alerting, StandIn};
use super::rules::{partitions, process};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_names_the_busiest_processes_and_links_to_their_window() {
    for engine in [Engine::PostgreSql, Engine::TimescaleDb] {
        let page = "https://procfleet.example/".to_owned().try_into().unwrap();
        let alerts = Alerts { public_url: Some(page), ..Alerts::default() };
        let alerting = Alerting::create_with("evidence", engine, alerts).await;
        if engine == Engine::PostgreSql {
            partitions(&alerting).await;
        }
        alerting.hosts(2).await;
        let mut db = alerting.connect().await;
        let (host_id, now): (Uuid, OffsetDateTime) =
            sqlx::query_as("select host_id, now() from hosts where host_name = 'host-1'")
                .fetch_one(&mut db)
                .await
                .unwrap();
        let minute_ago = now - Duration::MINUTE;
        process(&mut db, "host-1", minute_ago, "backup --all", 1).await;
        process(&mut db, "host-1", minute_ago, "mysqld --port=3306 <@all>", 3).await;
        process(&mut db, "host-2", minute_ago, "elsewhere", 9).await;
        let (chat, hook) = (StandIn::start(&[]).await, StandIn::start(&[]).await);
        alerting.channel(Kind::Wecom, &chat).await;
        alerting.channel(Kind::Webhook, &hook).await;
        let alert = NewAlert {
            fingerprint: "busy".into(),
            host_id: Some(host_id),
            ..NewAlert::of_fleet(
                "busy",
                "warning",
                json!({ "metric": "host.cpu_ratio", "value": 0.97, "threshold": 0.9 }),
            )
        };
        let mut transaction = db.begin().await.unwrap();
        open_alerts(&mut transaction, &[alert], 0.0).await.unwrap();
        transaction.commit().await.unwrap();
        alerting.deliver().await;

        let text = chat.messages()[0]["markdown"]["content"].as_str().unwrap().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[2], "  3.00 CPU  mysqld --port=3306 ‹＠all›");
        assert_eq!(lines[3], "  1.00 CPU  backup --all");
        let link = format!("[evidence](https://procfleet.example/host/{host_id}?from=");
        assert!(lines[4].starts_with(&link), "{text}");
        let told = &hook.messages()[0]["notifications"][0];
        assert_eq!(told["busiest"][0]["command_line"], "mysqld --port=3306 <@all>", "{told}");
        assert_eq!(told["host_id"], json!(host_id));
        assert!(told["evidence"]["processes"].as_str().unwrap().contains("/v1/hosts/"), "{told}");
    }
}
