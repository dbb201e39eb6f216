//! Labels, selectors and changes of many hosts at once.

use std::collections::BTreeMap;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::selector::Selector;
use collector_api::store::audit::Actor;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::hosts::names;
use crate::fleet::{Fleet, Server, plain_client};

/// Hosts that are only rows, each with its labels.
const HOSTS: &str = r"
    with token as (
        insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
        values ('00000000-0000-0000-0000-000000000001', 't', sha256('x'), now() + interval '1 day')
        returning token_id
    )
    insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, lifecycle, labels)
    select md5(n::text)::uuid, 'host-' || n, '6.1', 'x86_64', '0.1', token_id,
        case when n = 7 then 'decommissioned' when n = 5 then 'pending' else 'active' end,
        jsonb_strip_nulls(jsonb_build_object('env', (array['prod', 'test', null])[1 + n % 3],
            'role', case when n % 2 = 0 then 'a=b' end, 'odd', case when n % 2 = 1 then '' end))
    from token, generate_series(1, 8) n";

const SELECTORS: [&str; 12] = [
    "env=prod",
    "env!=prod",
    "env",
    "!env",
    "env in (prod, test)",
    "env notin (prod,test)",
    "role=a=b",
    "odd=",
    "env=prod,role",
    "nothing",
    "!nothing",
    "env!=test,!odd",
];

