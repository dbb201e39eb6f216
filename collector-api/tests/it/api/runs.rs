//! Who ran a command line, when and where.

use fleet_sim::database::Engine;
use serde_json::{Value, json};
use shared_model::ProcessId;

use super::kit::{Api, host, instance, query, sql};

#[tokio::test]
async fn every_run_of_a_command_line_is_found_newest_first() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        for number in 1..=2_u32 {
            let id = host(&mut db, u128::from(number), &format!("host-{number}")).await;
            for run in 1..=3 {
                instance(&mut db, id, i64::from(number * 10 + run), "backup --all /srv").await;
            }
            instance(&mut db, id, 5, "backup --none").await;
        }
        // Two began at the same moment, on different hosts.
        sql(&mut db, "update process_instances set creation_time = '2026-03-01 00:00+00'::timestamptz + instance_id % 10 * interval '1.000001 h'").await;
        let id = ProcessId::of("backup --all /srv").0.simple().to_string();
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/v1/processes/{id}/runs?limit=2{after}")).await;
            assert_eq!(page["command_line"], "backup --all /srv");
            seen.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|run| json!([run["host_name"], run["instance_id"]])),
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&{}", query("after", next)),
                None => break,
            }
        }
        let expect: Vec<Value> = [(2, 23), (1, 13), (2, 22), (1, 12), (2, 21), (1, 11)]
            .iter()
            .map(|(host, id)| json!([format!("host-{host}"), id.to_string()]))
            .collect();
        assert_eq!(seen, expect);
        let early = api.get(&format!("/v1/processes/{id}/runs?to=2026-03-01T01:30:00Z")).await;
        assert_eq!(early["items"].as_array().unwrap().len(), 2);
        assert_eq!(early["items"][0]["creation_time"], "2026-03-01T01:00:00.0036Z");
        assert_eq!(api.refused(&format!("/v1/processes/{id}/runs?after=x")).await.0, 400);
        let nobody = "0".repeat(32);
        assert_eq!(api.refused(&format!("/v1/processes/{nobody}/runs")).await.0, 404);

        let found = |answer: Value| -> Vec<String> {
            answer["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["command_line"].as_str().unwrap().to_owned())
                .collect()
        };
        let words =
            api.get(&format!("/v1/processes?mode=words&{}", query("q", " SRV backup  --a"))).await;
        assert_eq!(found(words), ["backup --all /srv"]);
        let text = api.get(&format!("/v1/processes?{}", query("q", "srv backup"))).await;
        assert_eq!(found(text), Vec::<String>::new());
        let many = query("q", "a b c d e f g");
        assert_eq!(api.refused(&format!("/v1/processes?mode=words&{many}")).await.0, 400);
    }
}
