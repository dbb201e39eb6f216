//! Behind balancers: who is believed about whom, and who is not.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use collector_api::app;
use collector_api::config::network::Network;
use collector_api::config::{CertificateForm, Config};
use collector_api::lifecycle::Lifecycle;
use collector_api::metrics;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SubjectPublicKeyInfo};
use reqwest::{Client, Response, StatusCode};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::Identity;
use crate::doors::foreign_identity;
use crate::fleet::{Fleet, Server, new_host, now, plain_client};

const SECRET: &str = "a-secret-of-the-proxy";

fn networks(all: &[&str]) -> Vec<Network> {
    all.iter().map(|text| Network::try_from((*text).to_owned()).unwrap()).collect()
}

/// A server with a proxied door that knows its proxy by a secret.
fn proxied(fleet: &Fleet) -> Config {
    let secret_file = fleet.ca_key_file().with_file_name("proxy-secret");
    std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = fleet.config();
    config.proxied_door.listen = Some("127.0.0.1:0".parse().unwrap());
    config.proxied_door.trusted_proxies = networks(&["127.0.0.0/8"]);
    config.proxied_door.secret_file = Some(secret_file);
    config
}

fn proxied_url(server: &Server, path: &str) -> String {
    format!("https://{}{path}", server.addresses.proxied.unwrap())
}

fn rfc9440(chain_pem: &str) -> String {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).unwrap();
    format!(":{}:", STANDARD.encode(leaf))
}

async fn said(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap_or("-").to_owned())
}

