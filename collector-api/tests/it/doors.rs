//! What protects the handlers from connections, and who is let in.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::routing::get;
use collector_api::app;
use collector_api::auth::agent::{CHECK_TTL, CertificateChecks, PeerCertificate};
use collector_api::doors::layers::{REQUEST_ID, wrap};
use collector_api::lifecycle::Lifecycle;
use collector_api::metrics;
use fleet_sim::eventually::eventually;
use http_body_util::BodyExt as _;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use reqwest::StatusCode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use shared_model::{EnrollResponse, Problem, ProblemCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::fleet::{Fleet, PATIENCE, Server, new_host, plain_client};

/// A route of the agent door that needs an identity.
fn cursor() -> String {
    format!("/v1/cursor?stream_id={}", Uuid::nil())
}

async fn enrolled(fleet: &Fleet, server: &Server) -> (KeyPair, EnrollResponse) {
    let (key, body) = new_host("h");
    let authorization = fleet.token(None).await.authorization();
    let (status, answer) = server.enroll(&fleet.client(None), &authorization, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    (key, serde_json::from_value(answer).unwrap())
}

async fn refused(response: reqwest::Response) -> (u16, String, bool) {
    let status = response.status().as_u16();
    let closes = response.headers().get("connection").is_some_and(|value| value == "close");
    let problem: Value = response.json().await.unwrap();
    (status, problem["code"].as_str().unwrap().to_owned(), closes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_hosts_that_are_still_good_get_in() {
    let fleet = Fleet::create("mtls").await;
    let server = fleet.serve(&fleet.config()).await;
    let (key, identity) = enrolled(&fleet, &server).await;
    let url = server.agent_url(&cursor());

    let response = fleet.client(None).get(url.clone()).send().await.unwrap();
    assert_eq!(refused(response).await, (401, "no_client_certificate".into(), true));

    let client = fleet.client(Some((&identity.certificate_chain_pem, &key)));
    let response = client.get(url.clone()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    let (foreign_chain, foreign_key) = foreign_identity(identity.host_id);
    let foreign = fleet.client(Some((&foreign_chain, &foreign_key)));
    assert!(foreign.get(url.clone()).send().await.is_err(), "the handshake must fail");

    // On the same open connection.
    fleet.execute("update host_certificates set status = 'revoked'").await;
    let seen = eventually(CHECK_TTL * 3, "the revoked certificate is refused", async || {
        let response = client.get(url.clone()).send().await?;
        anyhow::ensure!(!response.status().is_success());
        Ok::<_, anyhow::Error>(refused(response).await)
    });
    assert_eq!(seen.await.unwrap(), (403, "certificate_revoked".into(), true));

    fleet.execute("update hosts set lifecycle = 'decommissioned'").await;
    let response = client.get(url.clone()).send().await.unwrap();
    assert_eq!(refused(response).await, (410, "host_decommissioned".into(), true));
    fleet.execute("delete from heartbeats").await;
    fleet.execute("delete from host_certificates").await;
    let response = client.get(url.clone()).send().await.unwrap();
    assert_eq!(refused(response).await, (401, "host_unknown".into(), true));
}

/// A certificate like ours, of an authority like ours.
pub(crate) fn foreign_identity(host_id: Uuid) -> (String, KeyPair) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "Procfleet client authority");
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let issuer = Issuer::new(ca, ca_key);
    let mut leaf = CertificateParams::new(vec![]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let urn = format!("urn:procfleet:host:{host_id}");
    leaf.subject_alt_names = vec![SanType::URI(urn.as_str().try_into().unwrap())];
    (leaf.signed_by(&key, &issuer).unwrap().pem(), key)
}

#[tokio::test]
async fn without_the_database_there_is_no_identity() {
    let fleet = Fleet::create("fail-closed").await;
    let checks = CertificateChecks::new(fleet.store.clone(), CHECK_TTL);
    let peer = PeerCertificate { host_id: Uuid::nil(), serial: "00".into(), spki_sha256: [0; 32] };
    let refusal = checks.check(&peer).await.unwrap_err();
    assert_eq!(refusal.problem.code, ProblemCode::HostUnknown);
    let nowhere = collector_api::store::Store::connect_reader("postgres://x@127.0.0.1:1/x", 1);
    let checks = CertificateChecks::new(nowhere.unwrap(), CHECK_TTL);
    let refusal = checks.check(&peer).await.unwrap_err();
    assert_eq!(refusal.problem.code, ProblemCode::DatabaseUnavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_certificate_is_no_servers() {
    let fleet = Fleet::create("exclusive-usage").await;
    let server = fleet.serve(&fleet.config()).await;
    let (_, identity) = enrolled(&fleet, &server).await;
    let chain = identity.certificate_chain_pem.as_bytes();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().unwrap();
    // Even for who trusts the client authority as a server's.
    let mut roots = RootCertStore::empty();
    roots.add(fleet.authorities.client.certificate_der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let error =
        verifier.verify_server_cert(&chain[0], &[], &name, &[], UnixTime::now()).unwrap_err();
    let wrong_purpose = matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
        )
    );
    assert!(wrong_purpose, "{error:?}");
}

/// With a certificate of the operator's own, for who trusts that and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_door_speaks_tls_from_files() {
    let fleet = Fleet::create("operator-tls").await;
    let directory = fleet.ca_key_file().parent().unwrap().to_owned();
    let (certificate_file, key_file) = (directory.join("o.crt"), directory.join("o.key"));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    std::fs::write(&certificate_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let mut config = fleet.config();
    config.operator_door.tls_certificate_file = Some(certificate_file);
    config.operator_door.tls_key_file = Some(key_file);
    let server = fleet.serve(&config).await;

    let url = format!("https://{}/livez", server.addresses.operator);
    fleet_sim::simulated::install_crypto();
    let root = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().timeout(PATIENCE);
    let response = client.build().unwrap().get(&url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(fleet.client(None).get(&url).send().await.is_err(), "not the agents' authority");
    let plain = plain_client().get(server.operator_url("/livez")).send().await;
    assert!(plain.is_err(), "nothing in clear");

    config.operator_door.tls_key_file = None;
    let lifecycle = Lifecycle::default();
    let refused = app::start(&config, &lifecycle, app::Prepare::default(), metrics::install())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("needed together")
            || std::error::Error::source(&refused)
                .is_some_and(|why| why.to_string().contains("needed together")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_limit_sheds_and_recovers() {
    let fleet = Fleet::create("limit").await;
    let mut config = fleet.config();
    config.operator_door.max_connections = 3;
    config.agent_door.max_connections = 5;
    config.agent_door.max_anonymous_connections = 2;
    let server = fleet.serve(&config).await;
    for (address, limit) in [(server.addresses.operator, 3), (server.addresses.agent, 2)] {
        let mut held = Vec::new();
        for _ in 0..limit {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let mut shed = TcpStream::connect(address).await.unwrap();
        // Closed without a word, at once: not after a timeout of the held ones.
        let read = tokio::time::timeout(PATIENCE, shed.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let (plain, tls) = (plain_client(), fleet.client(None));
    eventually(PATIENCE, "both doors serve again", async || {
        plain.get(server.operator_url("/readyz")).send().await?.error_for_status()?;
        tls.get(server.agent_url("/readyz")).send().await?.error_for_status()
    })
    .await
    .unwrap();
    let metrics = plain.get(server.operator_url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for place in ["\"connections\"", "\"anonymous_connections\""] {
        assert!(metrics.contains(&format!("place={place}")), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_dawdle_are_dropped_and_others_served() {
    let fleet = Fleet::create("slowloris").await;
    let mut config = fleet.config();
    config.agent_door.max_anonymous_connections = 4;
    let server = fleet.serve(&config).await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(fleet.tls(None)));
    let address = server.addresses.agent;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut half = connector.connect(name.clone(), stream).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut idle = connector.connect(name, stream).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let ends = async {
        let mut buffer = Vec::new();
        // A reset is an end, too.
        drop(silent.read_to_end(&mut buffer).await);
        drop(garbage.read_to_end(&mut buffer).await);
        drop(half.read_to_end(&mut buffer).await);
        buffer.clear();
        drop(idle.read_to_end(&mut buffer).await);
        String::from_utf8_lossy(&buffer).to_lowercase()
    };
    let answer = tokio::time::timeout(PATIENCE, ends).await.expect("all are dropped");
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    let response = fleet.client(None).get(server.agent_url("/livez")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_end_and_the_next_is_served() {
    let fleet = Fleet::create("malformed").await;
    let server = fleet.serve(&fleet.config()).await;
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    for request in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /livez HTTP/9.9\r\n\r\n",
        "GET /livez HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "GET /livez HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /livez HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "GET /livez HTTP/1.1\r\n: no name\r\n\r\n",
        &long,
    ] {
        let mut stream = TcpStream::connect(server.addresses.operator).await.unwrap();
        // The server may close before it has read all.
        drop(stream.write_all(request.as_bytes()).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "still open after {request:?}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    let response = plain_client().get(server.operator_url("/livez")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_do_not_serve_each_others_routes() {
    let fleet = Fleet::create("routes").await;
    let server = fleet.serve(&fleet.config()).await;
    let (agent, operator) = (fleet.client(None), plain_client());
    let status = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let (status, problem) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(problem["request_id"], Value::String(id));
        (status.as_u16(), problem["code"].as_str().unwrap().to_owned())
    };
    let not_found = (404, "not_found".to_owned());
    assert_eq!(status(agent.get(server.agent_url("/v1/hosts"))).await, not_found);
    assert_eq!(status(agent.get(server.agent_url("/metrics"))).await, not_found);
    assert_eq!(status(operator.post(server.operator_url("/v1/enroll"))).await, not_found);
    assert_eq!(status(operator.get(server.operator_url("/v1/cursor"))).await, not_found);
    let wrong_method = (405, "method_not_allowed".to_owned());
    assert_eq!(status(agent.get(server.agent_url("/v1/enroll"))).await, wrong_method);
    assert_eq!(status(operator.post(server.operator_url("/livez"))).await, wrong_method);
}

async fn doomed() -> &'static str {
    panic!("on purpose, with a secret")
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing_and_the_door_serves_on() {
    let router = Router::new().route("/doomed", get(doomed)).route("/fine", get(async || {}));
    let router = wrap("agent", router);
    let ask = |path| Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(ask("/doomed")).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let id = response.headers()[&REQUEST_ID].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!((problem.code, problem.status), (ProblemCode::Internal, 500));
    assert_eq!(problem.request_id, Some(id));
    assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    assert_eq!(router.oneshot(ask("/fine")).await.unwrap().status(), 200);
}
