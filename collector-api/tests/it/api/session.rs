//! Browsers: logging in, what a cookie may do, and how a session ends.

use axum::http::StatusCode;
use collector_api::auth::operator::Role;
use fleet_sim::database::Engine;
use serde_json::json;

use super::kit::{Api, sql};

const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Logs in; the cookie as a browser sends it back.
async fn log_in(api: &Api, role: Role) -> String {
    let body = json!({ "api_key": api.key(role) });
    let (status, headers, answer) = api.send_with("POST", "/v1/session", &[OWN], Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["role"], role.as_str());
    let cookie = headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
    assert_eq!(headers["cache-control"], "no-store");
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_stands_for_its_key_until_it_ends() {
    let api = Api::start(Engine::TimescaleDb).await;
    let cookie = log_in(&api, Role::Admin).await;
    let with = [("cookie", cookie.as_str())];
    let ask = async |method, path, headers: &[(&str, &str)]| {
        let body = (method == "POST").then(|| json!({ "name": "t" }));
        api.send_with(method, path, headers, body).await.0.as_u16()
    };
    assert_eq!(ask("GET", "/v1/hosts", &with).await, 200);
    assert_eq!(ask("GET", "/v1/hosts", &[]).await, 401);
    assert_eq!(ask("GET", "/v1/hosts", &[("cookie", "procfleet_session=x")]).await, 401);
    let (_, _, who) = api.send_with("GET", "/v1/session", &with, None).await;
    assert!(who["name"] == "admin-key" && who["expires_at"].is_string(), "{who}");

    // Another site's page cannot change anything with it; ours can.
    let tokens = "/v1/enrollment-tokens";
    let from = |site| [with[0], ("sec-fetch-site", site)];
    assert_eq!(ask("POST", tokens, &with).await, 403);
    assert_eq!(ask("POST", tokens, &from("cross-site")).await, 403);
    assert_eq!(
        ask("POST", tokens, &[with[0], ("origin", "http://evil.example"), ("host", "h")]).await,
        403
    );
    // (There is no authority here to make tokens with: it got as far as that.)
    assert_eq!(ask("POST", tokens, &from("same-origin")).await, 500);
    assert_eq!(ask("DELETE", "/v1/session", &from("same-site")).await, 403);

    assert_eq!(ask("DELETE", "/v1/session", &from("same-origin")).await, 204);
    assert_eq!(ask("GET", "/v1/hosts", &with).await, 401);
}

#[tokio::test]
async fn a_session_has_the_role_of_its_key_and_ends_with_it() {
    let api = Api::start(Engine::TimescaleDb).await;
    let cookie = log_in(&api, Role::Viewer).await;
    let with = [("cookie", cookie.as_str())];
    let status = async |path| api.send_with("GET", path, &with, None).await.0.as_u16();
    assert_eq!(status("/v1/api-keys").await, 403);
    assert_eq!(status("/v1/hosts").await, 200);
    sql(&mut api.connect().await, "update api_keys set revoked_at = now() where role = 'viewer'")
        .await;
    assert_eq!(status("/v1/hosts").await, 401);

    let cookie = log_in(&api, Role::Admin).await;
    let mut db = api.connect().await;
    let clear: i64 = sqlx::query_scalar("select count(*) from operator_sessions where position(convert_to($1, 'UTF8') in token_sha256) > 0")
        .bind(cookie.split_once('=').unwrap().1)
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(clear, 0, "the token is not stored");
    sql(&mut db, "update operator_sessions set expires_at = now() - interval '1 s'").await;
    let with = [("cookie", cookie.as_str())];
    assert_eq!(api.send_with("GET", "/v1/hosts", &with, None).await.0, StatusCode::UNAUTHORIZED);
    log_in(&api, Role::Operator).await;
    let left: i64 = sqlx::query_scalar("select count(*) from operator_sessions")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(left, 1, "those that ended are deleted when the next begins");
}

#[tokio::test]
async fn logging_in_needs_our_own_page_and_a_good_key() {
    let api = Api::start(Engine::TimescaleDb).await;
    let good = json!({ "api_key": api.key(Role::Viewer) });
    let bad = json!({ "api_key": "pfk1_00000000000000000000000000000000_x" });
    let status = async |headers: &[(&str, &str)], body: &serde_json::Value| {
        api.send_with("POST", "/v1/session", headers, Some(body.clone())).await.0.as_u16()
    };
    assert_eq!(status(&[], &good).await, 403);
    assert_eq!(status(&[("sec-fetch-site", "cross-site")], &good).await, 403);
    assert_eq!(status(&[OWN], &bad).await, 401);
    assert_eq!(status(&[OWN], &json!({ "x": 1 })).await, 422);
    let headers = [("origin", "https://h.example"), ("host", "h.example")];
    let (code, answered, _) = api.send_with("POST", "/v1/session", &headers, Some(good)).await;
    assert_eq!(code, StatusCode::OK);
    let cookie = answered["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "behind a proxy that speaks TLS: {cookie}");
}
