//! Configuration from the centre, as operators set it and agents hear of it.

use std::time::Duration;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::store::audit::Actor;
use fleet_sim::eventually::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use shared_model::configuration::CONFIGURATION_HEADER;

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server, plain_client};

const PATIENCE: Duration = Duration::from_secs(30);

struct Operator {
    key: String,
    server: Server,
}

impl Operator {
    async fn new(fleet: &Fleet) -> Self {
        let server = fleet.serve(&fleet.config()).await;
        let minted = MintedApiKey::from_random([7; 48], "ada".into(), Role::Admin, None);
        fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        Self { key: minted.to_paste(), server }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let url = self.server.operator_url(path);
        let mut request = plain_client().request(method, url).bearer_auth(&self.key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn profile(&self, body: Value) -> String {
        let (status, made) = self.ask(Method::POST, "/v1/profiles", body).await;
        assert_eq!(status, 201, "{made}");
        made["profile_id"].as_str().unwrap().to_owned()
    }

    async fn label(&self, host: &Identity, labels: Value) {
        let path = format!("/v1/hosts/{}/labels", host.given.host_id);
        let (status, answer) = self.ask(Method::PUT, &path, json!({ "labels": labels })).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn of(&self, host: &Identity) -> Value {
        let path = format!("/v1/hosts/{}/configuration", host.given.host_id);
        let (status, answer) = self.ask(Method::GET, &path, Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

/// What an agent says, and hears.
async fn fetch(fleet: &Fleet, server: &Server, host: &Identity, status: Value) -> (u16, Value) {
    let request = host.client(fleet).put(server.agent_url("/v1/configuration"));
    let response = request.json(&status).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The hash that any answer names.
async fn heard(fleet: &Fleet, server: &Server, host: &Identity) -> Option<String> {
    let request = host.client(fleet).get(server.agent_url("/v1/certificate"));
    let response = request.send().await.unwrap();
    let named = response.headers().get(CONFIGURATION_HEADER)?;
    Some(named.to_str().unwrap().to_owned())
}

async fn hears(fleet: &Fleet, server: &Server, host: &Identity, expected: &Value) {
    eventually(PATIENCE, "the replica looks at the revision", async || {
        let heard = heard(fleet, server, host).await;
        anyhow::ensure!(heard.as_deref() == expected.as_str(), "{heard:?}, not {expected}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_the_hosts_it_means_through_every_replica() {
    let fleet = Fleet::create("configuration").await;
    let operator = Operator::new(&fleet).await;
    let other = fleet.serve(&fleet.config()).await;
    let db = Identity::enroll(&fleet, &operator.server).await;
    let web = Identity::enroll(&fleet, &operator.server).await;
    let nothing = operator.of(&web).await;
    assert_eq!(nothing["configuration"]["profile"], json!({}));
    assert_eq!((&nothing["own"], &nothing["status"]), (&Value::Null, &Value::Null));
    hears(&fleet, &other, &web, &nothing["hash"]).await;
    hears(&fleet, &other, &db, &nothing["hash"]).await;

    operator.label(&db, json!({ "role": "db" })).await;
    let everyone = json!({ "name": "all", "configuration": { "interval_ms": 20_000, "profile": { "top": 5 } } });
    operator.profile(everyone).await;
    let databases = operator
        .profile(json!({ "name": "db", "selector": "role=db", "priority": 10,
            "configuration": { "profile": { "top": 9, "keep_all": true } } }))
        .await;
    let (of_db, of_web) = (operator.of(&db).await, operator.of(&web).await);
    assert_eq!(of_db["configuration"]["profile"], json!({ "top": 9, "keep_all": true }));
    assert_eq!(of_db["configuration"]["interval_ms"], 20_000);
    assert_eq!(of_db["origins"]["profile.top"]["profile_id"], *databases);
    assert_eq!(of_db["origins"]["interval_ms"]["name"], "all");
    assert_eq!(of_web["configuration"]["profile"], json!({ "top": 5 }));
    for server in [&operator.server, &other] {
        hears(&fleet, server, &db, &of_db["hash"]).await;
        hears(&fleet, server, &web, &of_web["hash"]).await;
        let (status, answer) = fetch(&fleet, server, &db, json!({})).await;
        assert_eq!((status, &answer["hash"]), (200, &of_db["hash"]), "{answer}");
        assert_eq!(answer["configuration"], of_db["configuration"]);
    }

    // Its labels decide, and what is set for it alone prevails.
    operator.label(&db, json!({})).await;
    hears(&fleet, &other, &db, &of_web["hash"]).await;
    let path = format!("/v1/hosts/{}/configuration", web.given.host_id);
    let own = json!({ "configuration": { "profile": { "top": 1 } } });
    assert_eq!(operator.ask(Method::PUT, &path, own).await.0, 204);
    let alone = operator.of(&web).await;
    assert_eq!(alone["configuration"]["profile"]["top"], 1);
    assert_eq!(alone["origins"]["profile.top"], json!({ "kind": "host" }));
    assert_eq!(alone["version"], 1);
    hears(&fleet, &other, &web, &alone["hash"]).await;
    assert_eq!(operator.ask(Method::DELETE, &path, Value::Null).await.0, 204);
    hears(&fleet, &other, &web, &of_web["hash"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_made_of_it_is_seen() {
    let fleet = Fleet::create("configuration-status").await;
    let operator = Operator::new(&fleet).await;
    let host = Identity::enroll(&fleet, &operator.server).await;
    let hash = operator.of(&host).await["hash"].clone();
    let other = "0".repeat(64);
    let say = async |status: Value| fetch(&fleet, &operator.server, &host, status).await;

    assert_eq!(say(json!({ "received": hash })).await.0, 200);
    let seen = operator.of(&host).await;
    assert_eq!((&seen["status"]["state"], &seen["in_force"]), (&json!("applying"), &json!(false)));
    let applied = json!({ "received": hash, "applied": hash, "limited": ["interval_ms"] });
    assert_eq!(say(applied).await.0, 200);
    let seen = operator.of(&host).await;
    assert_eq!((&seen["status"]["state"], &seen["in_force"]), (&json!("applied"), &json!(true)));
    assert_eq!(seen["status"]["limited"], json!(["interval_ms"]));
    let failed = json!({ "received": other, "applied": hash, "failed": other, "error": "no such collector" });
    assert_eq!(say(failed).await.0, 200);
    let (_, page) =
        operator.ask(Method::GET, "/v1/host-configurations?state=failed", Value::Null).await;
    assert_eq!(page["items"][0]["error"], "no such collector", "{page}");
    let (_, page) =
        operator.ask(Method::GET, "/v1/host-configurations?state=applied", Value::Null).await;
    assert_eq!(page["items"], json!([]));

    for wrong in [
        json!({ "received": "short" }),
        json!({ "applied": "G".repeat(64) }),
        json!({ "error": "x".repeat(513) }),
        json!({ "error": "\u{0}" }),
        json!({ "limited": vec!["k"; 65] }),
    ] {
        let (status, answer) = say(wrong).await;
        assert_eq!((status, &answer["code"]), (422, &json!("invalid_field")), "{answer}");
    }
    let anonymous = fleet.client(None).put(operator.server.agent_url("/v1/configuration"));
    let refused = anonymous.json(&json!({})).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().get(CONFIGURATION_HEADER).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_is_refused_with_its_field() {
    let fleet = Fleet::create("configuration-refused").await;
    let operator = Operator::new(&fleet).await;
    let taken = operator.profile(json!({ "name": "taken", "configuration": {} })).await;
    for (body, field) in [
        (json!({ "name": "", "configuration": {} }), "name"),
        (json!({ "name": "taken", "configuration": {} }), "name"),
        (json!({ "name": "n", "selector": "a=1,", "configuration": {} }), "selector"),
        (json!({ "name": "n", "priority": 1001, "configuration": {} }), "priority"),
        (json!({ "name": "n", "configuration": [] }), "configuration"),
        (
            json!({ "name": "n", "configuration": { "intervall_ms": 1 } }),
            "configuration.intervall_ms",
        ),
        (
            json!({ "name": "n", "configuration": { "profile": { "cpu": 1 } } }),
            "configuration.profile.cpu",
        ),
        (
            json!({ "name": "n", "configuration": { "interval_ms": 1 } }),
            "configuration.interval_ms",
        ),
        (
            json!({ "name": "n", "configuration": { "redaction": { "patterns": ["("] } } }),
            "configuration.redaction.patterns",
        ),
    ] {
        let (status, answer) = operator.ask(Method::POST, "/v1/profiles", body.clone()).await;
        assert_eq!(
            (status, &answer["errors"][0]["field"]),
            (422, &json!(field)),
            "{body} {answer}"
        );
    }
    assert_eq!(fleet.count("select count(*) from profiles").await, 1);
    let absent = "/v1/profiles/00000000-0000-0000-0000-000000000001";
    let body = json!({ "name": "x", "configuration": {} });
    assert_eq!(operator.ask(Method::PUT, absent, body.clone()).await.0, 404);
    assert_eq!(operator.ask(Method::DELETE, absent, Value::Null).await.0, 404);
    let other = operator.profile(body).await;
    let rename = json!({ "name": "taken", "configuration": {} });
    let path = format!("/v1/profiles/{other}");
    assert_eq!(operator.ask(Method::PUT, &path, rename).await.0, 422);
    assert_eq!(
        operator.ask(Method::DELETE, &format!("/v1/profiles/{taken}"), Value::Null).await.0,
        204
    );
}

/// Of two who read the same state, the second to write is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_overwrites_what_they_have_not_read() {
    let fleet = Fleet::create("configuration-tags").await;
    let operator = Operator::new(&fleet).await;
    let host = Identity::enroll(&fleet, &operator.server).await;
    let tagged = async |method: Method, path: &str, tag: &str, body: Value| {
        let request = plain_client().request(method, operator.server.operator_url(path));
        let request = request.bearer_auth(&operator.key).header("if-match", tag);
        let response = request.json(&body).send().await.unwrap();
        let tag = response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (response.status().as_u16(), tag)
    };
    let body = |top: u32| json!({ "name": "n", "configuration": { "profile": { "top": top } } });
    let profile = format!("/v1/profiles/{}", operator.profile(body(1)).await);
    let put = async |tag: &str, top| tagged(Method::PUT, &profile, tag, body(top)).await;
    let (status, first) = tagged(Method::GET, &profile, "*", Value::Null).await;
    let first = first.unwrap();
    assert_eq!(status, 200);
    let (status, second) = put(&first, 2).await;
    assert_eq!(status, 200);
    assert_eq!(put(&first, 3).await.0, 412);
    assert_eq!(tagged(Method::DELETE, &profile, &first, Value::Null).await.0, 412);
    assert_eq!(tagged(Method::DELETE, &profile, &second.unwrap(), Value::Null).await.0, 204);

    let own = format!("/v1/hosts/{}/configuration", host.given.host_id);
    let set = async |tag: &str, top: u32| {
        let body = json!({ "configuration": { "profile": { "top": top } } });
        tagged(Method::PUT, &own, tag, body).await.0
    };
    assert_eq!(set("\"1\"", 1).await, 412, "nothing was ever set");
    assert_eq!(set("\"0\"", 1).await, 204);
    assert_eq!(tagged(Method::DELETE, &own, "\"1\"", Value::Null).await.0, 204);
    assert_eq!(set("\"*\"", 1).await, 412, "a tag, not the star");
    assert_eq!(set("*", 2).await, 204);
    assert_eq!(set("\"1\"", 3).await, 412, "no version comes twice");
    assert_eq!(operator.of(&host).await["version"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_says_what_would_change_and_changes_nothing() {
    let fleet = Fleet::create("configuration-preview").await;
    let operator = Operator::new(&fleet).await;
    let (db, web) = (
        Identity::enroll(&fleet, &operator.server).await,
        Identity::enroll(&fleet, &operator.server).await,
    );
    operator.label(&db, json!({ "role": "db" })).await;
    let old = json!({ "name": "p", "selector": "role=db", "configuration": { "profile": { "top": 5 }, "interval_ms": 20_000 } });
    let profile_id = operator.profile(old.clone()).await;
    let preview = async |body: Value| {
        let (status, answer) = operator.ask(Method::POST, "/v1/profiles/preview", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    };

    let same = preview(json!({ "profile_id": profile_id, "profile": old })).await;
    assert_eq!((&same["examined"], &same["changed"]), (&json!(2), &json!(0)));
    let wider = json!({ "name": "p", "configuration": { "profile": { "top": 6 } } });
    let answer = preview(json!({ "profile_id": profile_id, "profile": wider })).await;
    assert_eq!(answer["changed"], 2, "{answer}");
    let of = |host: &Identity| {
        let id = host.given.host_id.to_string();
        let items = answer["items"].as_array().unwrap();
        items.iter().find(|item| item["host_id"] == *id).unwrap()["changes"].clone()
    };
    let expected = json!([
        { "key": "interval_ms", "from": 20_000, "to": null },
        { "key": "profile.top", "from": 5, "to": 6 },
    ]);
    assert_eq!(of(&db), expected);
    assert_eq!(of(&web), json!([{ "key": "profile.top", "from": null, "to": 6 }]));
    let removed = preview(json!({ "profile_id": profile_id })).await;
    assert_eq!(removed["changed"], 1);
    let (status, _) = operator.ask(Method::POST, "/v1/profiles/preview", json!({})).await;
    assert_eq!(status, 422);
    assert_eq!(
        fleet.count("select revision from configuration_revision").await,
        3,
        "label and profile"
    );
}
