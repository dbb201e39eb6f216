//! Series: every sample, or buckets.

use fleet_sim::database::Engine;
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use super::kit::{AT, Api, Row, host, instance, sample, sql};

#[tokio::test]
async fn a_series_is_raw_until_it_is_too_long_and_then_in_buckets() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        host(&mut db, 1, "db").await;
        // 1,200 samples, every 2 s, the last at 03:12:00; load counts up.
        sql(
            &mut db,
            "insert into host_samples (host_id, sampled_at, interval_ms, cpu_user_us, load_1m)
             select '00000000-0000-0000-0000-000000000001', timestamptz '2026-03-01 03:12:00+00' - n * interval '2 s', 2000, 10, n
             from generate_series(0, 1199) n",
        )
        .await;
        let raw =
            api.get("/v1/hosts/db/samples?from=2026-03-01T03:11:00Z&to=2026-03-01T03:12:00Z").await;
        let samples = raw["samples"].as_array().unwrap();
        assert_eq!((samples.len(), &raw["step_s"]), (30, &Value::Null));
        assert_eq!(samples[29]["sampled_at"], "2026-03-01T03:12:00Z");
        assert_eq!(
            (&samples[29]["cpu_user_us"], &samples[29]["cpu_system_us"]),
            (&json!(10), &json!(null))
        );

        let bucketed = api
            .get("/v1/hosts/db/samples?from=2026-03-01T03:10:00Z&to=2026-03-01T03:12:00Z&step=60s")
            .await;
        let samples = bucketed["samples"].as_array().unwrap();
        assert_eq!((samples.len(), &bucketed["step_s"]), (2, &json!(60)));
        assert_eq!(samples[1]["sampled_at"], "2026-03-01T03:12:00Z");
        assert_eq!(
            (&samples[1]["cpu_user_us"], &samples[1]["interval_ms"]),
            (&json!(300), &json!(60_000))
        );
        assert_eq!(
            (&samples[1]["load_1m"], &samples[1]["sample_count"]),
            (&json!(14.5), &json!(30))
        );

        let long =
            api.get("/v1/hosts/db/samples?from=2026-03-01T02:12:00Z&to=2026-03-01T03:12:00Z").await;
        assert_eq!(long["step_s"], 10);
        let samples = long["samples"].as_array().unwrap();
        // The window begins 20 minutes before the samples do: a gap is a gap.
        assert_eq!(samples.len(), 360);
        let (gap, kept) = samples.split_at(120);
        for point in gap {
            assert_eq!((&point["sample_count"], &point["cpu_user_us"]), (&json!(0), &json!(null)));
        }
        let sum: i64 = kept.iter().map(|point| point["cpu_user_us"].as_i64().unwrap()).sum();
        assert_eq!(sum, 12_000);
        assert_eq!(long["coverage"]["resolution"], "raw");
    }
}

#[tokio::test]
async fn a_process_has_a_series_for_each_of_its_instances() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        let id = host(&mut db, 1, "db").await;
        let mut process_id = Uuid::nil();
        for number in 1..=25 {
            process_id = instance(&mut db, id, number, "cron job").await;
            let row = Row { instance_id: number, cpu_user_us: Some(number), ..Row::default() };
            sample(&mut db, id, AT - Duration::seconds(60 - number), row).await;
        }
        instance(&mut db, id, 99, "another").await;
        sample(&mut db, id, AT, Row { instance_id: 99, ..Row::default() }).await;
        let path = format!("/v1/hosts/db/processes/{}/samples", process_id.simple());
        let window = "from=2026-03-01T03:00:00Z&to=2026-03-01T03:12:00Z";
        let answer = api.get(&format!("{path}?{window}")).await;
        assert_eq!(
            (&answer["command_line"], &answer["instances_in_window"]),
            (&json!("cron job"), &json!(25))
        );
        assert_eq!(answer["process_id"], process_id.simple().to_string());
        assert_eq!(answer["instances"].as_array().unwrap().len(), 20);
        let samples = answer["samples"].as_array().unwrap();
        let ids: Vec<&str> =
            samples.iter().map(|point| point["instance_id"].as_str().unwrap()).collect();
        let expect: Vec<String> = (6..=25).map(|number| number.to_string()).collect();
        assert_eq!(ids, expect);
        assert_eq!(
            (&samples[0]["cpu_user_us"], &samples[0]["memory_usage_bytes"]),
            (&json!(6), &json!(null))
        );

        let one = api.get(&format!("{path}?{window}&instance_id=2")).await;
        assert_eq!(
            (&one["instances_in_window"], &one["samples"][0]["cpu_user_us"]),
            (&json!(1), &json!(2))
        );
        assert_eq!(one["instances"][0]["pid"], 2);
        let none =
            api.get(&format!("{path}?from=2026-02-01T00:00:00Z&to=2026-02-01T01:00:00Z")).await;
        assert_eq!((&none["instances_in_window"], &none["samples"]), (&json!(0), &json!([])));
    }
}
