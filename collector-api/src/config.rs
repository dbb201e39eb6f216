//! Configuration: one TOML file (`--config FILE`), overridden by the environment.
//!
//! Every key can be set as `PROCFLEET_<KEY>`, nested keys joined by two underscores
//! (`PROCFLEET_AGENT_DOOR__LISTEN`), lists separated by commas. Unknown keys in the file are errors
//! that name the key. Of the environment only variables whose first part is a key of ours are read:
//! `PROCFLEET_` is also the prefix of the agent and of the test suite.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `database_url` | none | normally by `PROCFLEET_DATABASE_URL` |
//! | `ca_key_file` | `/var/lib/procfleet-server/ca.key` | seals the authorities' keys; the same on every replica |
//! | `agent_endpoints` | from `agent_door` | written into enrolment tokens |
//! | `drain_delay_ms` | 0 | time between `/readyz` turning 503 and the listeners closing |
//! | `[agent_door] listen`, `names`, `max_connections` | `0.0.0.0:7443`, this host, 4096 | |
//! | `[agent_door] proxy_protocol_from` | nobody | networks of balancers that speak PROXY protocol v2 |
//! | `[proxied_door]` | off | see [`ProxiedDoor`]: for proxies that end TLS |
//! | `[operator_door] listen`, `tls_certificate_file`, `tls_key_file`, `insecure` | `127.0.0.1:7080` | |
//! | `[database] max_connections` | 16 | |
//! | `[certificates] host_life_s` | 30 days | life of hosts' certificates |
//! | `[enrollment]` | see [`Enrollment`] | request rates |
//! | `[alerts] allowed_networks` | none | networks of this machine or its link that messages may go to |
//! | `[alerts] public_url` | none | the web page's address, as in `https://procfleet.example`: messages link there |
//! | `[alerts] ca_file` | none | PEM: further authorities of receivers' certificates (webhooks, mail servers) |
//! | `[alerts] ping_url` | none | a dead man's switch elsewhere, called every minute while alerts work |
//! | `[ingest]` | see [`IngestSettings`] | limits of reports |

pub mod network;
pub mod public_url;
pub mod secret_url;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::join_token::InstallUrl;
use crate::ingest::IngestSettings;
use network::Network;
use public_url::PublicUrl;
use shared_model::release::PublicKey;

/// Prefix of every variable.
const ENV_PREFIX: &str = "PROCFLEET_";
/// What `certificates.host_life_s` may be.
const HOST_LIFE_S: std::ops::RangeInclusive<u32> = 5..=365 * 86_400;

/// What the operator wants. Defaults are usable on one machine, except for the database.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the database is.
    pub database_url: Option<DatabaseUrl>,
    /// 32 random bytes, mode 0600, made by `init`.
    pub ca_key_file: PathBuf,
    /// Agent-door endpoints in order of preference, such as `https://collector.example:7443`.
    pub agent_endpoints: Vec<String>,
    /// Milliseconds.
    pub drain_delay_ms: u64,
    /// The door of the agents.
    pub agent_door: AgentDoor,
    /// The door of agents behind a proxy that ends TLS.
    pub proxied_door: ProxiedDoor,
    /// The door of the operators.
    pub operator_door: OperatorDoor,
    /// Connections to the database.
    pub database: Database,
    /// Hosts' certificates.
    pub certificates: Certificates,
    /// Rates of `POST /v1/enroll`.
    pub enrollment: Enrollment,
    /// Limits of `POST /v1/reports`.
    pub ingest: IngestSettings,
    /// Alerts and their messages.
    pub alerts: Alerts,
    /// What hosts install.
    pub artifacts: Artifacts,
}

/// `[artifacts]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Artifacts {
    /// Where `procfleet-server release publish` put a release of the agent, for hosts to fetch; none: nothing is mirrored.
    pub directory: Option<PathBuf>,
    /// Where hosts reach these routes under a certificate that they trust anyway, such as `https://get.example`; none: at
    /// the first of `agent_endpoints`, by the pin of its key.
    pub public_url: Option<String>,
    /// Public keys of roots that hosts installed from here trust beside those that their agent was built with: of those who
    /// sign their own releases.
    pub trusted_keys: Vec<PublicKey>,
}