async fn metric(server: &Server, name: &str) -> u64 {
    let metrics = plain_client().get(server.operator_url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let values = metrics.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// `GET /v1/certificate` as the proxy would pass it on.
async fn forwarded(client: &Client, server: &Server, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = client.get(proxied_url(server, "/v1/certificate"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    said(request.send().await.unwrap()).await
}

const IGNORED: &str = "procfleet_server_forwarded_certificates_ignored_total";
const REFUSED: &str = "procfleet_server_forwarded_certificates_refused_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_certificates_are_refused_and_counted() {
    let fleet = Fleet::create("forged").await;
    let server = fleet.serve(&proxied(&fleet)).await;
    let host = Identity::enroll(&fleet, &server).await;
    let good = rfc9440(&host.given.certificate_chain_pem);
    let client = fleet.client(None);

    // The agent door believes no header, whatever it holds.
    let names = ["client-cert", "x-ssl-client-cert", "x-forwarded-client-cert"];
    for name in names {
        let request = client.get(server.agent_url("/v1/certificate")).header(name, &good);
        let answer = said(request.header("procfleet-proxy-secret", SECRET).send().await.unwrap());
        assert_eq!(answer.await, (401, "no_client_certificate".into()));
    }
    assert_eq!(metric(&server, IGNORED).await, 3);

    let ask = async |headers: &[(&str, &str)]| forwarded(&client, &server, headers).await;
    let proxy = ("procfleet-proxy-secret", SECRET);
    let cert = |value: &'static str| ("client-cert", value);
    let good: &'static str = good.leak();
    let bad_forwarding = (400, "bad_forwarding".to_owned());
    let not_verified = (401, "no_client_certificate".to_owned());
    assert_eq!(ask(&[proxy, cert(good)]).await, (200, "-".into()));
    // No host, no header: as on the agent door.
    assert_eq!(ask(&[proxy]).await, not_verified);
    assert_eq!(ask(&[proxy, cert("")]).await, not_verified);
    let counted = metric(&server, REFUSED).await;
    assert_eq!(counted, 0);

    let wrong = ("procfleet-proxy-secret", "a-secret-of-somebody");
    for headers in [&[cert(good)][..], &[wrong, cert(good)], &[proxy, proxy, cert(good)]] {
        assert_eq!(ask(headers).await, bad_forwarding);
    }
    let (foreign, _) = foreign_identity(host.given.host_id);
    let foreign: &'static str = rfc9440(&foreign).leak();
    for headers in [[cert(good), cert(good)], [cert(foreign), cert(good)]] {
        let headers = [&[proxy], &headers[..]].concat();
        assert_eq!(ask(&headers).await, bad_forwarding, "twice");
    }
    for unreadable in ["x", ":x:", "::", ":AAAA:", "-----BEGIN CERTIFICATE-----"] {
        let refused = ask(&[proxy, cert(unreadable)]).await;
        assert!(refused == bad_forwarding || refused == not_verified, "{unreadable}: {refused:?}");
    }

    // Of the same name and for the same host, but not ours; ours, but over; ours, but a server's.
    let spki = SubjectPublicKeyInfo::from_der(&host.key.subject_public_key_info()).unwrap();
    let life = time::Duration::days(30);
    let over = fleet
        .authorities
        .client
        .issue_host(host.given.host_id, &spki, life, now() - life * 2)
        .unwrap();
    let servers =
        fleet.authorities.server.issue_server(&["h".into()], &host.key, life, now()).unwrap();
    for forged in [foreign, rfc9440(&over.chain_pem).leak(), rfc9440(&servers.pem()).leak()] {
        assert_eq!(ask(&[proxy, cert(forged)]).await, not_verified);
    }
    assert_eq!(metric(&server, REFUSED).await, 13);

    // A good certificate whose host is not.
    fleet.execute("update host_certificates set status = 'revoked'").await;
    let fresh = fleet.serve(&proxied(&fleet)).await;
    let refused = forwarded(&client, &fresh, &[proxy, cert(good)]).await;
    assert_eq!(refused, (403, "certificate_revoked".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_proxy_gets_through_its_door() {
    let fleet = Fleet::create("proxy-ca").await;
    let proxy_key = KeyPair::generate().unwrap();
    let proxy = CertificateParams::new(vec!["proxy".into()]).unwrap();
    let proxy = proxy.self_signed(&proxy_key).unwrap();
    let ca_file = fleet.ca_key_file().with_file_name("proxy-ca.pem");
    std::fs::write(&ca_file, proxy.pem()).unwrap();
    let mut config = proxied(&fleet);
    config.proxied_door.secret_file = None;
    config.proxied_door.proxy_ca_file = Some(ca_file);
    config.proxied_door.certificate_form = CertificateForm::EscapedPem;
    let server = fleet.serve(&config).await;
    let host = Identity::enroll(&fleet, &server).await;
    let leaf = host.given.certificate_chain_pem.split_inclusive("-----END CERTIFICATE-----\n");
    let leaf = leaf.take(1).collect::<String>().replace('\n', "%0A").replace(' ', "%20");
    let header = [("x-ssl-client-cert", leaf.as_str())];

    let pem = proxy.pem();
    let as_proxy = fleet.client(Some((&pem, &proxy_key)));
    assert_eq!(forwarded(&as_proxy, &server, &header).await, (200, "-".into()));
    let url = proxied_url(&server, "/v1/certificate");
    for nobody in [fleet.client(None), host.client(&fleet)] {
        let asked = nobody.get(&url).header(header[0].0, header[0].1).send().await;
        assert!(asked.is_err(), "the handshake must fail: {asked:?}");
    }

    // From elsewhere: closed before a byte is read.
    config.proxied_door.trusted_proxies = networks(&["10.0.0.0/8"]);
    let strict = fleet.serve(&config).await;
    let mut stream = TcpStream::connect(strict.addresses.proxied.unwrap()).await.unwrap();
    let read =
        tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    // And a door that would believe anybody is not opened.
    let unsafe_ones: [fn(&mut Config); 2] = [
        |config| config.proxied_door.trusted_proxies.clear(),
        |config| config.proxied_door.proxy_ca_file = None,
    ];
    for change in unsafe_ones {
        let mut open = config.clone();
        change(&mut open);
        let started =
            app::start(&open, &Lifecycle::default(), app::Prepare::default(), metrics::install())
                .await;
        assert!(started.unwrap_err().to_string().contains("proxied_door"));
    }
}

/// `PROXY` version 2, of a TCP connection from `source`.
fn proxy_header(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(source);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0x1d, 0x13]);
    header
}

/// Enrols with a wrong token over a connection that begins with `first`; the status line.
async fn knock(fleet: &Fleet, server: &Server, first: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(server.addresses.agent).await?;
    stream.write_all(first).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(fleet.tls(None)));
    let mut stream = connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
    let request = "POST /v1/enroll HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancers_word_about_addresses_counts_and_nobody_elses() {
    let fleet = Fleet::create("proxy-protocol").await;
    let mut config = fleet.config();
    config.enrollment.source_burst = 2.0;
    config.enrollment.source_per_second = 0.001;
    config.agent_door.proxy_protocol_from = networks(&["127.0.0.0/8"]);
    let server = fleet.serve(&config).await;
    let (one, other) = (proxy_header([192, 0, 2, 1]), proxy_header([198, 51, 100, 1]));
    for expected in ["401", "401", "429"] {
        let heard = knock(&fleet, &server, &one).await.unwrap();
        assert!(heard.contains(expected), "{heard}");
    }
    let heard = knock(&fleet, &server, &other).await.unwrap();
    assert!(heard.contains("401"), "another address has its own: {heard}");
    // A health check of the balancer speaks for itself.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    assert!(knock(&fleet, &server, local).await.unwrap().contains("401"));
    // Where it must come it is never guessed.
    assert!(knock(&fleet, &server, b"").await.is_err());
    let failed =
        "procfleet_server_connections_failed_total{door=\"agent\",reason=\"proxy_header\"}";
    assert_eq!(metric(&server, failed).await, 1);

    config.agent_door.proxy_protocol_from = networks(&["10.0.0.0/8"]);
    let untrusting = fleet.serve(&config).await;
    assert!(knock(&fleet, &untrusting, &one).await.is_err(), "anybody could say who they are");
    assert!(knock(&fleet, &untrusting, b"").await.unwrap().contains("401"));
}

/// One address, one honest fleet, one stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hosts_behind_one_address_enrol_beside_a_stranger_that_floods() {
    use futures_util::StreamExt as _;
    const HOSTS: u32 = 1000;
    let fleet = Fleet::create("one-address").await;
    let config = Config {
        enrollment: collector_api::config::Enrollment {
            source_per_second: 1.0,
            source_burst: 20.0,
            ..fleet.config().enrollment
        },
        ..fleet.config()
    };
    let server = &fleet.serve(&config).await;
    let token = fleet.token(None).await.authorization();
    let client = &fleet.client(None);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let flood = async {
        let (mut refused, mut limited) = (0, 0);
        while !*stopped.borrow() {
            let stranger = format!("Bearer {}.guess", uuid::Uuid::new_v4());
            let request =
                client.post(server.agent_url("/v1/enroll")).header("authorization", stranger);
            let Ok(response) = request.json(&json!({})).send().await else { continue };
            match response.status() {
                StatusCode::UNAUTHORIZED => refused += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    assert!(response.headers().contains_key("retry-after"));
                    limited += 1;
                }
                other => panic!("{other}"),
            }
        }
        (refused, limited)
    };
    let enrol = async {
        let hosts: Vec<(KeyPair, Value)> = futures_util::stream::iter(0..HOSTS)
            .map(|n| {
                let token = &token;
                async move {
                    let (key, body) = new_host(&format!("host-{n}"));
                    let (status, answer) = server.enroll(client, token, &body).await;
                    assert_eq!(status, StatusCode::CREATED, "{answer}");
                    (key, answer)
                }
            })
            .buffer_unordered(32)
            .collect()
            .await;
        stop.send_replace(true);
        hosts
    };
    let ((refused, limited), hosts) = tokio::join!(flood, enrol);
    assert!(limited > refused, "the stranger is limited: {refused} answers, {limited} times 429");
    assert_eq!(hosts.len(), 1000);
    assert_eq!(fleet.count("select count(*) from hosts").await, i64::from(HOSTS));
    assert_eq!(fleet.count("select uses::bigint from enrollment_tokens").await, i64::from(HOSTS));

    // Once enrolled, nothing counts but the host's own identity.
    let fleet = &fleet;
    futures_util::stream::iter(hosts)
        .for_each_concurrent(32, |(key, answer)| async move {
            let chain = answer["certificate_chain_pem"].as_str().unwrap();
            let host = fleet.client(Some((chain, &key)));
            let response = host.get(server.agent_url("/v1/certificate")).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        })
        .await;
}
