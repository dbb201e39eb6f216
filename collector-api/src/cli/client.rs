//! A client of the operator door, for the commands that ask a running server.
//!
//! The key comes from a file that nobody else can read, or from the environment; never from an argument. It
//! is sent to the address that was named and to no other: redirects are not followed, proxies of the
//! environment are not used, and plain HTTP leaves this machine only when that was asked for. Nothing is
//! sent twice by itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use shared_model::{Problem, ProblemCode};

use crate::error::Chain;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer: longer than a query may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Longest answer read, bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest key file read, bytes.
const MAX_KEY_BYTES: u64 = 4096;

/// Where the operator door is, and how to get in.
#[derive(Debug)]
pub struct Target {
    /// Its address.
    pub url: Url,
    /// A file of mode 0600 with an API key.
    pub key_file: Option<PathBuf>,
    /// PEM: trusted instead of the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// Whether the key may leave this machine without TLS.
    pub plain_http: bool,
}

/// What went wrong between this command and the server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody said who asks.
    #[error(
        "no API key: name a file with --key-file or PROCFLEET_API_KEY_FILE, or set PROCFLEET_API_KEY"
    )]
    NoKey,
    /// The key file cannot be read.
    #[error("cannot read the key file {0}")]
    KeyFile(PathBuf, #[source] io::Error),
    /// Everybody can read it.
    #[error(
        "the key file {0} can be read by others: chmod 600 it, and make a new key if anybody could have"
    )]
    KeyFileOpen(PathBuf),
    /// It holds something else.
    #[error("{0} is no API key: one line that begins with pfk1_")]
    NotAKey(&'static str),
    /// The key would be sent in clear.
    #[error(
        "{0} is not on this machine and speaks no TLS: use https://, or --plain-http to send the key in clear"
    )]
    InClear(Url),
    /// No address of an HTTP server.
    #[error("{0} is no http:// or https:// address")]
    NotHttp(Url),
    /// The authorities cannot be read.
    #[error("cannot read certificates from {0}: {1}")]
    Authorities(PathBuf, String),
    /// TLS or HTTP cannot be set up.
    #[error("cannot set up the client: {0}")]
    Setup(String),
    /// No answer.
    #[error("no answer from {0}: {1}")]
    Unreachable(Url, String),
    /// An answer that no Procfleet server gives.
    #[error("{0} answered {1}, and not as a Procfleet server does: is it the operator door?")]
    NotOurs(Url, StatusCode),
    /// The server refused, or failed.
    #[error("{}", line(.0, *.1))]
    Problem(Box<Problem>, Option<u64>),
}

/// A problem document as one line that says what to do.
fn line(problem: &Problem, retry_after_s: Option<u64>) -> String {
    let told = problem.detail.trim_end_matches('.');
    let mut parts = vec![format!("{told} ({})", problem.code.as_str())];
    let fields = problem.errors.iter().filter(|error| !problem.detail.contains(&error.detail));
    parts.extend(fields.map(|error| format!("{}: {}", error.field, error.detail)));
    match problem.code {
        ProblemCode::Unauthorized => parts.push("give a key that is valid, by --key-file".into()),
        ProblemCode::Forbidden => parts.push("use a key with the role this needs".into()),
        _ => {}
    }
    parts.extend(retry_after_s.map(|seconds| format!("again in {seconds} s")));
    let logged = problem.request_id.as_ref().filter(|_| problem.status >= 500);
    parts.extend(logged.map(|id| format!("request {id} in the server's log")));
    parts.join("; ").replace(char::is_control, " ")
}

impl ClientError {
    /// 3: refused, and will be again; 4: no server, or one that cannot answer now; 1: the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Problem(problem, _) if problem.status < 500 && problem.status != 429 => 3,
            Self::Problem(..) | Self::Unreachable(..) | Self::NotOurs(..) => 4,
            _ => 1,
        }
    }

    /// Whether what was to be changed has changed since it was read.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Problem(problem, _) if problem.code == ProblemCode::PreconditionFailed)
    }
}

/// Asks the operator door. No `Debug`: it holds the key.
pub struct Client {
    http: reqwest::Client,
    url: Url,
    authorization: HeaderValue,
}

/// What it said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Null: nothing but that it is done.
    pub body: Value,
    /// Names the state of what was asked for, quotes included.
    pub etag: Option<String>,
}

impl Client {
    /// With the key from the target's file, else `key` of the environment.
    pub fn new(target: &Target, key: Option<String>) -> Result<Self, ClientError> {
        let url = &target.url;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(ClientError::NotHttp(url.clone()));
        }
        if url.scheme() == "http" && !target.plain_http && !is_here(url) {
            return Err(ClientError::InClear(url.clone()));
        }
        let key = match (&target.key_file, key) {
            (Some(file), _) => checked("the key file", &read_key(file)?)?,
            (None, Some(key)) => checked("PROCFLEET_API_KEY", &key)?,
            (None, None) => return Err(ClientError::NoKey),
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(target.ca_file.as_deref())?)
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("procfleet-server/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Setup(Chain(&error).to_string()))?;
        Ok(Self { http, url: url.clone(), authorization: key })
    }