/// `[alerts]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// Networks such as `127.0.0.0/8` that channels may send to although they are this machine or its link.
    pub allowed_networks: Vec<Network>,
    /// Where people find the web page: with it messages link to their evidence.
    pub public_url: Option<PublicUrl>,
    /// PEM: authorities beside the system's that receivers of messages may have their certificates from.
    pub ca_file: Option<PathBuf>,
    /// An address elsewhere that hears from this server every minute while alerts work.
    pub ping_url: Option<secret_url::SecretUrl>,
}

/// `[agent_door]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentDoor {
    /// Address and port.
    pub listen: SocketAddr,
    /// DNS names and IP addresses in the server's certificate; what agents connect to.
    pub names: Vec<String>,
    /// Most connections at a time; what comes beyond is closed before TLS and counted.
    pub max_connections: usize,
    /// Of these, most that have not shown a verified client certificate.
    pub max_anonymous_connections: usize,
    /// Age after which a connection ends with its next answer, ± 20 %, seconds: its agent connects again, perhaps
    /// to another replica.
    pub max_connection_age_s: u32,
    /// Networks of balancers that begin every connection with a PROXY protocol version 2 header.
    pub proxy_protocol_from: Vec<Network>,
}

/// `[proxied_door]`: a listener for proxies that end TLS, verify hosts' certificates and forward them in
/// a header. Off unless `listen` is set. It speaks TLS with the certificate of the agent door.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxiedDoor {
    /// Address and port.
    pub listen: Option<SocketAddr>,
    /// Networks of the proxies; others are closed before TLS.
    pub trusted_proxies: Vec<Network>,
    /// PEM: the authority of the client certificate that a proxy shows. This or `secret_file`.
    pub proxy_ca_file: Option<PathBuf>,
    /// What a proxy sends as `procfleet-proxy-secret`, 16 bytes at least, mode 0600. This or
    /// `proxy_ca_file`.
    pub secret_file: Option<PathBuf>,
    /// How the certificate is written.
    pub certificate_form: CertificateForm,
    /// In which header. None: the usual one of the form.
    pub certificate_header: Option<String>,
    /// Most connections at a time.
    pub max_connections: usize,
}

/// How a proxy writes a certificate into a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateForm {
    /// RFC 9440: `:<base64 of DER>:`; `client-cert`.
    Rfc9440,
    /// PEM, percent-encoded: nginx's `$ssl_client_escaped_cert`, AWS's `X-Amzn-Mtls-Clientcert-Leaf`;
    /// `x-ssl-client-cert`.
    EscapedPem,
    /// Envoy's `x-forwarded-client-cert`, set anew by it (`SANITIZE_SET`), with `Cert`.
    Xfcc,
}

impl CertificateForm {
    /// The usual header.
    pub fn header(self) -> &'static str {
        match self {
            Self::Rfc9440 => "client-cert",
            Self::EscapedPem => "x-ssl-client-cert",
            Self::Xfcc => "x-forwarded-client-cert",
        }
    }
}

/// `[operator_door]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorDoor {
    /// Address and port.
    pub listen: SocketAddr,
    /// PEM chain, leaf first. With `tls_key_file`.
    pub tls_certificate_file: Option<PathBuf>,
    /// PEM key of the leaf.
    pub tls_key_file: Option<PathBuf>,
    /// Allows plain HTTP on an address that is not loopback.
    pub insecure: bool,
    /// Most connections at a time.
    pub max_connections: usize,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Connections of this replica.
    pub max_connections: u32,
}

/// `[certificates]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// Life of a host's certificate, s. Hosts renew after two thirds of it; one that was off for
    /// longer recovers by its old key.
    pub host_life_s: u32,
}

