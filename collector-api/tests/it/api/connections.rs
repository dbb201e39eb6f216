//! Who talked to whom: between two hosts, of a host, of an instance, to an address.

use fleet_sim::database::Engine;
use serde_json::{Value, json};

use super::kit::{Api, host, instance, sql};

const WINDOW: &str = "from=2026-03-01T03:05:00Z&to=2026-03-01T03:12:00Z";

/// web (10.0.0.1) asks db (10.0.0.2) and a stranger; both talk on their loopback, too.
async fn talks(api: &Api) {
    let mut db = api.connect().await;
    let web = host(&mut db, 1, "web").await;
    let database = host(&mut db, 2, "db").await;
    instance(&mut db, web, 11, "php-fpm").await;
    instance(&mut db, database, 22, "mysqld").await;
    sql(
        &mut db,
        "insert into connection_samples (host_id, sampled_at, interval_ms, instance_id, protocol, direction, scope,
             local_address, local_port, remote_address, remote_port, connection_count, shared, receive_bytes, transmit_bytes, retransmits)
         select lpad(h::text, 32, '0')::uuid, timestamptz '2026-03-01 03:12+00' - k * interval '30 s', 30000, i, 'tcp', direction, scope,
             l::inet, lp, r::inet, rp, 2 + k, false, rx, tx, null
         from generate_series(0, 1) k, (values
             (1, 11, 'outbound', 'external', '10.0.0.1', 0, '10.0.0.2', 3306, 1000, 50),
             (1, 11, 'outbound', 'external', '10.0.0.1', 0, '192.0.2.9', 443, 7, null),
             (1, null, 'inbound', 'loopback', '127.0.0.1', 80, '127.0.0.1', 0, 1, 1),
             (2, 22, 'inbound', 'external', '10.0.0.2', 3306, '10.0.0.1', 0, 50, 1000),
             (2, 22, 'inbound', 'loopback', '127.0.0.1', 3306, '127.0.0.1', 0, 5000, 5000)
         ) as v (h, i, direction, scope, l, lp, r, rp, rx, tx);
         insert into connection_samples (host_id, sampled_at, interval_ms, protocol, local_address, local_port, remote_address, remote_port,
             connection_count, shared, receive_bytes)
         values ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:05+00', 30000, 'tcp', '10.0.0.1', 1, '10.0.0.2', 1, 1, false, 9),
                ('00000000-0000-0000-0000-000000000001', '2026-03-01 03:12:00.000001+00', 30000, 'tcp', '10.0.0.1', 1, '10.0.0.2', 1, 1, false, 9)",
    )
    .await;
}

fn rows(answer: &Value) -> Vec<Value> {
    let of = |row: &Value| {
        let names = [
            "host_name",
            "command_line",
            "remote_address",
            "remote_port",
            "receive_bytes",
            "transmit_bytes",
        ];
        json!(names.map(|name| row[name].clone()))
    };
    answer["items"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn who_talked_to_whom_and_how_much() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        talks(&api).await;
        let to_db = json!(["web", "php-fpm", "10.0.0.2", 3306, 2000, 100]);
        let to_web = json!(["db", "mysqld", "10.0.0.1", 0, 100, 2000]);
        let stranger = json!(["web", "php-fpm", "192.0.2.9", 443, 14, null]);
        let between = api.get(&format!("/v1/connections?{WINDOW}&host=web&peer=db")).await;
        assert_eq!(rows(&between), std::slice::from_ref(&to_db));
        assert_eq!(between["peer_addresses"], json!(["10.0.0.2"]));
        let first = &between["items"][0];
        assert_eq!(
            (&first["sample_count"], &first["connection_count_max"]),
            (&json!(2), &json!(3))
        );
        assert_eq!((&first["retransmits"], &first["pid"]), (&Value::Null, &json!(11)));
        let back = api.get(&format!("/v1/connections?{WINDOW}&host=db&peer=web")).await;
        assert_eq!(rows(&back), [to_web]);
        let one = api.get(&format!("/v1/connections?{WINDOW}&host=web&instance_id=11")).await;
        assert_eq!(rows(&one), [to_db.clone(), stranger.clone()]);
        let address = api.get(&format!("/v1/connections?{WINDOW}&remote_address=192.0.2.9")).await;
        assert_eq!(rows(&address), [stranger]);

        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/v1/connections?{WINDOW}&limit=2{after}")).await;
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|row| row["place"].as_i64().unwrap()),
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        for (query, field) in [
            ("instance_id=11", "instance_id"),
            ("peer=db&remote_address=192.0.2.9", "peer"),
            ("limit=1001", "limit"),
        ] {
            let path = format!("/v1/connections?{query}");
            let (status, body) =
                api.send_as(collector_api::auth::operator::Role::Viewer, "GET", &path, None).await;
            assert_eq!(
                (status.as_u16(), &body["errors"][0]["field"]),
                (400, &json!(field)),
                "{path}"
            );
        }
        assert_eq!(
            api.refused("/v1/connections?remote_address=x").await,
            (400, "bad_parameter".into())
        );
    }
}
