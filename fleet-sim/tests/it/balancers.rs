//! Real balancers in every mode: TLS passed through with the PROXY protocol, TLS ended by HAProxy, TLS
//! ended by nginx. And five servers that start at once where there is nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::address::{free_address, own_address};
use fleet_sim::child::Directory;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::haproxy::{HaproxyProcess, Terminated};
use fleet_sim::nginx::NginxProcess;
use fleet_sim::server::{Deployment, Doors, ServerProcess};
use serde_json::Value;
use sqlx::Connection as _;

use crate::fleet::{
    DEADLINE, compare_all, connect, report_count, settle, simulated, start_agent, wait_for_reports,
};

const SECRET: &str = "what only the balancer knows";
const IGNORED: &str = "procfleet_server_connections_failed_total";

/// Agents, real and simulated, report through what is in front of the server; all of it is stored.
async fn agents_report(deployment: &Deployment) -> Result<()> {
    let mut agent = start_agent(deployment, "agent", Duration::from_millis(500), false).await?;
    let mut simulated = simulated(deployment, 2).await?;
    for agent in &mut simulated {
        agent.produce(20);
        agent.drain(DEADLINE).await?;
    }
    let mut connection = connect(deployment).await?;
    let reports = report_count(&mut connection, agent.host_id()?).await?;
    wait_for_reports(&mut connection, &mut agent, reports).await?;
    let real = settle(&mut connection, &mut agent).await?;
    let compared = compare_all(&mut connection, &simulated, &real).await?;
    ensure!(compared.gaps == 0, "{compared:?}");
    Ok(())
}

#[tokio::test]
async fn haproxy_passes_tls_through_and_says_who_connects() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let (listen, doors) = (free_address()?, Doors::free()?);
    let endpoint = format!("https://{listen}");
    let mut deployment = Deployment::create("proxy-v2", &database.url, vec![endpoint]).await?;
    let from = ("PROCFLEET_AGENT_DOOR__PROXY_PROTOCOL_FROM", "127.0.0.0/8".to_owned());
    deployment.environment.push(from);
    let mut server = deployment.start("server", doors).await?;
    let mut haproxy = HaproxyProcess::start_with_proxy_protocol(listen, &[doors]).await?;
    agents_report(&deployment).await?;
    let api_key = deployment.create_api_key("admin").await?;
    let refused = server.metric(&api_key, IGNORED, "proxy_header").await?;
    ensure!(refused == 0.0, "HAProxy's headers are read: {refused}");
    haproxy.check_alive()?;
    server.terminate().await
}

/// A server with a proxied door, and the files for the proxy that agents will trust.
async fn behind_a_proxy(
    name: &str,
    more: Vec<(&'static str, String)>,
) -> Result<(TestDatabase, Deployment, ServerProcess, Proxied)> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let (listen, door) = (free_address()?, free_address()?);
    let endpoint = format!("https://{listen}");
    let mut deployment = Deployment::create(name, &database.url, vec![endpoint]).await?;
    let own = own_address().to_string();
    deployment.environment = vec![
        ("PROCFLEET_AGENT_DOOR__NAMES", format!("{own},localhost")),
        ("PROCFLEET_PROXIED_DOOR__LISTEN", door.to_string()),
        ("PROCFLEET_PROXIED_DOOR__TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
    ];
    deployment.environment.extend(more);
    let file = |name: &str| deployment.directory.path().join(name);
    let files = Terminated {
        certificate: file("proxy.crt"),
        key: file("proxy.key"),
        client_ca: file("client-ca.pem"),
        server_ca: file("server-ca.pem"),
    };
    let text = fleet_sim::server::path_text;
    let (certificate, key) = (text(&files.certificate)?, text(&files.key)?);
    let issue =
        ["authority", "issue-proxy", "--name", &own, "--certificate", certificate, "--key", key];
    deployment.run("issue-proxy", &issue).await?;
    for (which, path) in [("client", &files.client_ca), ("server", &files.server_ca)] {
        let export = ["authority", "export", which, "--output", text(path)?];
        deployment.run("export", &export).await?;
    }
    let server = deployment.start("server", Doors::free()?).await?;
    Ok((database, deployment, server, Proxied { listen, door, files }))
}

struct Proxied {
    listen: std::net::SocketAddr,
    door: std::net::SocketAddr,
    files: Terminated,
}

/// A stranger without a certificate says in headers that it is a host: the proxy drops them.
async fn strangers_headers_are_dropped(proxied: &Proxied, headers: &[&'static str]) -> Result<()> {
    let roots = fs::read(&proxied.files.server_ca)?;
    let root = reqwest::Certificate::from_pem(&roots)?;
    fleet_sim::simulated::install_crypto();
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build()?;
    let mut request = client.get(format!("https://{}/v1/certificate", proxied.listen));
    for header in headers {
        request = request.header(*header, ":AAAA:");
    }
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body: Value = response.json().await?;
    ensure!((status, body["code"].as_str()) == (401, Some("no_client_certificate")), "{body}");
    Ok(())
}

#[tokio::test]
async fn haproxy_ends_tls_and_forwards_certificates_by_rfc_9440() -> Result<()> {
    let directory = Directory::create("haproxy-secret")?;
    let secret_file = directory.path().join("secret");
    fs::write(&secret_file, SECRET)?;
    fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o600))?;
    let secret = fleet_sim::server::path_text(&secret_file)?.to_owned();
    let more = vec![("PROCFLEET_PROXIED_DOOR__SECRET_FILE", secret)];
    let (_database, deployment, mut server, proxied) = behind_a_proxy("haproxy-tls", more).await?;
    let mut haproxy =
        HaproxyProcess::start_terminating(proxied.listen, proxied.door, &proxied.files, SECRET)
            .await?;
    agents_report(&deployment).await?;
    strangers_headers_are_dropped(&proxied, &["client-cert", "procfleet-proxy-secret"]).await?;
    haproxy.check_alive()?;
    server.terminate().await
}