/// Asks the operator door.
async fn ask(server: &Server, key: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
    let mut request = plain_client().request(method, server.operator_url(path)).bearer_auth(key);
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn key(fleet: &Fleet, role: Role) -> String {
    let minted = MintedApiKey::from_random([role as u8 + 1; 48], "ada".into(), role, None);
    fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
    minted.to_paste()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_and_the_server_mean_the_same_hosts() {
    let fleet = Fleet::create("selectors").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let viewer = key(&fleet, Role::Viewer).await;
    let (_, all) = ask(&server, &viewer, Method::GET, "/v1/hosts", Value::Null).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 8);
    for text in SELECTORS {
        let selector = Selector::parse(text).unwrap();
        let expected: Vec<&str> = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|host| {
                let labels: BTreeMap<String, String> =
                    serde_json::from_value(host["labels"].clone()).unwrap();
                selector.matches(&labels)
            })
            .map(|host| host["host_name"].as_str().unwrap())
            .collect();
        let mut url = server.operator_url("/v1/hosts");
        url.query_pairs_mut().append_pair("labels", text);
        let path = format!("{}?{}", url.path(), url.query().unwrap());
        let (status, found) = ask(&server, &viewer, Method::GET, &path, Value::Null).await;
        assert_eq!((status, names(&found)), (200, expected), "{text}");
    }
    let (status, refused) =
        ask(&server, &viewer, Method::GET, "/v1/hosts?labels=env,", Value::Null).await;
    assert_eq!((status, &refused["errors"][0]["field"]), (400, &json!("labels")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_are_changed_at_once_after_a_look_at_what_would_change() {
    let fleet = Fleet::create("bulk").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let (admin, viewer) = (key(&fleet, Role::Admin).await, key(&fleet, Role::Viewer).await);
    let bulk = async |body: Value| ask(&server, &admin, Method::POST, "/v1/hosts/bulk", body).await;
    let mut request = json!({ "selector": "env in (prod, test)", "lifecycle": "active",
        "set_labels": { "env": "prod", "team": "dba" }, "remove_labels": ["odd"], "dry_run": true });
    let (status, looked) = bulk(request.clone()).await;
    // 2, 5 and 8 have no env; 7 is decommissioned.
    assert_eq!(
        (status, &looked["matched"], &looked["changed"]),
        (200, &json!(4), &json!(4)),
        "{looked}"
    );
    let team = "select count(*) from hosts where labels ? 'team'";
    assert_eq!(fleet.count(team).await, 0, "a look changes nothing");
    assert_eq!(
        fleet.count("select count(*) from audit_events where object_type = 'host'").await,
        0
    );

    request["dry_run"] = json!(false);
    let (_, done) = bulk(request.clone()).await;
    assert_eq!(done["items"], looked["items"], "what was shown is what was done");
    assert_eq!(fleet.count(team).await, 4);
    let audited =
        "select count(*) from audit_events where action = 'host.label' and actor_name = 'ada'";
    assert_eq!(fleet.count(audited).await, 4);
    let (_, again) = bulk(request).await;
    assert_eq!((&again["matched"], &again["changed"]), (&json!(4), &json!(0)), "{again}");

    let approve = json!({ "selector": "!env", "lifecycle": "active", "reason": "looked at", "dry_run": false });
    let (_, approved) = bulk(approve).await;
    let changed: Vec<&Value> = approved["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["changed"] == true)
        .collect();
    assert_eq!(changed.len(), 1, "{approved}");
    assert_eq!(changed[0]["host_name"], "host-5");

    for (body, field) in [
        (json!({ "selector": "env", "dry_run": false }), "lifecycle"),
        (json!({ "selector": "env=(", "lifecycle": "active", "dry_run": false }), "selector"),
        (json!({ "selector": "env", "set_labels": { "a b": "c" }, "dry_run": false }), "labels"),
    ] {
        let (status, refused) = bulk(body).await;
        assert_eq!((status, &refused["errors"][0]["field"]), (422, &json!(field)), "{refused}");
    }
    let body = json!({ "selector": "env", "lifecycle": "active", "dry_run": true });
    assert_eq!(ask(&server, &viewer, Method::POST, "/v1/hosts/bulk", body).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_labels_of_a_host_are_replaced() {
    let fleet = Fleet::create("labels").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let admin = key(&fleet, Role::Admin).await;
    let put = async |host: &str, labels: Value| {
        let path = format!("/v1/hosts/{host}/labels");
        ask(&server, &admin, Method::PUT, &path, json!({ "labels": labels })).await
    };
    let wanted = json!({ "env": "staging", "数据库": "x" });
    assert_eq!(put("host-1", wanted).await.0, 422, "names are ASCII");
    let wanted = json!({ "env": "staging", "note": "数据库" });
    assert_eq!(put("host-1", wanted.clone()).await, (200, json!({ "labels": wanted })));
    let (_, host) = ask(&server, &admin, Method::GET, "/v1/hosts/host-1", Value::Null).await;
    assert_eq!(host["labels"], wanted);
    let many: BTreeMap<String, &str> = (0..33).map(|n| (format!("l{n}"), "x")).collect();
    assert_eq!(put("host-1", json!(many)).await.0, 422);
    assert_eq!(put(&Uuid::nil().to_string(), json!({})).await.0, 404);
    assert_eq!(put("host-1", json!({})).await, (200, json!({ "labels": {} })));
    assert_eq!(
        fleet.count("select count(*) from audit_events where object_type = 'host'").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_read_the_same_labels_only_one_overwrites_them() {
    let fleet = Fleet::create("if_match").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let admin = key(&fleet, Role::Admin).await;
    let url = server.operator_url("/v1/hosts/host-1/labels");
    let tag = async || {
        let answer = plain_client().get(url.clone()).bearer_auth(&admin).send().await.unwrap();
        answer.headers()["etag"].to_str().unwrap().to_owned()
    };
    let put = async |tag: &str, value: usize| {
        let request = plain_client().put(url.clone()).bearer_auth(&admin);
        let body = json!({ "labels": { "by": value.to_string() } });
        let answer = request.header("if-match", tag).json(&body).send().await.unwrap();
        let now = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        (status, now, body["code"].as_str().map(str::to_owned))
    };

    let read = tag().await;
    let all = futures_util::future::join_all((0..8).map(|number| put(&read, number))).await;
    let (done, refused): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(status, ..)| *status == 200);
    assert_eq!((done.len(), refused.len()), (1, 7));
    let stale = Some("precondition_failed".to_owned());
    assert!(
        refused.iter().all(|(status, _, code)| (*status, code) == (412, &stale)),
        "{refused:?}"
    );
    assert_eq!(done[0].1.as_deref(), Some(&*tag().await), "the answer names the state that is now");
    let changes = "select count(*) from audit_events where action = 'host.label'";
    assert_eq!(fleet.count(changes).await, 1);

    assert_eq!(put(&tag().await, 9).await.0, 200);
    assert_eq!(put("*", 10).await.0, 200);
    let weak = format!("W/{}", tag().await);
    assert_eq!(put(&weak, 11).await.0, 412, "a weak tag is like no other");
    assert_eq!(put("unquoted", 11).await.0, 400);
    assert_eq!(fleet.count(changes).await, 3);
}
