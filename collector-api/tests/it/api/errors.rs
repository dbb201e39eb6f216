//! What the API refuses, and how it says so.

use collector_api::auth::operator::Role;
use fleet_sim::database::Engine;
use serde_json::json;

use super::kit::{Api, host};

#[tokio::test]
async fn every_bad_question_names_its_parameter() {
    let api = Api::start(Engine::TimescaleDb).await;
    host(&mut api.connect().await, 1, "db").await;
    let id = "0".repeat(32);
    for (path, field) in [
        ("/v1/hosts?limit=0", "limit"),
        ("/v1/hosts?limit=1001", "limit"),
        ("/v1/hosts?q=%00", "q"),
        ("/v1/hosts/db/processes?from=yesterday", "from"),
        ("/v1/hosts/db/processes?to=x", "to"),
        ("/v1/hosts/db/processes?from=now&to=-1m", "from"),
        ("/v1/hosts/db/processes?from=-401d", "from"),
        ("/v1/top?from=-32d", "from"),
        ("/v1/top?limit=1001", "limit"),
        ("/v1/top?after=10001", "after"),
        ("/v1/top?labels=env%20x", "labels"),
        ("/v1/top?host=db&labels=env=prod", "labels"),
        ("/v1/hosts?labels==x", "labels"),
        ("/v1/compare?from=-32d", "from"),
        ("/v1/compare?back=0s", "back"),
        ("/v1/compare?limit=0", "limit"),
        ("/v1/hosts/db/instances/1/samples?step=x", "step"),
        ("/v1/hosts/db/processes?limit=1001", "limit"),
        ("/v1/hosts/db/samples?step=0s", "step"),
        ("/v1/hosts/db/samples?from=-1d&step=1s", "step"),
        ("/v1/processes?limit=101", "limit"),
        ("/v1/hosts/%00", "host"),
    ] {
        let (status, body) = api.send_as(Role::Viewer, "GET", path, None).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("bad_parameter")), "{path}");
        assert_eq!(body["errors"][0]["field"], field, "{path}");
        assert!(body["detail"].as_str().unwrap().contains(&format!("`{field}`")), "{path}");
    }
    for path in [
        "/v1/hosts?limit=x".to_owned(),
        "/v1/hosts?limit=-1".to_owned(),
        "/v1/hosts?after=x".to_owned(),
        "/v1/hosts?unknown=1".to_owned(),
        "/v1/hosts?limit=1&limit=2".to_owned(),
        "/v1/hosts/%FF".to_owned(),
        "/v1/hosts/db/processes?sort=disc".to_owned(),
        "/v1/hosts/db/processes?form=-1h".to_owned(),
        "/v1/hosts/db/processes/xyz/samples".to_owned(),
        "/v1/top?by=pid".to_owned(),
        "/v1/top?after=-1".to_owned(),
        "/v1/compare?sort=x".to_owned(),
        "/v1/hosts/db/instances/-1/samples".to_owned(),
        format!("/v1/hosts/db/processes/{id}/samples?instance_id=-1"),
        format!("/v1/hosts/db/processes/{id}/samples?instance_id=9223372036854775808"),
    ] {
        assert_eq!(api.refused(&path).await, (400, "bad_parameter".into()), "{path}");
    }
    for path in [
        "/v1/hosts/nobody".to_owned(),
        "/v1/top?host=nobody".to_owned(),
        "/v1/hosts/00000000-0000-0000-0000-000000000009/samples".to_owned(),
        format!("/v1/hosts/db/processes/{id}/samples"),
    ] {
        assert_eq!(api.refused(&path).await, (404, "not_found".into()), "{path}");
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_said_to_be_gone() {
    let api = Api::start(Engine::PostgreSql).await;
    // The key passes once and is believed for a while; then nobody answers.
    api.get("/v1/hosts").await;
    api.database.admin().allow_connections(false).await.unwrap();
    assert_eq!(api.refused("/v1/hosts").await, (503, "database_unavailable".into()));
    api.database.admin().allow_connections(true).await.unwrap();
    api.get("/v1/hosts").await;
}
