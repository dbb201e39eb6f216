//! The top of a window, and the search for command lines.

use collector_api::auth::operator::Role;
use fleet_sim::database::Engine;
use serde_json::{Value, json};
use time::Duration;

use super::kit::{AT, Api, Row, host, instance, query, sample, sql};

const WINDOW: &str = "from=2026-03-01T03:05:00Z&to=2026-03-01T03:12:00Z";
const ODD: &str = "mysqld --défaults='a b' \"50%_\\\" <script>";

/// Three instances in two ticks within the window, two rows just outside it, and a residual.
async fn incident(api: &Api) {
    let mut db = api.connect().await;
    let id = host(&mut db, 1, "db-1").await;
    for (number, command_line) in [(11, "burner"), (12, ODD), (13, "unknown numbers")] {
        instance(&mut db, id, number, command_line).await;
    }
    let burner = Row {
        instance_id: 11,
        cpu_user_us: Some(20_000_000),
        cpu_system_us: Some(10_000_000),
        memory: Some(100),
        disk: (Some(1), Some(2)),
        network: (None, None),
    };
    let mysqld = Row {
        instance_id: 12,
        cpu_user_us: Some(1),
        cpu_system_us: Some(2),
        memory: Some(1 << 40),
        disk: (Some(500), Some(700)),
        network: (Some(5), None),
    };
    let unknown = Row { instance_id: 13, ..Row::default() };
    let residual = Row { cpu_user_us: Some(7), cpu_system_us: Some(8), ..Row::default() };
    for tick in [AT - Duration::seconds(30), AT] {
        for row in [burner, mysqld, unknown, residual] {
            sample(&mut db, id, tick, row).await;
        }
    }
    // `from` is excluded, and after `to` is after.
    sample(&mut db, id, AT - Duration::minutes(7), burner).await;
    sample(&mut db, id, AT + Duration::MICROSECOND, burner).await;
    // Described by nobody, and another host's row.
    sample(&mut db, id, AT, Row { instance_id: i64::MAX, memory: Some(1), ..Row::default() }).await;
    let other = host(&mut db, 2, "db-2").await;
    sample(&mut db, other, AT, burner).await;
    sql(
        &mut db,
        "insert into host_samples (host_id, sampled_at, interval_ms, cpu_count, cpu_user_us, cpu_system_us, cpu_idle_us, memory_used_bytes)
             select '00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00'::timestamptz - n * interval '30 s', 30000, 4, 25000000, 11000000, 80000000, 10 + n
             from generate_series(0, 1) n;
         insert into block_device_samples (host_id, sampled_at, interval_ms, device, read_bytes, write_bytes)
             select '00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', 30000, device, 1000, null
             from unnest(array['vda', 'dm-0', 'md1', 'nvme0n1']) device;
         insert into network_interface_samples (host_id, sampled_at, interval_ms, interface, receive_bytes, transmit_bytes)
             select '00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', 30000, interface, 9, 4
             from unnest(array['lo', 'eth0']) interface",
    )
    .await;
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["instance_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_top_of_a_window_adds_up_exactly() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        incident(&api).await;
        let all = api.get(&format!("/v1/hosts/db-1/processes?{WINDOW}")).await;
        let first = &all["processes"][0];
        assert_eq!(first["instance_id"], "11");
        assert_eq!(first["command_line"], "burner");
        assert_eq!((&first["pid"], &first["owner"]), (&json!(11), &json!("alice")));
        assert_eq!(
            (&first["systemd_unit"], &first["container_id"]),
            (&json!("db.service"), &json!(null))
        );
        assert_eq!(first["cpu_us"], 60_000_000);
        assert_eq!(first["covered_ms"], 60_000);
        assert_eq!(first["cpu_cores"], 1.0);
        assert_eq!(first["sample_count"], 2);
        assert_eq!(first["first_sampled_at"], "2026-03-01T03:11:30Z");
        assert_eq!(first["last_sampled_at"], "2026-03-01T03:12:00Z");
        assert_eq!(first["network_receive_bytes"], Value::Null);
        let second = &all["processes"][1];
        assert_eq!(second["command_line"], ODD);
        assert_eq!(second["memory_usage_bytes_max"], 1_u64 << 40);
        assert_eq!(second["disk_write_bytes"], 1400);
        assert_eq!(
            (&second["network_receive_bytes"], &second["network_transmit_bytes"]),
            (&json!(10), &json!(null))
        );
        let residual = &all["residual"];
        assert_eq!((&residual["cpu_us"], &residual["process_count"]), (&json!(30), &json!(40)));
        assert_eq!(
            (&residual["instance_id"], &residual["command_line"]),
            (&json!("0"), &json!(null))
        );
        assert_eq!(all["remaining"], Value::Null);
        let host = &all["host"];
        assert_eq!(
            (&host["cpu_user_us"], &host["cpu_system_us"]),
            (&json!(50_000_000), &json!(22_000_000))
        );
        assert_eq!((&host["cpu_iowait_us"], &host["covered_ms"]), (&json!(null), &json!(60_000)));
        assert_eq!(host["memory_used_bytes_max"], 11);
        assert_eq!(
            (&host["disk_read_bytes"], &host["disk_write_bytes"]),
            (&json!(2000), &json!(null))
        );
        assert_eq!(
            (&host["network_receive_bytes"], &host["network_transmit_bytes"]),
            (&json!(9), &json!(4))
        );

        // Cut to one row, the rest is in `remaining`: the sum stays.
        let one = api.get(&format!("/v1/hosts/db-1/processes?{WINDOW}&limit=1")).await;
        assert_eq!(one["processes"].as_array().unwrap().len(), 1);
        assert_eq!(one["remaining"]["instance_count"], 3);
        assert_eq!(one["remaining"]["cpu_us"], 6);
        assert_eq!(one["remaining"]["disk_read_bytes"], 1000);
        assert_eq!(one["remaining"]["memory_usage_bytes_max"], Value::Null);
        assert_eq!(one["residual"], *residual);
    }
}

