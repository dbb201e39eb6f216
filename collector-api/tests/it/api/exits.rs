//! What ended, how, and what its whole life used.

use collector_api::auth::operator::Role;
use fleet_sim::database::Engine;
use serde_json::{Value, json};

use super::kit::{Api, host, instance, sql};

const WINDOW: &str = "from=2026-03-01T03:05:00Z&to=2026-03-01T03:12:00Z";

async fn exits(api: &Api) {
    let mut db = api.connect().await;
    let one = host(&mut db, 1, "one").await;
    let two = host(&mut db, 2, "two").await;
    let job = instance(&mut db, one, 11, "job").await;
    instance(&mut db, one, 12, "killed").await;
    instance(&mut db, two, 21, "job").await;
    sql(
        &mut db,
        "insert into process_exits (host_id, sampled_at, interval_ms, instance_id, process_id, exit_time, lifetime_us,
                 exit_code, exit_signal, process_count, failed_count, cpu_user_us, cpu_system_us, memory_usage_bytes)
             select lpad(h::text, 32, '0')::uuid, timestamptz '2026-03-01 03:00+00' + at * interval '1 s', 30000, i,
                 md5(line)::uuid, case when i > 0 then timestamptz '2026-03-01 02:59:59.5+00' + at * interval '1 s' end,
                 200000, code, signal, n, failed, cpu, case when cpu is not null then 0 end, rss
             from (values
                 (1, 400, 11, 'job', 0, null, 1, null, 50, 1000),
                 (1, 500, 12, 'killed', null, 9, 1, null, 900, null),
                 (2, 600, 21, 'job', 3, null, 1, null, null, 9000),
                 (2, 700, 0, 'job', null, null, 400, 0, 100, 10),
                 (2, 300, 99, 'job', 0, null, 1, null, 1, 1),
                 (2, 721, 98, 'job', 0, null, 1, null, 1, 1)
             ) as v (h, at, i, line, code, signal, n, failed, cpu, rss)",
    )
    .await;
    assert_eq!(job, shared_model::ProcessId::of("job").0);
}

fn rows(answer: &Value) -> Vec<Value> {
    let of = |row: &Value| {
        json!([
            row["host_name"],
            row["instance_id"],
            row["exit_code"],
            row["exit_signal"],
            row["process_count"]
        ])
    };
    answer["items"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn what_ended_and_how() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        exits(&api).await;
        let job = json!(["one", "11", 0, null, 1]);
        let killed = json!(["one", "12", null, 9, 1]);
        let failed = json!(["two", "21", 3, null, 1]);
        let many = json!(["two", "0", null, null, 400]);
        let all = api.get(&format!("/v1/exits?{WINDOW}")).await;
        assert_eq!(rows(&all), [many.clone(), failed.clone(), killed.clone(), job.clone()]);
        let last = &all["items"][3];
        assert_eq!(
            [
                &last["command_line"],
                &last["exit_time"],
                &last["lifetime_us"],
                &last["pid"],
                &last["owner"]
            ],
            [
                &json!("job"),
                &json!("2026-03-01T03:06:39.5Z"),
                &json!(200_000),
                &json!(11),
                &json!("alice")
            ]
        );
        assert_eq!(all["items"][0]["exit_time"], Value::Null);
        let bad = api.get(&format!("/v1/exits?{WINDOW}&failed=true")).await;
        assert_eq!(rows(&bad), [failed.clone(), killed.clone()]);
        let by_cpu = api.get(&format!("/v1/exits?{WINDOW}&sort=cpu")).await;
        assert_eq!(rows(&by_cpu), [killed.clone(), many.clone(), job.clone(), failed.clone()]);
        let id = shared_model::ProcessId::of("killed").0.simple().to_string();
        let process = api.get(&format!("/v1/exits?{WINDOW}&process_id={id}")).await;
        assert_eq!(rows(&process), std::slice::from_ref(&killed));
        let one = api.get(&format!("/v1/exits?{WINDOW}&host=one&instance_id=11")).await;
        assert_eq!(rows(&one), [job]);
        let page = api.get(&format!("/v1/exits?{WINDOW}&limit=2&after=1")).await;
        assert_eq!((rows(&page), &page["next"]), (vec![failed, killed], &json!("3")));
        for (query, field) in
            [("instance_id=1", "instance_id"), ("limit=0", "limit"), ("after=10001", "after")]
        {
            let path = format!("/v1/exits?{query}");
            let (status, body) = api.send_as(Role::Viewer, "GET", &path, None).await;
            assert_eq!(
                (status.as_u16(), &body["errors"][0]["field"]),
                (400, &json!(field)),
                "{path}"
            );
        }
    }
}
