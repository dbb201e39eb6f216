//! Authorities take turns under hosts that report.

use std::time::Duration;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::authority::Purpose;
use collector_api::authority::rotation::{self, Step};
use collector_api::store::audit::Actor;
use collector_api::store::authorities::Rotated;
use fleet_sim::eventually::eventually;
use reqwest::{Method, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server, now, plain_client};

const PATIENCE: Duration = Duration::from_secs(40);

fn actor() -> Actor {
    Actor { id: "cli".into(), name: None }
}

async fn begin(fleet: &Fleet, purpose: Purpose) -> Rotated {
    let key_file = fleet.ca_key_file();
    rotation::begin(&fleet.store, &key_file, purpose, &actor(), now()).await.unwrap()
}

async fn step(fleet: &Fleet, purpose: Purpose, step: Step, force: bool) -> Rotated {
    rotation::step(&fleet.store, purpose, step, force, &actor()).await.unwrap()
}

/// As if every replica had had its time to read the last step.
async fn settle(fleet: &Fleet) {
    fleet
        .execute("update certificate_authorities set state_changed_at = now() - interval '2 min'")
        .await;
}

/// What the host hears when it says which set it keeps.
async fn tell(fleet: &Fleet, server: &Server, host: &Identity, kept: Option<&str>) -> Value {
    let request = host.client(fleet).put(server.agent_url("/v1/trust"));
    let response = request.json(&json!({ "trust_id": kept })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

async fn wait_for_another(fleet: &Fleet, server: &Server, host: &Identity, known: &str) -> Value {
    eventually(PATIENCE, "the server reads the authorities again", async || {
        let answer = tell(fleet, server, host, None).await;
        anyhow::ensure!(answer["trust_id"] != known, "{answer}");
        Ok::<_, anyhow::Error>(answer)
    })
    .await
    .unwrap()
}

fn certificates(answer: &Value) -> usize {
    let pem = answer["ca_bundle_pem"].as_str().unwrap();
    CertificateDer::pem_slice_iter(pem.as_bytes()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_authority_is_replaced_and_old_certificates_go_on_until_replaced() {
    let fleet = Fleet::create("client-rotation").await;
    let server = fleet.serve(&fleet.config()).await;
    let host = Identity::enroll(&fleet, &server).await;
    let before = tell(&fleet, &server, &host, None).await;
    assert!(before["renew_after"].is_null(), "{before}");
    let known = before["trust_id"].as_str().unwrap().to_owned();

    assert_eq!(step(&fleet, Purpose::Client, Step::Activate, false).await, Rotated::NotNow);
    assert_eq!(begin(&fleet, Purpose::Client).await, Rotated::Done);
    assert_eq!(begin(&fleet, Purpose::Client).await, Rotated::UnderWay);
    assert_eq!(step(&fleet, Purpose::Client, Step::Activate, true).await, Rotated::TooSoon);
    settle(&fleet).await;
    assert_eq!(step(&fleet, Purpose::Client, Step::Activate, false).await, Rotated::Done);
    let after = wait_for_another(&fleet, &server, &host, &known).await;
    assert!(after["renew_after"].is_string(), "its authority signs no more: {after}");

    // The old certificate is good, also on a new connection; the next one is of the new authority.
    settle(&fleet).await;
    assert_eq!(step(&fleet, Purpose::Client, Step::Finish, false).await, Rotated::Needed(1));
    let (key, body) = crate::fleet::new_host("h");
    let renewal = json!({ "version": shared_model::PROTOCOL_VERSION, "csr_pem": body["csr_pem"] });
    let request = host.client(&fleet).post(server.agent_url("/v1/certificate")).json(&renewal);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let renewed = Identity { key, given: response.json().await.unwrap() };
    let answer = tell(&fleet, &server, &renewed, None).await;
    assert!(answer["renew_after"].is_null(), "{answer}");

    assert_eq!(step(&fleet, Purpose::Client, Step::Finish, false).await, Rotated::Done);
    eventually(PATIENCE, "the old authority is trusted no longer", async || {
        let asked = host.client(&fleet).get(server.agent_url("/v1/certificate")).send().await;
        anyhow::ensure!(asked.is_err(), "{asked:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    tell(&fleet, &server, &renewed, None).await;
    let audited =
        "select count(*) from audit_events where object_type = 'authority' and actor = 'cli'";
    assert_eq!(fleet.count(audited).await, 3);
    assert_eq!(fleet.count("select count(*) from certificate_authorities").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_authority_waits_until_every_host_knows_the_next() {
    let fleet = Fleet::create("server-rotation").await;
    let config = fleet.config();
    let (server, other) = (fleet.serve(&config).await, fleet.serve(&config).await);
    let (first, second) =
        (Identity::enroll(&fleet, &server).await, Identity::enroll(&fleet, &server).await);
    let before = tell(&fleet, &server, &first, None).await;
    assert_eq!(certificates(&before), 1);
    let known = before["trust_id"].as_str().unwrap().to_owned();
    assert_eq!(begin(&fleet, Purpose::Server).await, Rotated::Done);
    settle(&fleet).await;
    let both = wait_for_another(&fleet, &other, &first, &known).await;
    wait_for_another(&fleet, &server, &first, &known).await;
    assert_eq!(certificates(&both), 2, "old and new");
    assert_eq!(fleet.token(None).await.pins.len(), 2);
    let trust_id = both["trust_id"].as_str();

    let activate = async |force| step(&fleet, Purpose::Server, Step::Activate, force).await;
    assert_eq!(activate(false).await, Rotated::Needed(2));
    tell(&fleet, &server, &first, trust_id).await;
    assert_eq!(activate(false).await, Rotated::Needed(1));
    tell(&fleet, &other, &second, trust_id).await;
    let status = rotation::status(&fleet.store).await.unwrap();
    assert!(status.iter().all(|one| one.purpose == "client" || one.hosts == 0), "{status:?}");
    assert_eq!(activate(false).await, Rotated::Done);

    // Who trusts the next one alone is served by both, soon; nobody waits for anybody.
    let next = rotation::status(&fleet.store).await.unwrap();
    let next = next.iter().find(|one| one.purpose == "server" && one.state == "active").unwrap();
    fleet_sim::simulated::install_crypto();
    let root = reqwest::Certificate::from_pem(next.certificate_pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
    for server in [&server, &other] {
        eventually(PATIENCE, "the door shows the next authority's", async || {
            Ok::<_, anyhow::Error>(client.get(server.agent_url("/livez")).send().await?)
        })
        .await
        .unwrap();
    }
    settle(&fleet).await;
    assert_eq!(step(&fleet, Purpose::Server, Step::Finish, false).await, Rotated::Done);

    // One that was not activated is given up without a trace in what is trusted.
    assert_eq!(begin(&fleet, Purpose::Server).await, Rotated::Done);
    assert_eq!(step(&fleet, Purpose::Server, Step::Abort, false).await, Rotated::Done);
    assert_eq!(fleet.token(None).await.pins.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_rotate_by_rest() {
    let fleet = Fleet::create("rotation-rest").await;
    let server = fleet.serve(&fleet.config()).await;
    let mut keys = Vec::new();
    for (byte, role) in [(1, Role::Admin), (2, Role::Operator)] {
        let minted = MintedApiKey::from_random([byte; 48], "ada".into(), role, None);
        fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        keys.push(minted.to_paste());
    }
    let ask = async |method: Method, path: &str, key: &str, body: Value| {
        let url = server.operator_url(&format!("/v1/authorities{path}"));
        let request = plain_client().request(method, url).bearer_auth(key);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (admin, operator) = (keys[0].as_str(), keys[1].as_str());
    let states = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (status, page) = ask(Method::GET, "", operator, Value::Null).await;
    assert_eq!((status, states(&page)), (200, vec!["active".into(), "active".into()]));
    assert!(!page.to_string().contains("PRIVATE"), "{page}");
    let rotation = "/server/rotation";
    assert_eq!(ask(Method::POST, rotation, operator, Value::Null).await.0, 403);
    let (status, page) = ask(Method::POST, rotation, admin, Value::Null).await;
    assert_eq!((status, states(&page).len()), (200, 3), "{page}");
    let activate = json!({ "step": "activate" });
    let (status, refused) = ask(Method::PUT, rotation, admin, activate.clone()).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("rotation_conflict")), "{refused}");
    settle(&fleet).await;
    assert_eq!(ask(Method::PUT, rotation, operator, activate.clone()).await.0, 403);
    let (status, page) = ask(Method::PUT, rotation, admin, activate).await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(ask(Method::PUT, "/nobody/rotation", admin, json!({"step": "abort"})).await.0, 400);
    let audited = "select count(*) from audit_events where object_type = 'authority' and actor like 'api_key:%'";
    assert_eq!(fleet.count(audited).await, 2);
}