#[tokio::test]
async fn every_sort_ranks_by_its_resource_and_unknown_comes_last() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        incident(&api).await;
        let huge = i64::MAX.to_string();
        for (sort, expect) in [
            ("cpu", ["11", "12", "13", &huge]),
            ("memory", ["12", "11", &huge, "13"]),
            ("disk", ["12", "11", "13", &huge]),
            ("network", ["12", "11", "13", &huge]),
        ] {
            let answer = api.get(&format!("/v1/hosts/db-1/processes?{WINDOW}&sort={sort}")).await;
            assert_eq!(ids(&answer), expect, "{sort}");
            assert_eq!(answer["sort"], sort);
        }
        let unknown =
            api.get(&format!("/v1/hosts/db-1/processes?{WINDOW}")).await["processes"][2].clone();
        for field in [
            "cpu_us",
            "cpu_user_us",
            "cpu_cores",
            "memory_usage_bytes_max",
            "memory_usage_bytes_mean",
            "disk_read_bytes",
            "disk_write_bytes",
            "network_receive_bytes",
            "run_queue_delay_us",
        ] {
            assert_eq!(unknown[field], Value::Null, "{field}");
        }
    }
}

#[tokio::test]
async fn absurd_numbers_of_a_host_do_not_break_its_answers() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        let id = host(&mut db, 1, "evil").await;
        let max = Some(i64::MAX);
        let row = Row {
            instance_id: 1,
            cpu_user_us: max,
            cpu_system_us: max,
            memory: max,
            disk: (max, max),
            network: (max, max),
        };
        for seconds in 0..3 {
            sample(&mut db, id, AT - Duration::seconds(seconds), row).await;
        }
        let answer = api.get(&format!("/v1/hosts/evil/processes?{WINDOW}")).await;
        assert_eq!(answer["processes"][0]["cpu_us"], i64::MAX);
        // As near as a sample can come: 26 bits.
        let most = ((1_i64 << 26) - 1) << 37;
        assert_eq!(answer["processes"][0]["memory_usage_bytes_mean"], most);
    }
}

