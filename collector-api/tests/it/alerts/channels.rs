//! Channels over REST: made, tested, removed; what is secret never comes out.

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::store::audit::Actor;
use reqwest::Method;
use serde_json::{Value, json};

use super::kit::{Answer, StandIn};
use crate::fleet::{Fleet, plain_client};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_made_tested_and_removed_and_its_address_never_comes_out() {
    let fleet = Fleet::create("channels").await;
    let mut config = fleet.config();
    config.alerts.allowed_networks = vec!["127.0.0.1".to_owned().try_into().unwrap()];
    let server = fleet.serve(&config).await;
    let minted = MintedApiKey::from_random([9; 48], "ada".into(), Role::Admin, None);
    fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
    let key = minted.to_paste();
    let ask = async |method: Method, path: &str, body: Option<Value>| {
        let request = plain_client().request(method, server.operator_url(path)).bearer_auth(&key);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let stand_in = StandIn::start(&[]).await;
    let url = format!("http://{}/send?key=canary-key", stand_in.address);
    let body = json!({ "name": "ops", "kind": "wecom", "language": "zh", "url": url, "secret": "canary-secret" });
    let (status, made) = ask(Method::POST, "/v1/channels", Some(body.clone())).await;
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let path = format!("/v1/channels/{}", made["channel_id"].as_str().unwrap());
    assert_eq!(ask(Method::POST, "/v1/channels", Some(body)).await.0, 422, "the name is taken");

    let (status, answer) = ask(Method::POST, &format!("{path}/test"), None).await;
    assert_eq!((status, answer.contains("\"delivered\":true")), (200, true), "{answer}");
    assert!(stand_in.messages()[0].to_string().contains("测试"));
    stand_in.will_say(Answer::Http(200, "", r#"{"errcode":93000}"#));
    let (_, answer) = ask(Method::POST, &format!("{path}/test"), None).await;
    assert!(answer.contains("errcode 93000"), "{answer}");

    for path in ["/v1/channels", "/v1/audit-events", "/v1/alerts"] {
        let (status, answer) = ask(Method::GET, path, None).await;
        assert_eq!((status, answer.contains("canary")), (200, false), "{answer}");
    }
    let mut connection = fleet.database.connect().await.unwrap();
    let clear: bool = sqlx::query_scalar("select bool_or(c::text like '%canary%' or encode(sealed, 'escape') like '%canary%') from channels c")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(!clear);
    let (_, audit) = ask(Method::GET, "/v1/audit-events", None).await;
    assert_eq!(audit.matches("channel.test").count(), 2, "{audit}");
    assert!(audit.contains("errcode 93000"), "{audit}");
    assert_eq!(ask(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(ask(Method::DELETE, &path, None).await.0, 404);
}