#[tokio::test]
async fn nginx_ends_tls_and_forwards_certificates_escaped() -> Result<()> {
    let directory = Directory::create("nginx-mtls")?;
    let (certificate, key) = (directory.path().join("mtls.crt"), directory.path().join("mtls.key"));
    let pair = rcgen::KeyPair::generate()?;
    let own = rcgen::CertificateParams::new(vec!["nginx".into()])?.self_signed(&pair)?;
    fs::write(&certificate, own.pem())?;
    fs::write(&key, pair.serialize_pem())?;
    let ca_file = fleet_sim::server::path_text(&certificate)?.to_owned();
    let more = vec![
        ("PROCFLEET_PROXIED_DOOR__PROXY_CA_FILE", ca_file),
        ("PROCFLEET_PROXIED_DOOR__CERTIFICATE_FORM", "escaped_pem".into()),
    ];
    let (_database, deployment, mut server, proxied) = behind_a_proxy("nginx-tls", more).await?;
    let shown = (certificate.as_path(), key.as_path());
    let mut nginx =
        NginxProcess::start(proxied.listen, proxied.door, &proxied.files, shown).await?;
    agents_report(&deployment).await?;
    strangers_headers_are_dropped(&proxied, &["x-ssl-client-cert"]).await?;
    nginx.check_alive()?;
    server.terminate().await
}

#[tokio::test]
async fn five_servers_start_at_once_where_there_is_nothing() -> Result<()> {
    for engine in Engine::ALL {
        let database = TestDatabase::create_empty(engine).await?;
        let deployment = Deployment {
            directory: Directory::create("five-servers")?,
            database_url: database.url.clone(),
            agent_endpoints: vec!["https://127.0.0.1:1".into()],
            environment: Vec::new(),
            namespace: None,
        };
        let start = async |n: usize| {
            let name = format!("server-{n}");
            deployment.start_preparing(&name, Doors::free()?).await
        };
        let (one, two, three, four, five) =
            tokio::join!(start(0), start(1), start(2), start(3), start(4));
        let mut connection = sqlx::PgConnection::connect(&database.url).await?;
        let authorities: i64 = sqlx::query_scalar("select count(*) from certificate_authorities")
            .fetch_one(&mut connection)
            .await?;
        ensure!(authorities == 2, "{authorities} authorities");
        let migrations: i64 =
            sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
                .fetch_one(&mut connection)
                .await?;
        ensure!(migrations > 0);
        // Each of them lets a host in that the others know.
        let token = deployment.join_token("hosts").await?;
        for server in [one, two, three, four, five] {
            let mut server = server.context("a server that did not start")?;
            let mut token = token.clone();
            token.endpoints = vec![server.doors().agent_endpoint()];
            let now = crate::fleet::now();
            let name = format!("host-{}", server.pid());
            fleet_sim::simulated::SimulatedAgent::enroll(&token, &name, 1, now).await?;
            server.terminate().await?;
        }
    }
    Ok(())
}
