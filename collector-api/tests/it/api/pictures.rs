//! Stacks and sparklines: everything recorded is in them, once.

use fleet_sim::database::Engine;
use serde_json::{Value, json};
use time::Duration;

use super::kit::{AT, Api, Row, host, instance, sample, sql};

const WINDOW: &str = "from=2026-03-01T03:00:00Z&to=2026-03-01T03:12:00Z";

/// Four processes, one of them with two runs, and a residual, in two ticks of 30 s.
async fn workload(api: &Api) {
    let mut db = api.connect().await;
    let id = host(&mut db, 1, "db-1").await;
    for (number, command_line) in
        [(11, "steady"), (12, "steady"), (13, "peak"), (14, "small"), (15, "tiny")]
    {
        instance(&mut db, id, number, command_line).await;
    }
    for (tick, peak) in [(AT - Duration::seconds(30), 0), (AT, 30_000_000)] {
        for (instance_id, cpu) in
            [(11, 14_000_000), (12, 10_000_000), (13, peak), (14, 2), (15, 1), (0, 7)]
        {
            let row = Row {
                instance_id,
                cpu_user_us: Some(cpu),
                cpu_system_us: Some(0),
                memory: Some(100),
                ..Row::default()
            };
            sample(&mut db, id, tick, row).await;
        }
    }
    sql(
        &mut db,
        "insert into host_samples (host_id, sampled_at, interval_ms, cpu_count, cpu_user_us, cpu_system_us, cpu_idle_us, memory_total_bytes, memory_used_bytes)
             select '00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00'::timestamptz - n * interval '30 s', 30000, 4, 25000000, 5000000, 90000000, 1000, 250
             from generate_series(0, 1) n",
    )
    .await;
}

fn values(answer: &Value, place: usize) -> &Value {
    &answer["processes"][place]["values"]
}

async fn a_stack_holds_everything(engine: Engine) {
    let api = Api::start(engine).await;
    workload(&api).await;
    let answer = api.get(&format!("/v1/hosts/db-1/stack?{WINDOW}&limit=2")).await;
    assert_eq!(answer["times_ms"].as_array().unwrap().len(), 2, "{answer:#}");
    assert_eq!(answer["covered_ms"], json!([30000, 30000]));
    assert_eq!(answer["processes"][0]["command_line"], "steady");
    assert_eq!(answer["processes"][0]["instance_count"], 2);
    assert_eq!(values(&answer, 0), &json!([24_000_000.0, 24_000_000.0]), "both runs");
    assert_eq!(answer["processes"][1]["command_line"], "peak", "the highest peak has a place");
    assert_eq!(values(&answer, 1), &json!([0.0, 30_000_000.0]));
    assert_eq!(answer["remaining"], json!([3.0, 3.0]));
    assert_eq!(answer["residual"], json!([7.0, 7.0]));

    let answer = api.get(&format!("/v1/hosts/db-1/stack?{WINDOW}&limit=2&step=5m")).await;
    assert_eq!(answer["step_s"], 300);
    assert_eq!(answer["covered_ms"], json!([60000]), "{answer:#}");
    assert_eq!(values(&answer, 0), &json!([48_000_000.0]));
    assert_eq!(answer["residual"], json!([14.0]));

    let answer = api.get(&format!("/v1/hosts/db-1/stack?{WINDOW}&sort=memory&step=5m")).await;
    let sum: f64 = answer["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["values"][0].as_f64().unwrap())
        .sum();
    assert!((sum - 500.0).abs() < 1e-6, "means over time of five runs: {answer:#}");
    let empty =
        api.get("/v1/hosts/db-1/stack?from=2026-02-01T00:00:00Z&to=2026-02-01T01:00:00Z").await;
    assert_eq!(empty["times_ms"], json!([]));
    for (query, code) in
        [("limit=51", "bad_parameter"), ("step=1x", "bad_parameter"), ("x=1", "bad_parameter")]
    {
        assert_eq!(api.refused(&format!("/v1/hosts/db-1/stack?{query}")).await, (400, code.into()));
    }
    assert_eq!(api.refused("/v1/hosts/none/stack").await.0, 404);
}

#[tokio::test]
async fn a_stack_holds_everything_on_timescaledb() {
    a_stack_holds_everything(Engine::TimescaleDb).await;
}

#[tokio::test]
async fn a_stack_holds_everything_on_postgresql() {
    a_stack_holds_everything(Engine::PostgreSql).await;
}

#[tokio::test]
async fn sparklines_are_shares() {
    let api = Api::start(Engine::TimescaleDb).await;
    workload(&api).await;
    host(&mut api.connect().await, 2, "db-2").await;
    let ids = "00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002";
    let answer = api.get(&format!("/v1/sparklines?hosts={ids}&{WINDOW}")).await;
    let hosts = answer["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 1, "who has no samples has no line: {answer:#}");
    assert_eq!(hosts[0]["cpu_utilization_ratio"], json!([0.25, 0.25]));
    assert_eq!(hosts[0]["memory_utilization_ratio"], json!([0.25, 0.25]));
    assert_eq!(api.refused("/v1/sparklines?hosts=x").await, (400, "bad_parameter".into()));
    let many = vec!["00000000-0000-0000-0000-000000000001"; 201].join(",");
    assert_eq!(api.refused(&format!("/v1/sparklines?hosts={many}")).await.0, 400);
}

#[tokio::test]
async fn runs_are_found_by_what_the_kernel_says() {
    let api = Api::start(Engine::TimescaleDb).await;
    workload(&api).await;
    sql(
        &mut api.connect().await,
        "update process_instances set service_ports = '{3306,33060}', container_id = 'abcdef0123' where instance_id = 13",
    )
    .await;
    for (query, count) in [
        ("port=33060", 1),
        ("port=1", 0),
        ("owner=alice", 5),
        ("owner=ali", 0),
        ("container=DEF01", 1),
        ("unit=db.s", 5),
        ("pid=14&host=db-1", 1),
        ("owner=alice&port=3306", 1),
        ("container=%25", 0),
    ] {
        let answer = api.get(&format!("/v1/instances?{query}")).await;
        assert_eq!(answer["items"].as_array().unwrap().len(), count, "{query}: {answer:#}");
    }
    let answer = api.get("/v1/instances?owner=alice&limit=4").await;
    assert_eq!(
        (answer["more"].as_bool(), answer["items"].as_array().unwrap().len()),
        (Some(true), 4)
    );
    let found = api.get("/v1/instances?port=3306").await;
    assert_eq!(found["items"][0]["command_line"], "peak");
    assert_eq!(found["items"][0]["service_ports"], json!([3306, 33060]));
    let top = api.get(&format!("/v1/hosts/db-1/processes?{WINDOW}")).await;
    assert!(top.to_string().contains("[3306,33060]"), "the top tells ports, too: {top:#}");
    assert_eq!(api.refused("/v1/instances?port=70000").await.0, 400);
}
