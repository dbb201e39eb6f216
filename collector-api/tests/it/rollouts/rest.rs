//! What operators do to rollouts, over REST and by the commands.

use std::process::Command;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::rollouts;
use collector_api::store::Store;
use collector_api::store::audit::Actor;
use fleet_sim::database::{Engine, TestDatabase};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server, plain_client};
use crate::kit::Host;

struct Desk<'a> {
    server: &'a Server,
    key: String,
}

impl<'a> Desk<'a> {
    async fn create(fleet: &Fleet, server: &'a Server) -> Self {
        let minted = MintedApiKey::from_random([9; 48], "ada".into(), Role::Admin, None);
        fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        Self { server, key: minted.to_paste() }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = plain_client().request(method, self.server.operator_url(path));
        let response = request.bearer_auth(&self.key).json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_and_pins_over_rest() {
    let fleet = Fleet::create("rollouts-rest").await;
    let server = fleet.serve(&fleet.config()).await;
    let host = Identity::enroll(&fleet, &server).await.given.host_id;
    let desk = Desk::create(&fleet, &server).await;
    for (body, field) in [
        (json!({ "target_seq": 0 }), "target_seq"),
        (json!({ "target_seq": 7, "canary_count": 101 }), "canary_count"),
        (json!({ "target_seq": 7, "max_in_flight": 0 }), "max_in_flight"),
        (json!({ "target_seq": 7, "soak_s": 604_801 }), "soak_s"),
        (json!({ "target_seq": 7, "canary_selector": "a b" }), "canary_selector"),
    ] {
        let (status, answer) = desk.ask(Method::POST, "/v1/rollouts", body).await;
        let named = answer["detail"].to_string().contains(&format!("`{field}`"));
        assert!(status == 422 && named, "{answer}");
    }
    let body = json!({ "target_seq": 7, "canary_selector": "env=test", "soak_s": 60 });
    let (status, made) = desk.ask(Method::POST, "/v1/rollouts", body.clone()).await;
    assert_eq!((status, &made["state"]), (201, &json!("canary")), "{made}");
    assert_eq!((&made["created_by"], &made["soak_s"]), (&json!("ada"), &json!(60)));
    let (status, refused) = desk.ask(Method::POST, "/v1/rollouts", body).await;
    assert_eq!((status, &refused["code"]), (409, &json!("rollout_conflict")), "{refused}");
    let path = format!("/v1/rollouts/{}", made["rollout_id"].as_str().unwrap());
    for (change, status, state) in [
        ("resume", 409, None),
        ("pause", 200, Some("paused")),
        ("advance", 409, None),
        ("resume", 200, Some("canary")),
        ("advance", 200, Some("canary")),
        ("cancel", 200, Some("cancelled")),
        ("cancel", 409, None),
    ] {
        let of = format!("{path}/{change}");
        let (found, answer) = desk.ask(Method::POST, &of, Value::Null).await;
        assert_eq!((found, answer["state"].as_str()), (status, state), "{change}: {answer}");
    }
    let nobody = format!("/v1/rollouts/{}", Uuid::nil());
    assert_eq!(desk.ask(Method::GET, &nobody, Value::Null).await.0, 404);
    assert_eq!(desk.ask(Method::POST, &format!("{nobody}/pause"), Value::Null).await.0, 404);

    let path = format!("/v1/hosts/{host}");
    let release = async || desk.ask(Method::GET, &path, Value::Null).await.1["release"].clone();
    assert_eq!(release().await, Value::Null);
    let pin = format!("{path}/release-pin");
    assert_eq!(desk.ask(Method::PUT, &pin, json!({ "seq": 0 })).await.0, 422);
    assert_eq!(desk.ask(Method::PUT, &pin, json!({ "seq": 6 })).await.0, 204);
    let pinned = release().await;
    assert_eq!((&pinned["pinned_seq"], &pinned["desired_seq"]), (&json!(6), &json!(6)));
    assert_eq!(pinned["state"], Value::Null, "it never said anything");
    assert_eq!(desk.ask(Method::DELETE, &pin, Value::Null).await.0, 204);
    assert_eq!(release().await["desired_seq"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_begin_show_hold_and_end_a_rollout() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let store = Store::connect(&database.url, 4).await.unwrap();
    let host = Host::enroll(&database, 1).await.host_id;
    let url = database.url.clone();
    let run = async |words: String| {
        let url = url.clone();
        let run = tokio::task::spawn_blocking(move || {
            Command::new(env!("CARGO_BIN_EXE_procfleet-server"))
                .args(["release", "rollout"])
                .args(words.split(' '))
                .env("PROCFLEET_DATABASE_URL", url)
                .output()
                .unwrap()
        });
        let run = run.await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if run.status.success() { Ok(text(run.stdout)) } else { Err(text(run.stderr)) }
    };
    let refused = run("pause".into()).await.unwrap_err();
    assert!(refused.contains("there is no rollout: begin one"), "{refused}");
    let refused = run("start --seq 7 --canaries 0".into()).await.unwrap_err();
    assert!(refused.contains("canary_count must be 1 to 100"), "{refused}");
    let id = run("start --seq 7 --soak 1h".into()).await.unwrap().trim().to_owned();
    let refused = run("start --seq 8".into()).await.unwrap_err();
    assert!(refused.contains("another rollout is open"), "{refused}");

    let mut connection = database.connect().await.unwrap();
    sqlx::query(
        "with heard as (
            insert into heartbeats (host_id, deadline_at) values ($1, now() + interval '1 hour'))
        insert into host_releases (host_id, installed_seq, state) values ($1, 6, 'confirmed')",
    )
    .bind(host)
    .execute(&mut connection)
    .await
    .unwrap();
    rollouts::round(&store, 0.0).await.unwrap();
    let listed = run("list".into()).await.unwrap();
    let row = listed.lines().nth(1).unwrap();
    assert!(row.starts_with(&id) && row.contains("canary"), "{listed}");
    let shown: Value =
        serde_json::from_str(&run(format!("show {id} --output json")).await.unwrap()).unwrap();
    assert_eq!((&shown["soak_s"], &shown["hosts_under_way"]), (&json!(3600), &json!(1)));
    assert_eq!(shown["hosts"][0]["host_id"], json!(host));
    assert!(run("show".into()).await.unwrap().contains(&host.to_string()));

    for words in ["pause", "resume", "advance"] {
        run(words.into()).await.unwrap();
    }
    run(format!("pin {host} 5")).await.unwrap();
    let release = store.host_release(host).await.unwrap().unwrap();
    assert_eq!((release.pinned_seq, release.desired_seq), (Some(5), Some(5)));
    run(format!("unpin {host}")).await.unwrap();
    assert!(run(format!("pin {} 5", Uuid::nil())).await.unwrap_err().contains("there is no host"));
    run(format!("cancel {id}")).await.unwrap();
    let refused = run("resume".into()).await.unwrap_err();
    assert!(refused.contains(&format!("the rollout {id} is cancelled")), "{refused}");
}