    /// Reads.
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ClientError> {
        let mut url = self.at(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(self.http.get(url)).await
    }

    /// Changes; `etag`: only if that is still the state.
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, ClientError> {
        let mut request = self.http.request(method, self.at(path)?);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        self.ask(request).await
    }

    fn at(&self, path: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.url.clone();
        url.set_query(None);
        url.path_segments_mut()
            .map_err(|()| ClientError::NotHttp(self.url.clone()))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        Ok(url)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Answer, ClientError> {
        let unreachable = |error: reqwest::Error| {
            ClientError::Unreachable(self.url.clone(), Chain(&error.without_url()).to_string())
        };
        let request = request.header(AUTHORIZATION, self.authorization.clone());
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while let Some(chunk) = chunk(&mut response).await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::NotOurs(self.url.clone(), status));
            }
        }
        self.answer(status, &headers, &bytes)
    }

    fn answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        bytes: &[u8],
    ) -> Result<Answer, ClientError> {
        let not_ours = || ClientError::NotOurs(self.url.clone(), status);
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if !status.is_success() {
            let problem = serde_json::from_slice(bytes).map_err(|_| not_ours())?;
            let retry_after_s = text(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
            return Err(ClientError::Problem(Box::new(problem), retry_after_s));
        }
        let body = match bytes {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes).map_err(|_| not_ours())?,
        };
        Ok(Answer { body, etag: text(ETAG).map(str::to_owned) })
    }
}

async fn chunk(response: &mut Response) -> Result<Option<bytes::Bytes>, reqwest::Error> {
    response.chunk().await
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

fn read_key(path: &Path) -> Result<String, ClientError> {
    let failed = |error| ClientError::KeyFile(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(ClientError::KeyFileOpen(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn checked(what: &'static str, key: &str) -> Result<HeaderValue, ClientError> {
    let key = key.trim();
    if !key.starts_with("pfk1_") || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::NotAKey(what));
    }
    let value = HeaderValue::try_from(format!("Bearer {key}"));
    let mut value = value.map_err(|_| ClientError::NotAKey(what))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        // A machine without authorities of its own can still speak plain HTTP to itself.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            let refused = |why: String| ClientError::Authorities(path.to_owned(), why);
            let all = CertificateDer::pem_file_iter(path).map_err(|e| refused(e.to_string()))?;
            for certificate in all {
                let certificate = certificate.map_err(|error| refused(error.to_string()))?;
                roots.add(certificate).map_err(|error| refused(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refused("there are none in it".into()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Setup(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use shared_model::FieldError;

    use super::*;

    fn target(url: &str) -> Target {
        Target { url: url.parse().unwrap(), key_file: None, ca_file: None, plain_http: false }
    }

    fn refusal(target: &Target, key: Option<&str>) -> String {
        Client::new(target, key.map(str::to_owned)).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_key_stays_on_this_machine_unless_it_is_sealed_or_that_was_asked_for() {
        let key = Some("pfk1_a_b".to_owned());
        for here in [
            "http://127.0.0.1:7080",
            "http://localhost:1/x",
            "http://[::1]:7080",
            "https://pf.example",
        ] {
            assert!(Client::new(&target(here), key.clone()).is_ok(), "{here}");
        }
        for away in ["http://10.0.0.1:7080", "http://localhost.example", "http://pf.example"] {
            assert!(refusal(&target(away), key.as_deref()).contains("--plain-http"), "{away}");
            let asked = Target { plain_http: true, ..target(away) };
            assert!(Client::new(&asked, key.clone()).is_ok(), "{away}");
        }
        assert!(refusal(&target("unix:/run/x"), key.as_deref()).contains("no http://"));
    }

    #[test]
    fn a_key_comes_from_a_file_that_nobody_else_reads_or_from_the_environment() {
        let here = target("http://127.0.0.1:7080");
        assert!(refusal(&here, None).contains("--key-file"));
        assert!(refusal(&here, Some("pfj1_abc")).contains("PROCFLEET_API_KEY is no API key"));
        let path = std::env::temp_dir().join(format!("key-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, "pfk1_a_b\n").unwrap();
        let with_file = Target { key_file: Some(path.clone()), ..here };
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let open = refusal(&with_file, None);
        assert!(open.contains("chmod 600") && !open.contains("pfk1_a"), "{open}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(Client::new(&with_file, None).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(
            refusal(&with_file, Some("pfk1_a_b")).contains("cannot read"),
            "the file was named"
        );
    }

    #[test]
    fn a_problem_is_one_line() {
        let mut problem = Problem::new(ProblemCode::AmbiguousHost, "Several\nhosts.");
        problem.errors.push(FieldError { field: "host".into(), detail: "id-1".into() });
        assert_eq!(line(&problem, None), "Several hosts (ambiguous_host); host: id-1");
        let mut failed = Problem::new(ProblemCode::DatabaseUnavailable, "No database.");
        failed.request_id = Some("r1".into());
        assert_eq!(
            line(&failed, Some(5)),
            "No database (database_unavailable); again in 5 s; request r1 in the server's log"
        );
    }
}
