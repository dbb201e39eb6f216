//! Alerts lead to their evidence, and a rule can be tried before it is made.

use axum::http::StatusCode;
use collector_api::auth::operator::Role;
use fleet_sim::database::Engine;
use serde_json::{Value, json};

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::kit::{Api, Row, host, instance, sample, sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_names_the_window_in_which_its_processes_are_found() {
    for engine in [Engine::PostgreSql, Engine::TimescaleDb] {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        let host_id = host(&mut db, 7, "db1").await;
        let began: OffsetDateTime =
            sqlx::query_scalar("select date_trunc('minute', now()) - interval '2 minutes'")
                .fetch_one(&mut db)
                .await
                .unwrap();
        for (number, (command_line, cores)) in
            [("mysqld --port=3306", 1), ("mysqld --port=3307", 3)].into_iter().enumerate()
        {
            let instance_id = 100 + i64::try_from(number).unwrap();
            instance(&mut db, host_id, instance_id, command_line).await;
            let cpu_user_us = Some(cores * 30_000_000);
            sample(&mut db, host_id, began, Row { instance_id, cpu_user_us, ..Row::default() })
                .await;
        }
        sql(
            &mut db,
            &format!(
                "insert into alerts (alert_id, fingerprint, rule, severity, host_id, began_at)
                 values ('{}', 'a', 'busy', 'warning', '{host_id}', '{began}'),
                        ('{}', 'b', 'no_reports', 'critical', null, '{began}')",
                uuid::Uuid::from_u128(1),
                uuid::Uuid::from_u128(2)
            ),
        )
        .await;
        let alerts = api.get("/v1/alerts").await;
        assert_eq!(alerts["items"][0]["evidence"], Value::Null, "of the fleet");
        let evidence = &alerts["items"][1]["evidence"];
        let from = (began - Duration::minutes(15)).format(&Rfc3339).unwrap();
        let page = evidence["page"].as_str().unwrap();
        assert!(page.starts_with(&format!("/host/{host_id}?from={from}&to=")), "{page}");
        assert_eq!(alerts["items"][1]["rule"], "busy");
        let top = api.get(evidence["processes"].as_str().unwrap()).await;
        assert_eq!(top["processes"][0]["command_line"], "mysqld --port=3307", "{top}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_is_tried_on_what_is_stored_and_nothing_is_kept() {
    for engine in [Engine::PostgreSql, Engine::TimescaleDb] {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        let host_id = host(&mut db, 7, "db1").await;
        // Two hours ago: ten minutes at 50 %, half an hour at 95 %, then 50 % again.
        sql(
            &mut db,
            &format!(
                "insert into host_samples (host_id, sampled_at, interval_ms)
                 select '{host_id}', date_trunc('minute', now()) - interval '2 h' + n * interval '1 min', 60000
                 from generate_series(0, 60) n;
                 insert into filesystem_samples (host_id, sampled_at, total_bytes, used_bytes, available_bytes, mount_point, device, filesystem_type)
                 select '{host_id}', date_trunc('minute', now()) - interval '2 h' + n * interval '1 min', 100,
                     case when n between 10 and 39 then 95 else 50 end, case when n between 10 and 39 then 5 else 50 end, '/data', 'd', 'ext4'
                 from generate_series(0, 60) n"
            ),
        )
        .await;
        let rule = |metric: &str, threshold: f64| json!({ "name": "full", "severity": "warning", "metric": metric, "threshold": threshold, "for_s": 300, "recover_for_s": 60 });
        let test = async |body: Value| {
            api.send_as(Role::Operator, "POST", "/v1/rules/test", Some(body)).await
        };
        let rules = api.get("/v1/rules").await;
        let (status, found) = test(json!({ "rule": rule("filesystem.used_ratio", 0.9) })).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        assert_eq!(
            (&found["hosts"], &found["judged_hosts"], &found["alerts"]),
            (&json!(1), &json!(1), &json!(1)),
            "{found}"
        );
        let alert = &found["items"][0];
        assert_eq!((&alert["host_name"], &alert["object"]), (&json!("db1"), &json!("/data")));
        assert!(alert["ended_at"].is_string(), "{alert}");
        let (_, found) =
            test(json!({ "rule": rule("filesystem.used_ratio", 0.96), "hours": 168 })).await;
        assert_eq!(found["alerts"], 0);
        assert_eq!(api.get("/v1/rules").await, rules, "nothing is kept");
        assert_eq!(api.get("/v1/alerts").await["items"], json!([]), "nothing is opened");
        for (body, field) in [
            (json!({ "rule": rule("filesystem.used_ratio", 0.9), "hours": 0 }), "hours"),
            (json!({ "rule": rule("filesystem.used_ratio", 0.9), "hours": 169 }), "hours"),
            (json!({ "rule": rule("filesystem.used", 0.9) }), "filesystem.used_ratio"),
            (json!({ "rule": rule("filesystem.used_ratio", 1e300) }), "threshold"),
            (json!({ "hours": 1 }), "rule"),
        ] {
            let (status, problem) = test(body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
            assert!(problem.to_string().contains(field), "{field}: {problem}");
        }
        let (status, _) = api
            .send_as(
                Role::Viewer,
                "POST",
                "/v1/rules/test",
                Some(json!({ "rule": rule("filesystem.used_ratio", 0.9) })),
            )
            .await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
}
