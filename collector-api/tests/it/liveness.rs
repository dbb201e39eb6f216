//! Whether a host is alive: every state by its heartbeat, refused requests as signs of life, goodbyes.

use std::time::Duration;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::store::audit::Actor;
use fleet_sim::eventually::eventually;
use serde_json::{Value, json};

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server, plain_client};

const DEADLINE: Duration = Duration::from_secs(30);

/// What an operator sees of one host.
struct Viewer<'a> {
    server: &'a Server,
    key: String,
    path: String,
}

impl<'a> Viewer<'a> {
    async fn create(fleet: &Fleet, server: &'a Server, host: &Identity) -> Self {
        let minted = MintedApiKey::from_random([5; 48], "eve".into(), Role::Viewer, None);
        fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        let path = format!("/v1/hosts/{}", host.given.host_id);
        Self { server, key: minted.to_paste(), path }
    }

    async fn host(&self) -> Value {
        let request = plain_client().get(self.server.operator_url(&self.path));
        request.bearer_auth(&self.key).send().await.unwrap().json().await.unwrap()
    }

    async fn wait_for(&self, liveness: &str) -> Value {
        eventually(DEADLINE, "the host is in that state", async || {
            let host = self.host().await;
            if host["liveness"] == liveness { Ok(host) } else { Err(format!("{host:#}")) }
        })
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_follows_from_the_heartbeat() {
    let fleet = Fleet::create("liveness").await;
    let server = fleet.serve(&fleet.config()).await;
    let host = Identity::enroll(&fleet, &server).await;
    let viewer = Viewer::create(&fleet, &server, &host).await;
    assert_eq!(viewer.host().await["liveness"], "never_reported");
    // Interval 30 s: overdue after 55 s, silent after 105 s.
    let table: [(&'static str, &str); 9] = [
        (
            "contacted_at = now() - interval '50 s', deadline_at = now() + interval '55 s', interval_ms = 30000",
            "up",
        ),
        ("contacted_at = now() - interval '60 s', deadline_at = now() + interval '45 s'", "late"),
        ("contacted_at = now() - interval '106 s', deadline_at = now() - interval '1 s'", "silent"),
        (
            "contacted_at = now() - interval '15 d', deadline_at = now() - interval '15 d'",
            "dormant",
        ),
        ("goodbye = 'shutdown', goodbye_at = now() - interval '15 d'", "dormant"),
        ("goodbye = 'shutdown', goodbye_at = now() - interval '13 d'", "stopped"),
        ("goodbye = 'uninstall', goodbye_at = now()", "stopped"),
        (
            "goodbye = 'restart', contacted_at = now() - interval '4 min', deadline_at = now() + interval '2 min'",
            "up",
        ),
        ("deadline_at = now() - interval '1 s'", "silent"),
    ];
    for (heartbeat, liveness) in table {
        let statement = format!("update heartbeats set {heartbeat}");
        fleet.execute(statement.leak()).await;
        assert_eq!(viewer.host().await["liveness"], liveness, "{heartbeat}");
    }
    fleet.execute("update hosts set lifecycle = 'quarantined'").await;
    assert_eq!(viewer.host().await["liveness"], Value::Null, "only active hosts are judged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_is_a_sign_of_life_and_a_goodbye_holds_until_the_next() {
    let fleet = Fleet::create("contacts").await;
    let server = fleet.serve(&fleet.config()).await;
    let host = Identity::enroll(&fleet, &server).await;
    let viewer = Viewer::create(&fleet, &server, &host).await;
    let client = host.client(&fleet);
    let refused = async || {
        let request = client.post(server.agent_url("/v1/reports")).body("not a report");
        assert_eq!(request.send().await.unwrap().status(), 415);
    };
    refused().await;
    let seen = viewer.wait_for("up").await;
    assert_eq!(seen["last_seen_at"], Value::Null, "nothing was stored");
    assert_eq!(seen["silent"], Value::Null, "nothing was stored");

    let goodbye = async |reason: &str| {
        let request = client.post(server.agent_url("/v1/goodbye"));
        request.json(&json!({ "reason": reason })).send().await.unwrap().status()
    };
    assert_eq!(goodbye("shutdown").await, 204);
    let stopped = viewer.wait_for("stopped").await;
    assert_eq!(stopped["goodbye"], "shutdown");
    assert!(stopped["goodbye_at"].is_string());
    refused().await;
    assert_eq!(viewer.wait_for("up").await["goodbye"], Value::Null);

    assert_eq!(goodbye("upgrade").await, 204);
    let grace = "select count(*) from heartbeats where deadline_at > now() + interval '5 min'";
    assert_eq!(fleet.count(grace).await, 1);
    assert_eq!(viewer.host().await["liveness"], "up");
    assert_eq!(goodbye("holiday").await, 422);
    let anonymous = fleet.client(None).post(server.agent_url("/v1/goodbye"));
    let anonymous = anonymous.json(&json!({ "reason": "uninstall" })).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
}
