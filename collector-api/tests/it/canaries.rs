//! Secrets are planted at every way in, and searched for at every way out: the log at its most
//! talkative, problem documents, the audit, `Debug`, and every table of the database.

use anyhow::Result;
use collector_api::config::Config;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::server::{Deployment, Doors};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::fleet::plain_client;

/// The database's password; the test databases ask for none.
const PASSWORD: &str = "canary-password-8d1f";
/// What callers send that is no key of ours.
const STRANGER: &str = "canarystranger5b7e";

async fn every_row(connection: &mut PgConnection) -> Result<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'public'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut text = String::new();
    for table in tables {
        let select = format!("select coalesce(string_agg(t::text, E'\\n'), '') from {table} t");
        let rows: String =
            sqlx::query_scalar(AssertSqlSafe(select)).fetch_one(&mut *connection).await?;
        text += &rows;
    }
    Ok(text)
}

/// The database's URL and the password in it. A database that asks for none gets one all the same.
fn with_password(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap_or((user, PASSWORD));
    (format!("{scheme}://{user}:{password}@{rest}"), password.to_owned())
}

#[tokio::test]
async fn no_secret_comes_out_anywhere() -> Result<()> {
    let database = TestDatabase::create(Engine::PostgreSql).await?;
    let (url, password) = with_password(&database.url);
    let doors = Doors::free()?;
    let mut deployment = Deployment::create("canaries", &url, vec![doors.agent_endpoint()]).await?;
    deployment.environment.push(("RUST_LOG", "trace".into()));
    let server = deployment.start("server", doors).await?;
    let admin = deployment.create_api_key("admin").await?;
    let base = format!("http://{}", doors.operator);
    let client = plain_client();
    let mut said = String::new();
    let mut secrets = vec![password, STRANGER.to_owned()];
    // A secret may hold `_` itself: all that follows the id.
    let mut plant = |key: &str| secrets.push(key.splitn(3, '_').nth(2).unwrap().to_owned());

    plant(&admin);
    let post = |path: &str, body: Value| {
        client.post(format!("{base}{path}")).bearer_auth(&admin).json(&body)
    };
    let made = post("/v1/api-keys", json!({ "name": "n", "role": "viewer" }))
        .header("idempotency-key", STRANGER)
        .send()
        .await?;
    let made: Value = made.json().await?;
    let key = made["key"].as_str().unwrap().to_owned();
    plant(&key);
    let token: Value =
        post("/v1/enrollment-tokens", json!({ "name": "n" })).send().await?.json().await?;
    let paste = token["paste"].as_str().unwrap();
    let parsed: shared_model::JoinToken = paste.parse()?;
    let session = client
        .post(format!("{base}/v1/session"))
        .header("sec-fetch-site", "same-origin")
        .json(&json!({ "api_key": key }))
        .send()
        .await?;
    let cookie = session.headers()["set-cookie"].to_str()?.to_owned();
    let cookie = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    said += &session.text().await?;
    secrets.extend([parsed.secret, paste.to_owned(), cookie, key.clone(), admin.clone()]);

    // Every way to be refused, with something secret in it.
    for bearer in [STRANGER.to_owned(), format!("pfk1_{}_{STRANGER}", "0".repeat(32)), key + "x"] {
        for path in ["/v1/hosts", "/v1/nothing", "/v1/api-keys"] {
            let request = client.get(format!("{base}{path}")).bearer_auth(&bearer);
            said += &request.send().await?.text().await?;
        }
    }
    for body in [json!({ "api_key": STRANGER }), json!({ "api_key": admin.clone() + "x" })] {
        let request = client.post(format!("{base}/v1/session")).json(&body);
        said += &request.header("sec-fetch-site", "same-origin").send().await?.text().await?;
    }
    for path in ["/v1/hosts", "/v1/audit-events?limit=1000", "/v1/api-keys", "/metrics"] {
        let request = client.get(format!("{base}{path}")).bearer_auth(&admin);
        said += &request.send().await?.text().await?;
    }
    assert!(said.contains("session.begin") && said.contains("api_key.create"), "{said}");
    let config = Config { database_url: Some(url.as_str().into()), ..Config::default() };
    let debug = format!("{config:?}");
    let rows = every_row(&mut database.connect().await?).await?;
    assert!(rows.contains("session.begin"), "the tables were read");
    let log = server.log();
    assert!(log.contains("answered"), "the log is at its most talkative");
    let places = [("answers", &said), ("log", &log), ("tables", &rows), ("Debug", &debug)];
    for (place, text) in places {
        for (number, secret) in secrets.iter().enumerate() {
            assert!(!text.contains(secret.as_str()), "secret {number} is in the {place}");
        }
        assert!(!text.contains("PRIVATE KEY"), "a private key is in the {place}");
    }
    Ok(())
}
