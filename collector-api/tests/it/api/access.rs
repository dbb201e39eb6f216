//! Who may ask what.

use collector_api::auth::operator::{MintedApiKey, Role, Scope};
use collector_api::document;
use collector_api::store::audit::Actor;
use fleet_sim::database::Engine;
use serde_json::{Value, json};
use shared_model::JoinToken;

use super::kit::{Api, sql};
use crate::openapi::operations;

const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

/// A path of the document with something in place of its parameters.
fn concrete(path: &str) -> String {
    let nil = "00000000-0000-0000-0000-000000000000";
    path.split('/')
        .map(|part| match part {
            "{process_id}" => nil.replace('-', ""),
            part if part.starts_with('{') => nil.to_owned(),
            part => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// Every route of the document that takes a key, asked with every role, and without one: a new route
/// cannot be forgotten here, and one whose extractor disagrees with its documentation fails.
#[tokio::test]
async fn every_documented_route_keeps_to_its_role() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let document = serde_json::to_value(document::document()).unwrap();
        let mut asked = 0;
        for (method, path, operation) in operations(&document) {
            let Some(scopes) = operation["security"][0]["api_key"].as_array() else { continue };
            let needed: Scope = scopes[0].as_str().unwrap().parse().unwrap();
            let path = concrete(&path);
            let route = format!("{method} {path}");
            for authorization in [
                None,
                Some("Bearer x"),
                Some("Basic eDp5"),
                Some("Bearer pfk1_00000000000000000000000000000000_x"),
            ] {
                let (status, body) = api.send(&method, &path, authorization, None).await;
                assert_eq!(
                    (status.as_u16(), &body["code"]),
                    (401, &json!("unauthorized")),
                    "{route}"
                );
                assert_eq!(
                    body["detail"],
                    "Send a valid API key: `Authorization: Bearer pfk1_<id>_<secret>`."
                );
            }
            for role in ROLES {
                // Without a body, so that nothing is changed by whoever is let in.
                let (status, body) = api.send_as(role, &method, &path, None).await;
                if role < needed.least_role() {
                    assert_eq!(
                        (status.as_u16(), &body["code"]),
                        (403, &json!("forbidden")),
                        "{route} as {role}"
                    );
                } else {
                    assert!(
                        ![401, 403, 500].contains(&status.as_u16()),
                        "{route} as {role}: {status} {body}"
                    );
                    let documented = &operation["responses"][status.as_str()];
                    assert!(
                        documented.is_object(),
                        "{route} answers {status}, which is not documented"
                    );
                }
            }
            asked += 1;
        }
        assert!(asked >= 8, "{asked}");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_works_and_ends() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let body =
            json!({ "name": "grafana", "role": "viewer", "expires_at": "2199-01-01T00:00:00Z" });
        let (status, made) = api.send_as(Role::Admin, "POST", "/v1/api-keys", Some(body)).await;
        assert_eq!(status, 201);
        let id = made["api_key_id"].as_str().unwrap();
        let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
        let (status, _) = api.send("GET", "/v1/hosts", Some(&bearer), None).await;
        assert_eq!(status, 200);

        let (_, list) = api.send_as(Role::Admin, "GET", "/v1/api-keys", None).await;
        let entry =
            list["items"].as_array().unwrap().iter().find(|key| key["api_key_id"] == id).unwrap();
        assert_eq!(
            (&entry["name"], &entry["role"], &entry["revoked_at"]),
            (&json!("grafana"), &json!("viewer"), &json!(null))
        );
        assert!(entry["last_used_at"].as_str().unwrap().ends_with(":00Z"), "to the minute");
        let secret = made["key"].as_str().unwrap().rsplit_once(&id.replace('-', "")).unwrap().1;
        assert!(!list.to_string().contains(&secret[1..]));

        let path = format!("/v1/api-keys/{id}");
        for _ in 0..2 {
            assert_eq!(api.send_as(Role::Admin, "DELETE", &path, None).await.0, 204);
        }
        let (status, problem) = api.send("GET", "/v1/hosts", Some(&bearer), None).await;
        assert_eq!((status.as_u16(), &problem["code"]), (401, &json!("unauthorized")));
        assert!(problem["detail"].as_str().unwrap().contains("revoked"));

        let mut db = api.connect().await;
        let minted = MintedApiKey::from_random([9; 48], "old".into(), Role::Admin, None);
        api.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        sql(&mut db, "update api_keys set expires_at = now() where name = 'old'").await;
        let bearer = format!("Bearer {}", minted.to_paste());
        let (status, problem) = api.send("GET", "/v1/hosts", Some(&bearer), None).await;
        assert_eq!(status, 401);
        assert!(problem["detail"].as_str().unwrap().contains("expired"));
        // Whoever does not know the secret does not learn that the key exists.
        let wrong = format!("{}x", &bearer[..bearer.len() - 1]);
        let (_, problem) = api.send("GET", "/v1/hosts", Some(&wrong), None).await;
        assert!(problem["detail"].as_str().unwrap().starts_with("Send a valid API key"));
    }
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_not_made() {
    let api = Api::start(Engine::PostgreSql).await;
    for (body, field) in [
        (json!({ "name": "", "role": "viewer" }), Some("name")),
        (json!({ "name": "a\nb", "role": "viewer" }), Some("name")),
        (json!({ "name": "a\0b", "role": "viewer" }), Some("name")),
        (json!({ "name": "x".repeat(201), "role": "viewer" }), Some("name")),
        (
            json!({ "name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z" }),
            Some("expires_at"),
        ),
        (json!({ "name": "x", "role": "root" }), None),
        (json!({ "name": "x" }), None),
        (json!({ "name": "x", "role": "viewer", "secret": "mine" }), None),
        (json!([]), None),
    ] {
        let (status, problem) =
            api.send_as(Role::Admin, "POST", "/v1/api-keys", Some(body.clone())).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("invalid_field")), "{body}");
        if let Some(field) = field {
            assert_eq!(problem["errors"][0]["field"], field, "{body}");
        }
    }
    let (_, list) = api.send_as(Role::Admin, "GET", "/v1/api-keys?limit=2", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let next = format!("/v1/api-keys?limit=2&after={}", list["next"].as_str().unwrap());
    let (_, rest) = api.send_as(Role::Admin, "GET", &next, None).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_token_is_shown_once_and_listed_without_its_secret() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = api.connect().await;
        sql(
            &mut db,
            "insert into certificate_authorities (authority_id, purpose, certificate_pem, spki_sha256, sealed_private_key, sealing_key_id, not_after)
             values (gen_random_uuid(), 'server', '', sha256('ca'), '', '', now() + interval '1 day')",
        )
        .await;
        let body = json!({ "name": "database hosts", "max_uses": 3, "ttl_s": 60 });
        let (status, made) =
            api.send_as(Role::Admin, "POST", "/v1/enrollment-tokens", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        let token: JoinToken = made["paste"].as_str().unwrap().parse().unwrap();
        assert_eq!(made["token_id"], token.id.to_string());
        assert_eq!((token.endpoints.len(), token.pins.len()), (1, 1));

        let (_, list) =
            api.send_as(Role::Admin, "GET", "/v1/enrollment-tokens?limit=1", None).await;
        let entry = &list["items"][0];
        assert_eq!(
            (&entry["token_id"], &entry["max_uses"], &entry["uses"]),
            (&made["token_id"], &json!(3), &json!(0))
        );
        assert!(!list.to_string().contains(&token.secret));
        let next =
            format!("/v1/enrollment-tokens?limit=1&after={}", list["next"].as_str().unwrap());
        let (_, rest) = api.send_as(Role::Admin, "GET", &next, None).await;
        assert_eq!((&rest["items"][0]["name"], &rest["next"]), (&json!("test"), &Value::Null));

        let path = format!("/v1/enrollment-tokens/{}", token.id);
        assert_eq!(api.send_as(Role::Admin, "DELETE", &path, None).await.0, 204);
        let (_, list) =
            api.send_as(Role::Admin, "GET", "/v1/enrollment-tokens?limit=1", None).await;
        assert!(list["items"][0]["revoked_at"].is_string());

        for (body, field) in [
            (json!({ "name": "" }), "name"),
            (json!({ "name": "x", "ttl_s": 0 }), "ttl_s"),
            (json!({ "name": "x", "ttl_s": 7_776_001 }), "ttl_s"),
            (json!({ "name": "x", "max_uses": 0 }), "max_uses"),
            (json!({ "name": "x", "max_uses": u32::MAX }), "max_uses"),
        ] {
            let (status, problem) =
                api.send_as(Role::Admin, "POST", "/v1/enrollment-tokens", Some(body.clone())).await;
            assert_eq!(
                (status.as_u16(), &problem["errors"][0]["field"]),
                (422, &json!(field)),
                "{body}"
            );
        }
    }
}
