//! The top of hosts with a label and of the fleet, in pages; and what became different.

use fleet_sim::database::Engine;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::Duration;

use super::kit::{AT, Api, Row, host, instance, sample, sql};

const WINDOW: &str = "from=2026-03-01T03:05:00Z&to=2026-03-01T03:12:00Z";

/// Three hosts, the last without a label; on host n instance n, n * 10 µs of CPU; a shared command.
async fn hosts(api: &Api) -> PgConnection {
    let mut db = api.connect().await;
    for number in 1..=3 {
        let id = host(&mut db, number, &format!("host-{number}")).await;
        let number = i64::try_from(number).unwrap();
        instance(&mut db, id, number, &format!("own {number}")).await;
        instance(&mut db, id, 100, "shared").await;
        for (instance_id, cpu) in [(number, number * 10), (100, 1), (0, 5)] {
            let row = Row {
                instance_id,
                cpu_user_us: Some(cpu),
                cpu_system_us: Some(0),
                disk: (Some(100 - cpu), None),
                ..Row::default()
            };
            sample(&mut db, id, AT, row).await;
        }
    }
    sql(
        &mut db,
        r#"update hosts set labels = '{"env": "prod", "role": "db"}' where host_name = 'host-1';
           update hosts set labels = '{"env": "prod"}' where host_name = 'host-2'"#,
    )
    .await;
    db
}

fn rows(answer: &Value, field: &str) -> Vec<Value> {
    let of = |row: &Value| json!([row["place"], row["host_name"], row[field]]);
    answer["items"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn the_top_of_the_fleet_and_of_a_label_comes_in_pages_that_add_up() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        hosts(&api).await;
        let first = api.get(&format!("/v1/top?{WINDOW}&limit=2")).await;
        assert_eq!(rows(&first, "cpu_us"), [json!([1, "host-3", 30]), json!([2, "host-2", 20])]);
        assert_eq!(
            (&first["remaining"]["cpu_us"], &first["residual"]["cpu_us"]),
            (&json!(13), &json!(15))
        );
        assert_eq!((&first["next"], &first["residual"]["host_count"]), (&json!("2"), &json!(3)));
        let second = api.get(&format!("/v1/top?{WINDOW}&limit=2&after=2")).await;
        assert_eq!(rows(&second, "cpu_us"), [json!([3, "host-1", 10]), json!([4, "host-1", 1])]);
        let last = api.get(&format!("/v1/top?{WINDOW}&limit=2&after=4")).await;
        assert_eq!((rows(&last, "cpu_us").len(), &last["next"]), (2, &Value::Null));

        let prod = api.get(&format!("/v1/top?{WINDOW}&labels=env=prod&by=host")).await;
        assert_eq!(rows(&prod, "cpu_us"), [json!([1, "host-2", 26]), json!([2, "host-1", 16])]);
        assert_eq!((&prod["residual"], &prod["coverage"]["host_count"]), (&Value::Null, &json!(2)));
        let db = api.get(&format!("/v1/top?{WINDOW}&labels=env=prod,role=db&sort=disk_read")).await;
        assert_eq!(
            rows(&db, "disk_read_bytes"),
            [json!([1, "host-1", 99]), json!([2, "host-1", 90])]
        );
        let none = api.get(&format!("/v1/top?{WINDOW}&labels=env=test")).await;
        assert_eq!((&none["items"], &none["coverage"]["host_count"]), (&json!([]), &json!(0)));
        let shared = api.get(&format!("/v1/top?{WINDOW}&by=process")).await;
        let shared =
            shared["items"].as_array().unwrap().iter().find(|row| row["command_line"] == "shared");
        let shared = shared.unwrap();
        assert_eq!(
            [
                &shared["cpu_us"],
                &shared["host_count"],
                &shared["instance_count"],
                &shared["host_id"]
            ],
            [&json!(3), &json!(3), &json!(3), &Value::Null]
        );
        let found = api.get("/v1/hosts?labels=env=prod").await;
        assert_eq!(found["items"].as_array().unwrap().len(), 2);
        assert_eq!(found["items"][0]["labels"], json!({"env": "prod", "role": "db"}));
    }
}

#[tokio::test]
async fn what_became_different_from_an_hour_ago() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = hosts(&api).await;
        let before = AT - Duration::HOUR;
        let one = uuid::Uuid::from_u128(1);
        instance(&mut db, one, 7, "vanished").await;
        for (instance_id, cpu) in [(1, 4210), (7, 2100)] {
            let row = Row {
                instance_id,
                cpu_user_us: Some(cpu),
                cpu_system_us: Some(0),
                ..Row::default()
            };
            sample(&mut db, one, before, row).await;
        }
        // 7 minutes: 420 s.
        let answer = api.get(&format!("/v1/compare?{WINDOW}&host=host-1")).await;
        assert_eq!(answer["base_to"], "2026-03-01T02:12:00Z");
        let changes: Vec<Value> = answer["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| json!([row["place"], row["command_line"], row["base_value"], row["value"]]))
            .collect();
        let per_second = |us: f64| us / 420.0;
        assert_eq!(
            changes,
            [
                json!([1, "own 1", per_second(4210.0), per_second(10.0)]),
                json!([2, "vanished", per_second(2100.0), null]),
                json!([3, "shared", null, per_second(1.0)]),
            ]
        );
        assert_eq!(answer["changes"][0]["change"], per_second(10.0) - per_second(4210.0));
        let fleet = api.get(&format!("/v1/compare?{WINDOW}&back=1d&limit=1")).await;
        assert_eq!(fleet["changes"][0]["command_line"], "own 3");
    }
}
