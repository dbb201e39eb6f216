//! Hosts: the list, the detail, and whom a name means.

use fleet_sim::database::Engine;
use serde_json::{Value, json};

use super::kit::{Api, host, query, sql};

pub(crate) fn names(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["host_name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_list_is_by_name_in_pages_and_says_who_is_silent() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        for (number, name) in [(1, "b"), (2, "a"), (3, "a"), (4, "50%_'\"<b>é"), (5, "c")] {
            host(&mut db, number, name).await;
        }
        sql(
            &mut db,
            "insert into heartbeats (host_id, last_seen_at, last_sampled_at, deadline_at, interval_ms) values
                 ('00000000-0000-0000-0000-000000000001', now(), '2026-03-01 03:12:00+00', now() + interval '1 hour', 30000),
                 ('00000000-0000-0000-0000-000000000002', now(), '2026-03-01 03:12:00+00', now() - interval '1 s', 30000),
                 ('00000000-0000-0000-0000-000000000003', null, null, null, null);
             insert into host_samples (host_id, sampled_at, interval_ms, cpu_count, cpu_user_us, cpu_system_us, cpu_idle_us, memory_used_bytes) values
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', 30000, 4, 20, 10, 70, 5),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:11:30+00', 30000, 4, 1, 1, 1, 6),
                 ('00000000-0000-0000-0000-000000000002', '2026-03-01 03:12:00+00', 30000, 4, 9223372036854775807, 9223372036854775807, 9223372036854775807, 5)",
        )
        .await;
        let all = api.get("/v1/hosts").await;
        assert_eq!(names(&all), ["50%_'\"<b>é", "a", "a", "b", "c"]);
        assert_eq!(all["next"], Value::Null);
        let b = &all["items"][3];
        assert_eq!(
            (&b["silent"], &b["cpu_utilization_ratio"], &b["memory_used_bytes"]),
            (&json!(false), &json!(0.3), &json!(5))
        );
        let silent: Vec<&Value> =
            all["items"].as_array().unwrap().iter().map(|host| &host["silent"]).collect();
        assert_eq!(silent, [&json!(null), &json!(true), &json!(null), &json!(false), &json!(null)]);
        assert_eq!(all["items"][4]["cpu_utilization_ratio"], Value::Null);

        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/v1/hosts?limit=2{after}")).await;
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|host| host["host_id"].clone()),
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let ids: Vec<Value> =
            all["items"].as_array().unwrap().iter().map(|host| host["host_id"].clone()).collect();
        assert_eq!(seen, ids);

        for (q, expect) in
            [("A", 2), ("%", 1), ("_", 1), ("'", 1), ("É", 1), ("%%", 0), ("", 5), ("zz", 0)]
        {
            let page = api.get(&format!("/v1/hosts?{}", query("q", q))).await;
            assert_eq!(names(&page).len(), expect, "{q}");
        }
    }
}

#[tokio::test]
async fn a_host_is_found_by_id_or_by_a_name_that_means_one() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        for (number, name) in
            [(1, "twin"), (2, "twin"), (3, "reborn"), (4, "reborn"), (5, "a/b %?#é")]
        {
            host(&mut db, number, name).await;
        }
        sql(&mut db, "update hosts set lifecycle = 'decommissioned' where host_id = '00000000-0000-0000-0000-000000000003'").await;
        let detail = api.get("/v1/hosts/00000000-0000-0000-0000-000000000002").await;
        assert_eq!(detail["host_name"], "twin");
        for part in ["sample", "agent"] {
            assert_eq!(detail[part], Value::Null);
        }
        assert_eq!(detail["filesystems"], json!([]));
        let reborn = api.get("/v1/hosts/reborn").await;
        assert_eq!(reborn["host_id"], "00000000-0000-0000-0000-000000000004");
        assert_eq!(
            api.get("/v1/hosts/a%2Fb%20%25%3F%23%C3%A9").await["host_id"],
            "00000000-0000-0000-0000-000000000005"
        );

        let viewer = collector_api::auth::operator::Role::Viewer;
        let (status, problem) = api.send_as(viewer, "GET", "/v1/hosts/twin/processes", None).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("ambiguous_host")));
        let named: Vec<&Value> =
            problem["errors"].as_array().unwrap().iter().map(|error| &error["detail"]).collect();
        assert_eq!(
            named,
            ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"]
        );
    }
}

#[tokio::test]
async fn the_detail_shows_what_was_last_seen_of_each_part() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        host(&mut db, 1, "db").await;
        sql(
            &mut db,
            "insert into heartbeats (host_id, last_seen_at, last_sampled_at, deadline_at, interval_ms)
                 values ('00000000-0000-0000-0000-000000000001', now(), '2026-03-01 03:12:00+00', now(), 30000);
             insert into host_samples (host_id, sampled_at, interval_ms, cpu_user_us, agent_cpu_us, agent_losses) values
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', 30000, 20, 4000, '{\"spool_full\": 3}'),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:11:30+00', 30000, 10, 1, null);
             insert into filesystem_samples (host_id, sampled_at, mount_point, device, filesystem_type, total_bytes) values
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', '/', '/dev/vda1', 'xfs', 7),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:11:30+00', '/', '/dev/vda1', 'xfs', 6),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:11:30+00', '/slow nfs', 'nas:/x', 'nfs', null),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:02:00+00', '/gone', '/dev/vdb', 'xfs', 1);
             insert into block_device_samples (host_id, sampled_at, interval_ms, device, read_bytes, utilization_ratio)
                 values ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', 30000, 'vda', 512, 0.5);
             insert into network_interface_samples (host_id, sampled_at, interval_ms, interface, receive_bytes)
                 values ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00+00', 30000, 'eth0', 9)",
        )
        .await;
        let detail = api.get("/v1/hosts/db").await;
        assert_eq!(
            (&detail["sample"]["cpu_user_us"], &detail["sample"]["cpu_system_us"]),
            (&json!(20), &json!(null))
        );
        assert_eq!(detail["filesystems"][0]["total_bytes"], 7);
        assert_eq!(detail["filesystems"][1]["mount_point"], "/slow nfs");
        assert_eq!(detail["filesystems"].as_array().unwrap().len(), 2);
        assert_eq!(detail["block_devices"][0]["utilization_ratio"], 0.5);
        assert_eq!(
            (
                &detail["network_interfaces"][0]["receive_bytes"],
                &detail["network_interfaces"][0]["receive_drops"]
            ),
            (&json!(9), &json!(null))
        );
        assert_eq!(
            (&detail["agent"]["cpu_us"], &detail["agent"]["losses"]),
            (&json!(4000), &json!({"spool_full": 3}))
        );
    }
}