/// `[enrollment]`: token buckets in front of `POST /v1/enroll` and of recovery. Requests with the secret
/// of a live token are counted by the token; all others are strangers', counted by their source, an
/// IPv4 /24 or an IPv6 /64, and together. Behind a load balancer in TLS passthrough without the PROXY
/// protocol all strangers are one source.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enrollment {
    /// Enrolments of one machine in an hour, repeated requests aside; 0: any number.
    pub machine_per_hour: u32,
    /// Strangers' requests per second of one source, sustained.
    pub source_per_second: f64,
    /// Strangers' requests of one source at once.
    pub source_burst: f64,
    /// Strangers' requests per second of all sources, sustained.
    pub total_per_second: f64,
    /// Strangers' requests of all sources at once.
    pub total_burst: f64,
    /// Requests per second with one token, sustained.
    pub token_per_second: f64,
    /// Requests with one token at once.
    pub token_burst: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: None,
            ca_key_file: "/var/lib/procfleet-server/ca.key".into(),
            agent_endpoints: Vec::new(),
            drain_delay_ms: 0,
            agent_door: AgentDoor::default(),
            proxied_door: ProxiedDoor::default(),
            operator_door: OperatorDoor::default(),
            database: Database::default(),
            certificates: Certificates::default(),
            enrollment: Enrollment::default(),
            ingest: IngestSettings::default(),
            alerts: Alerts::default(),
            artifacts: Artifacts::default(),
        }
    }
}

impl Default for AgentDoor {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            names: default_names(),
            max_connections: 4096,
            max_anonymous_connections: 512,
            max_connection_age_s: 600,
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for ProxiedDoor {
    fn default() -> Self {
        Self {
            listen: None,
            trusted_proxies: Vec::new(),
            proxy_ca_file: None,
            secret_file: None,
            certificate_form: CertificateForm::Rfc9440,
            certificate_header: None,
            max_connections: 1024,
        }
    }
}

impl Default for OperatorDoor {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7080)),
            tls_certificate_file: None,
            tls_key_file: None,
            insecure: false,
            max_connections: 256,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { max_connections: 16 }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self { host_life_s: 30 * 86_400 }
    }
}

impl Default for Enrollment {
    fn default() -> Self {
        Self {
            machine_per_hour: 3,
            source_per_second: 20.0,
            source_burst: 300.0,
            total_per_second: 100.0,
            total_burst: 1000.0,
            token_per_second: 100.0,
            token_burst: 1000.0,
        }
    }
}

/// What the kernel calls this machine; empty: unknown.
pub fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

fn default_names() -> Vec<String> {
    let host = host_name();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    if !host.is_empty() && host != "localhost" {
        names.insert(0, host);
    }
    names
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or a variable is not acceptable.
    #[error("the configuration is not acceptable")]
    Read(#[source] config::ConfigError),
    /// Nothing says where the database is.
    #[error(
        "no database: set PROCFLEET_DATABASE_URL=postgres://user:password@host/database (or database_url in the configuration file)"
    )]
    NoDatabase,
    /// A life that cannot work.
    #[error("certificates.host_life_s must lie between 5 and 31536000 (a year)")]
    HostLife,
}

