//! What operators decide about a host reaches it on connections that are open and sessions that are
//! resumed, within 30 seconds, and leaves its audit.

use std::sync::Arc;
use std::time::Duration;

use collector_api::auth::join_token::{self, TokenRequest};
use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::store::audit::Actor;
use fleet_sim::eventually::eventually;
use reqwest::{Method, StatusCode};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server, plain_client};

/// How soon a decision must have reached every server.
const EFFECTIVE: Duration = Duration::from_secs(30);

/// An operator with a key of the role `admin`.
struct Administrator<'a> {
    server: &'a Server,
    key: String,
}

impl<'a> Administrator<'a> {
    async fn create(fleet: &Fleet, server: &'a Server) -> Self {
        let minted = MintedApiKey::from_random([7; 48], "ada".into(), Role::Admin, None);
        fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        Self { server, key: minted.to_paste() }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = plain_client().request(method, self.server.operator_url(path));
        let request = request.bearer_auth(&self.key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn set(&self, host: &str, lifecycle: &str) -> (u16, Value) {
        let body = json!({ "lifecycle": lifecycle, "reason": "because" });
        self.ask(Method::PUT, &format!("/v1/hosts/{host}/lifecycle"), Some(body)).await
    }

    /// What operators did to a host by the audit, oldest first.
    async fn audit(&self, host: &str) -> Vec<String> {
        let path = format!("/v1/audit-events?object_id={host}");
        let (status, page) = self.ask(Method::GET, &path, None).await;
        assert_eq!(status, 200, "{page}");
        let mut actions = Vec::new();
        for event in page["items"].as_array().unwrap().iter().rev() {
            if event["action"] == "host.enroll" {
                assert_eq!(event["actor"], "server");
                continue;
            }
            assert_eq!(event["actor_name"], "ada");
            assert!(event["actor"].as_str().unwrap().starts_with("api_key:"));
            assert!(!event.to_string().contains(&self.key));
            actions.push(event["action"].as_str().unwrap().to_owned());
        }
        actions
    }
}

/// One request on a connection of its own, and whether its TLS session was resumed.
async fn ask_anew(tls: &ClientConfig, server: &Server) -> anyhow::Result<(bool, String)> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls.clone()));
    let stream = TcpStream::connect(server.addresses.agent).await?;
    let mut stream = connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
    let request = "GET /v1/certificate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Servers may close without a close_notify.
    drop(stream.read_to_end(&mut answer).await);
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((resumed, String::from_utf8_lossy(&answer).into_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_open_connections_and_resumed_sessions() {
    let fleet = Fleet::create("revocation").await;
    let config = fleet.config();
    let (server, other) = (fleet.serve(&config).await, fleet.serve(&config).await);
    let admin = Administrator::create(&fleet, &other).await;
    let host = Identity::enroll(&fleet, &server).await;
    let host_id = host.given.host_id.to_string();
    let tls = fleet.tls(Some((&host.given.certificate_chain_pem, &host.key)));
    let open = host.client(&fleet);
    let url = server.agent_url("/v1/certificate");
    assert_eq!(open.get(url.clone()).send().await.unwrap().status(), StatusCode::OK);
    for again in [false, true] {
        let (resumed, answer) = ask_anew(&tls, &server).await.unwrap();
        assert_eq!((resumed, answer.starts_with("HTTP/1.1 200")), (again, true), "{answer}");
    }

    // Through the other replica: nothing in this one's memory is told.
    let path = format!("/v1/hosts/{host_id}/certificates");
    for _ in 0..2 {
        assert_eq!(admin.ask(Method::DELETE, &path, None).await.0, 204);
    }
    eventually(EFFECTIVE, "both ways in are closed", async || {
        let (resumed, answer) = ask_anew(&tls, &server).await?;
        assert!(resumed, "the session must be resumed for the test to mean something");
        anyhow::ensure!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("certificate_revoked"), "{answer}");
        let status = open.get(url.clone()).send().await?.status();
        anyhow::ensure!(status == StatusCode::FORBIDDEN, "{status}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    let (_, page) = admin.ask(Method::GET, &path, None).await;
    assert_eq!(page["items"][0]["status"], "revoked");
    assert!(page["items"][0]["revoked_at"].is_string());
    assert_eq!(admin.audit(&host_id).await, ["host.revoke_certificates"], "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_waits_for_approval_can_be_set_aside_and_ends_for_good() {
    let fleet = Fleet::create("lifecycle").await;
    let server = fleet.serve(&fleet.config()).await;
    let admin = Administrator::create(&fleet, &server).await;
    let request = TokenRequest {
        name: "approval".into(),
        ttl: Duration::from_hours(1),
        max_uses: None,
        approval_needed: true,
        ..TokenRequest::default()
    };
    let token =
        join_token::create(&fleet.store, vec!["https://a:1".into()], &request, &Actor::cli()).await;
    let host = Identity::enroll_with(&fleet, &server, &token.unwrap()).await;
    let host_id = host.given.host_id.to_string();
    let client = host.client(&fleet);
    let hears = async |expected: (u16, &str)| {
        eventually(EFFECTIVE, "the decision reaches the host", async || {
            let request = client.get(server.agent_url("/v1/certificate"));
            let response = request.send().await?;
            let status = response.status().as_u16();
            let body: Value = response.json().await?;
            let code = body["code"].as_str().unwrap_or("-");
            anyhow::ensure!((status, code) == expected, "{status} {body}");
            Ok::<_, anyhow::Error>(())
        })
        .await
        .unwrap();
    };
    hears((403, "host_pending")).await;
    assert_eq!(admin.set(&host_id, "active").await.1["changed"], true);
    hears((200, "-")).await;
    assert_eq!(admin.set(&host_id, "active").await.1["changed"], false);
    assert_eq!(admin.set(&host_id, "quarantined").await.0, 200);
    hears((403, "host_quarantined")).await;
    assert_eq!(admin.set(&host_id, "active").await.0, 200);
    hears((200, "-")).await;
    assert_eq!(admin.set(&host_id, "decommissioned").await.0, 200);
    hears((410, "host_decommissioned")).await;
    let (status, refused) = admin.set(&host_id, "active").await;
    assert_eq!((status, &refused["code"]), (409, &json!("lifecycle_conflict")));
    assert_eq!(admin.set(&host_id, "pending").await.0, 422, "only enrolment makes a host pending");
    let nobody = uuid::Uuid::nil().to_string();
    assert_eq!(admin.set(&nobody, "active").await.0, 404);
    assert_eq!(
        admin.audit(&host_id).await,
        ["host.approve", "host.quarantine", "host.release", "host.decommission"]
    );
    let (_, page) = admin.ask(Method::GET, &format!("/v1/hosts/{host_id}"), None).await;
    assert_eq!(page["lifecycle"], "decommissioned");
}
