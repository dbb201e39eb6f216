//! Whole servers inside the test's process, and clients that speak to them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector_api::app::{self, Addresses};
use collector_api::auth::join_token::{self, TokenRequest};
use collector_api::authority::{self, Authorities};
use collector_api::config::Config;
use collector_api::lifecycle::Lifecycle;
use collector_api::metrics;
use collector_api::store::Store;
use collector_api::store::audit::Actor;
use fleet_sim::child::Directory;
use fleet_sim::database::{Engine, TestDatabase};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use shared_model::JoinToken;
use time::OffsetDateTime;

#[expect(clippy::disallowed_methods, reason = "the test is the edge")]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Longest any condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A database with its authorities, for any number of servers.
pub(crate) struct Fleet {
    pub(crate) database: TestDatabase,
    pub(crate) store: Store,
    pub(crate) authorities: Authorities,
    directory: Directory,
}

/// One server.
pub(crate) struct Server {
    pub(crate) addresses: Addresses,
    pub(crate) lifecycle: Lifecycle,
}

impl Fleet {
    pub(crate) async fn create(name: &str) -> Self {
        let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
        let store = Store::connect(&database.url, 4).await.unwrap();
        let directory = Directory::create(name).unwrap();
        let key_file = directory.path().join("ca.key");
        let authorities = authority::init(&store, &key_file, now()).await.unwrap();
        Self { database, store, authorities, directory }
    }

    pub(crate) fn ca_key_file(&self) -> PathBuf {
        self.directory.path().join("ca.key")
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config {
            database_url: Some(self.database.url.as_str().into()),
            ca_key_file: self.ca_key_file(),
            ..Config::default()
        };
        config.agent_door.listen = "127.0.0.1:0".parse().unwrap();
        config.agent_door.names = vec!["127.0.0.1".into()];
        config.operator_door.listen = "127.0.0.1:0".parse().unwrap();
        config.database.max_connections = 8;
        config
    }

    pub(crate) async fn serve(&self, config: &Config) -> Server {
        let lifecycle = Lifecycle::default();
        let addresses = app::start(config, &lifecycle, app::Prepare::default(), metrics::install())
            .await
            .unwrap();
        Server { addresses, lifecycle }
    }

    pub(crate) async fn token(&self, max_uses: Option<u32>) -> JoinToken {
        let ttl = Duration::from_hours(1);
        let request =
            TokenRequest { name: "test".into(), ttl, max_uses, ..TokenRequest::default() };
        let endpoints = vec!["https://127.0.0.1:1".to_owned()];
        join_token::create(&self.store, endpoints, &request, &Actor::cli()).await.unwrap()
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    /// Trusts the server authority; shows `identity` (chain and key, PEM).
    pub(crate) fn tls(&self, identity: Option<(&str, &KeyPair)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authorities.server.certificate_der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let Some((chain, key)) = identity else { return builder.with_no_client_auth() };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    }

    pub(crate) fn client(&self, identity: Option<(&str, &KeyPair)>) -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls(identity))
            .http1_only()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap()
    }
}

impl Server {
    pub(crate) fn agent_url(&self, path: &str) -> Url {
        format!("https://{}{path}", self.addresses.agent).parse().unwrap()
    }

    pub(crate) fn operator_url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.addresses.operator).parse().unwrap()
    }

    /// Enrols; status and body.
    pub(crate) async fn enroll(
        &self,
        client: &reqwest::Client,
        authorization: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let response = client
            .post(self.agent_url("/v1/enroll"))
            .header("authorization", authorization)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = response.status();
        (status, response.json().await.unwrap())
    }
}

/// A key of a host and the body with which it enrols.
pub(crate) fn new_host(name: &str) -> (KeyPair, Value) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::new(vec![]).unwrap().serialize_request(&key).unwrap();
    let body = json!({
        "version": shared_model::PROTOCOL_VERSION,
        "csr_pem": csr.pem().unwrap(),
        "facts": {
            "host_name": name, "kernel_release": "6.1.0", "host_arch": "x86_64",
            "agent_version": "0.1.0",
        },
    });
    (key, body)
}

/// A client of the operator door.
pub(crate) fn plain_client() -> reqwest::Client {
    fleet_sim::simulated::install_crypto();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}