impl Config {
    /// Reads `file` (none: defaults) and lays `environment` over it.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let keys = [
            "database_url",
            "ca_key_file",
            "agent_endpoints",
            "drain_delay_ms",
            "agent_door",
            "proxied_door",
            "operator_door",
            "database",
            "certificates",
            "enrollment",
            "ingest",
            "alerts",
            "artifacts",
        ];
        let ours = environment.filter(|(name, _)| {
            name.strip_prefix(ENV_PREFIX).is_some_and(|key| {
                let first = key.split("__").next().unwrap_or_default().to_ascii_lowercase();
                keys.contains(&first.as_str())
            })
        });
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        let environment = config::Environment::with_prefix("PROCFLEET")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("agent_endpoints")
            .with_list_parse_key("agent_door.names")
            .with_list_parse_key("agent_door.proxy_protocol_from")
            .with_list_parse_key("proxied_door.trusted_proxies")
            .with_list_parse_key("alerts.allowed_networks")
            .with_list_parse_key("artifacts.trusted_keys")
            .source(Some(ours.collect()));
        let config: Self = builder
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(ConfigError::Read)?;
        if !HOST_LIFE_S.contains(&config.certificates.host_life_s) {
            return Err(ConfigError::HostLife);
        }
        Ok(config)
    }

    /// Where the database is, or how to say it.
    pub fn database_url(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.database_url.as_ref().ok_or(ConfigError::NoDatabase)
    }

    /// Where hosts fetch the install script; none: nothing is mirrored.
    pub fn install_url(&self) -> Option<InstallUrl> {
        self.artifacts.directory.as_ref()?;
        let is_public = self.artifacts.public_url.is_some();
        let url = self.artifacts.public_url.clone().or_else(|| self.endpoints().into_iter().next());
        Some(InstallUrl { url: url?.trim_end_matches('/').to_owned(), is_public })
    }

    /// What tokens and enrolment answers tell agents to connect to: `agent_endpoints`, else the
    /// first name of the agent door with its port.
    pub fn endpoints(&self) -> Vec<String> {
        if !self.agent_endpoints.is_empty() {
            return self.agent_endpoints.clone();
        }
        let port = self.agent_door.listen.port();
        let name = self.agent_door.names.first().map_or("localhost", String::as_str);
        let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        vec![format!("https://{name}:{port}")]
    }
}

/// A database URL. Its password is shown by [`DatabaseUrl::expose`] only.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// For the driver.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

/// The URL without its password and its parameters.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.split('?').next().unwrap_or_default();
        let Some((scheme, rest)) = shown.split_once("://") else { return f.write_str("***") };
        match rest.rsplit_once('@') {
            // The `?` is part of a password that was not percent-encoded, as it must be.
            None if self.0.contains('@') => write!(f, "{scheme}://***"),
            None => write!(f, "{scheme}://{rest}"),
            Some((user, host)) => match user.split_once(':') {
                None => write!(f, "{scheme}://{user}@{host}"),
                Some((user, _)) => write!(f, "{scheme}://{user}:***@{host}"),
            },
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(None, variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn environment_overrides_defaults() {
        let config = from_environment(&[
            ("PROCFLEET_DATABASE_URL", "postgres://u:hush@db/x?password=hush"),
            ("PROCFLEET_AGENT_DOOR__LISTEN", "127.0.0.1:1"),
            ("PROCFLEET_AGENT_DOOR__NAMES", "a.example,10.0.0.1"),
            ("PROCFLEET_AGENT_DOOR__PROXY_PROTOCOL_FROM", "10.0.0.0/8,::1"),
            ("PROCFLEET_PROXIED_DOOR__CERTIFICATE_FORM", "escaped_pem"),
            ("PROCFLEET_TOKEN", "pfj1_x"),
            ("PROCFLEET_TEST_POSTGRESQL_URL", "x"),
        ])
        .unwrap();
        assert_eq!(config.agent_door.names, ["a.example", "10.0.0.1"]);
        assert_eq!(config.endpoints(), ["https://a.example:1"]);
        assert_eq!(config.agent_door.proxy_protocol_from.len(), 2);
        assert_eq!(config.proxied_door.certificate_form, CertificateForm::EscapedPem);
        let shown = format!("{config:?}");
        assert!(shown.contains("postgres://u:***@db/x"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn the_documented_file_is_the_defaults() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("server.toml");
        let config = Config::load(Some(&file), std::iter::empty()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error =
            from_environment(&[("PROCFLEET_AGENT_DOOR__LISEN", "127.0.0.1:1")]).unwrap_err();
        let ConfigError::Read(source) = error else { panic!("{error}") };
        assert!(source.to_string().contains("lisen"), "{source}");
    }

    #[test]
    fn a_password_with_an_at_sign_is_hidden() {
        let url = DatabaseUrl::from("postgres://u:p@ss@db/x");
        assert_eq!(url.to_string(), "postgres://u:***@db/x");
    }

    #[test]
    fn a_password_with_a_question_mark_is_hidden() {
        let url = DatabaseUrl::from("postgres://u:hush?hush@db/x");
        assert_eq!(url.to_string(), "postgres://***");
    }
}