#[tokio::test]
async fn an_empty_window_is_an_empty_answer() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        host(&mut api.connect().await, 1, "idle").await;
        let answer = api.get("/v1/hosts/idle/processes").await;
        assert_eq!(answer["processes"], json!([]));
        assert_eq!((&answer["remaining"], &answer["residual"]), (&json!(null), &json!(null)));
        assert_eq!(
            (&answer["host"]["sample_count"], &answer["host"]["cpu_user_us"]),
            (&json!(0), &json!(null))
        );
    }
}

async fn search(api: &Api, q: &str) -> Vec<String> {
    let answer = api.get(&format!("/v1/processes?{}", query("q", q))).await;
    answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["command_line"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_search_finds_its_text_and_nothing_but_its_text() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        incident(&api).await;
        for q in [ODD, "50%_\\", "'a b'", "DÉFAULTS", "<script>", "--d"] {
            assert_eq!(search(&api, q).await, [ODD], "{q}");
        }
        for q in
            ["5_%", "50__", "%burner", "b%r", "'; drop table hosts; --", "' or ''='", "\\", "\\\\"]
        {
            let expect: &[&str] = if q == "\\" { &[ODD] } else { &[] };
            assert_eq!(search(&api, q).await, expect, "{q}");
        }
        assert_eq!(search(&api, "").await.len(), 3);
        let nul = format!("/v1/processes?{}", query("q", "a\0b"));
        assert_eq!(api.refused(&nul).await, (400, "bad_parameter".into()));
        let long = format!("/v1/processes?q={}", "x".repeat(1025));
        assert_eq!(api.refused(&long).await, (400, "bad_parameter".into()));
    }
}

#[tokio::test]
async fn a_search_says_where_and_when_and_turns_its_pages() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        for number in 1..=12 {
            let id = host(&mut db, number, &format!("web-{number:02}")).await;
            instance(&mut db, id, 1, "nginx: worker").await;
            instance(&mut db, id, 2, "nginx: worker").await;
        }
        for number in 0..5 {
            let id = uuid::Uuid::from_u128(1);
            instance(&mut db, id, 100 + number, &format!("job {number}")).await;
        }
        let now = time::OffsetDateTime::from_unix_timestamp(2_000_000_000).unwrap();
        let one = uuid::Uuid::from_u128(1);
        sample(&mut db, one, now, Row { instance_id: 1, ..Row::default() }).await;
        let answer = api.get("/v1/processes?q=nginx").await;
        let found = &answer["items"][0];
        assert_eq!(found["host_count"], 12);
        let hosts = found["hosts"].as_array().unwrap();
        assert_eq!(hosts.len(), 10);
        let first = hosts.iter().find(|host| host["host_name"] == "web-01").unwrap();
        assert_eq!(first["instance_count"], 2);
        assert_eq!(first["last_started_at"], "2026-03-01T02:12:00Z");
        assert_eq!(first["last_seen_at"], "2033-05-18T03:33:20Z");
        let second = hosts.iter().find(|host| host["host_name"] == "web-02").unwrap();
        assert_eq!(second["last_seen_at"], "2026-03-01T02:12:00Z");

        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/v1/processes?q=JOB&limit=2{after}")).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            seen.extend(items.iter().map(|item| item["command_line"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        seen.sort();
        assert_eq!(seen, ["job 0", "job 1", "job 2", "job 3", "job 4"]);
        let (status, _) = api.send_as(Role::Viewer, "GET", "/v1/processes?after=x", None).await;
        assert_eq!(status, 400);
    }
}
