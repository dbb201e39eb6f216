//! `GET /v1/maintenance`: what the worker did, and what it could not do.

use std::time::Duration;

use collector_api::maintenance;
use collector_api::store::series;
use fleet_sim::database::Engine;
use serde_json::{Value, json};
use uuid::Uuid;

use super::kit::{Api, Row, host, sample, sql};

fn named<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|item| item[key] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

#[tokio::test]
async fn progress_says_what_was_done_and_what_failed() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        let before = api.get("/v1/maintenance").await;
        assert_eq!((&before["is_held"], &before["steps"]), (&json!(false), &json!([])));
        assert_eq!(before["tables"].as_array().unwrap().len(), series::all().count());
        let samples = named(&before["tables"], "table", "process_samples");
        assert_eq!(
            (&samples["is_rollup"], &samples["retention_s"], &samples["bytes"]),
            (&json!(false), &json!(30 * 86_400), &Value::Null)
        );

        let id = host(&mut db, 1, "busy").await;
        sql(&mut db, "update rollup_watermark set expanded = expanded - interval '2 hours'").await;
        let now: time::OffsetDateTime = sqlx::query_scalar("select now() - interval '1 hour'")
            .fetch_one(&mut db)
            .await
            .unwrap();
        sample(&mut db, id, now, Row { instance_id: 1, cpu_user_us: Some(7), ..Row::default() })
            .await;
        let mut worker = api.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        let after = api.get("/v1/maintenance").await;
        assert_eq!(after["is_held"], true);
        assert!(after["epoch"].as_i64() > before["epoch"].as_i64());
        for step in [
            "partitions_ahead",
            "floors",
            "rollups",
            "retention",
            "compression",
            "sizes",
            "dictionaries",
            "rejects",
            "alerts",
        ] {
            let step = named(&after["steps"], "step", step);
            assert!(step["finished_at"].is_string() && step["failures"] == 0, "{step}");
        }
        for series in series::all() {
            let table = named(&after["tables"], "table", series.name);
            assert!(
                table["partitions"].as_i64() > Some(0) && table["bytes"].as_i64() > Some(0),
                "{table}"
            );
            assert_eq!(table["compressed_partitions"], 0, "{engine:?} cannot");
            assert!(table["measured_at"].is_string() && table["floor_at"].is_string(), "{table}");
        }
        assert_eq!(after["rollups"]["waiting"], 0);
        assert!(after["rollups"]["lag_s"].as_f64() < Some(1000.0), "{}", after["rollups"]);

        // A step that fails says so until it succeeds, without a word of the data.
        sql(&mut db, "alter table ingest_rejects rename column received_at to elsewhere").await;
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap_err();
        let failed = api.get("/v1/maintenance").await;
        let step = named(&failed["steps"], "step", "rejects");
        assert!(step["failures"] == 1 && step["failed_at"].is_string(), "{step}");
        assert!(step["error"].as_str().unwrap().contains("purge_rejects"), "{step}");
        sql(&mut db, "alter table ingest_rejects rename column elsewhere to received_at").await;
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        let healed = api.get("/v1/maintenance").await;
        assert_eq!(named(&healed["steps"], "step", "rejects")["failures"], 0);
    }
}
