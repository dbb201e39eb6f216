//! When no server answers: a few agents of the fleet tell somebody else, over a channel of their own.
//!
//! The agent's configuration names the channel (`[fallback]`); its address is a credential and lies in a file that only its
//! owner may read. After `after_s` without an answer of any server (a refusal is an answer), the agent may speak once in each
//! window ([`election`]), up to a minute into it so that those elected do not speak at once. Who spoke also says when a server answers
//! again. A message that fails is counted and not repeated: others of the fleet speak, and the next window comes.
//! An agent that was restarted begins to count anew.

mod election;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use shared_model::harmless;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Uplink, lock};
use crate::channel::{Kind, Options};
use crate::{durable, metrics, tls};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// Longest wait into a window.
const JITTER: Duration = Duration::from_mins(1);
/// Longest that a message may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer and longest address, bytes.
const MAX_BYTES: usize = 4096;

/// What speaks for this host.
#[derive(Debug)]
pub struct Fallback {
    config: Options,
    host_id: Uuid,
    host_name: String,
    /// Where the size of the fleet is kept over restarts.
    size_file: PathBuf,
}

/// While no server answers.
struct Outage {
    day: u64,
    /// The next window, and how far into it this agent speaks.
    window: u32,
    jitter: Duration,
    has_spoken: bool,
}

/// Why a message did not arrive. No text holds the address.
#[derive(Debug, thiserror::Error)]
enum SpeakError {
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{} can be read by others: set its mode to 0600", .0.display())]
    Exposed(PathBuf),
    #[error("{} holds no http or https address", .0.display())]
    NoUrl(PathBuf),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the receiver cannot be reached")]
    Http(#[source] reqwest::Error),
    #[error("the receiver answered {0}")]
    Refused(String),
}

impl Fallback {
    /// For a host, which keeps what it learns in `state_dir`.
    pub fn new(config: Options, host_id: Uuid, state_dir: &Path) -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host_name = harmless::unmarked(&name).chars().take(100).collect();
        Self { config, host_id, host_name, size_file: state_dir.join("fleet-size") }
    }

    /// Watches `uplink` until `stop`.
    pub async fn run(&self, uplink: &Uplink, stop: &CancellationToken) {
        let started = Instant::now();
        let mut kept = self.kept_size();
        let mut outage: Option<Outage> = None;
        while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
            kept = self.keep_size(uplink.fleet_size.load(Ordering::Relaxed), kept);
            if self.config.kind == Kind::Off {
                continue;
            }
            let status = lock(&uplink.status).clone();
            let quiet = status.last_answer_at.unwrap_or(started).elapsed();
            let after = Duration::from_secs(self.config.after_s.into());
            if quiet < after || status.consecutive_failures == 0 {
                if outage.take().is_some_and(|outage| outage.has_spoken) {
                    self.say(uplink, None, kept).await;
                }
                continue;
            }
            let outage = outage.get_or_insert_with(|| Outage::begin(after));
            if outage.is_due(quiet.saturating_sub(after)) {
                let hosts = kept.unwrap_or(election::UNKNOWN_FLEET);
                if election::speaks(self.host_id, outage.day, outage.window, hosts) {
                    outage.has_spoken = true;
                    self.say(uplink, Some(quiet), kept).await;
                }
                outage.window += 1;
            }
        }
    }

    fn kept_size(&self) -> Option<u32> {
        fs::read_to_string(&self.size_file).ok()?.trim().parse().ok()
    }

    /// Writes the size where it changed by a tenth or more; returns what counts.
    fn keep_size(&self, told: u32, kept: Option<u32>) -> Option<u32> {
        if told == 0 || kept.is_some_and(|kept| kept.abs_diff(told) <= kept / 10) {
            return kept;
        }
        if let Err(error) = durable::write(&self.size_file, told.to_string().as_bytes()) {
            tracing::debug!(%error, path = %self.size_file.display(), "the size of the fleet is not kept");
        }
        Some(told)
    }

    /// `quiet`: for how long no server answered; none: one answers again.
    async fn say(&self, uplink: &Uplink, quiet: Option<Duration>, hosts: Option<u32>) {
        let body = self.body(&uplink.endpoints, quiet, hosts);
        match self.send(&body).await {
            Ok(()) => tracing::warn!(
                quiet_s = quiet.map(|quiet| quiet.as_secs()),
                "told the fallback channel"
            ),
            Err(error) => {
                metrics::FALLBACK_FAILED.add(1);
                tracing::error!(error = tls::chain(&error), "the fallback channel was not told");
            }
        }
    }

    fn body(&self, endpoints: &[Url], quiet: Option<Duration>, hosts: Option<u32>) -> Value {
        let host = &self.host_name;
        let names: Vec<String> = endpoints
            .iter()
            .take(8)
            .map(|url| harmless::unmarked(url.as_str().trim_end_matches('/')))
            .collect();
        let fleet =
            hosts.map_or("of an unknown number of".to_owned(), |hosts| format!("of {hosts}"));
        let text = match quiet {
            Some(quiet) => format!(
                "Procfleet: no server has answered {host} for {} min. Tried: {}. About 3 {fleet} hosts say this.",
                quiet.as_secs() / 60,
                names.join(", ")
            ),
            None => format!("Procfleet: a server answers {host} again."),
        };
        match self.config.kind {
            Kind::Wecom => json!({ "msgtype": "text", "text": { "content": text } }),
            Kind::Webhook | Kind::Off => json!({
                "version": 1, "kind": if quiet.is_some() { "no_server_answers" } else { "server_answers" },
                "host_id": self.host_id, "host_name": host, "endpoints": names, "hosts": hosts,
                "quiet_s": quiet.map(|quiet| quiet.as_secs()), "text": text,
            }),
        }
    }

    async fn send(&self, body: &Value) -> Result<(), SpeakError> {
        let url = self.address()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::new(roots))
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(http)?;
        let mut response = client.post(url).json(body).send().await.map_err(http)?;
        let status = response.status();
        let answer = tls::read_capped(&mut response, MAX_BYTES).await.map_err(http)?;
        let code =
            serde_json::from_slice::<Value>(&answer).ok().and_then(|json| json["errcode"].as_i64());
        match (self.config.kind, code) {
            _ if !status.is_success() => {
                Err(SpeakError::Refused(format!("HTTP {}", status.as_u16())))
            }
            (Kind::Wecom, Some(0)) => Ok(()),
            (Kind::Wecom, code) => Err(SpeakError::Refused(format!("errcode {code:?}"))),
            _ => Ok(()),
        }
    }

    fn address(&self) -> Result<Url, SpeakError> {
        let file = &self.config.url_file;
        let unreadable = |error| SpeakError::Unreadable(file.clone(), error);
        let meta = fs::metadata(file).map_err(unreadable)?;
        if meta.mode() & 0o077 != 0 {
            return Err(SpeakError::Exposed(file.clone()));
        }
        let text = fs::read_to_string(file).map_err(unreadable)?;
        let url =
            text.trim().parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https"));
        url.filter(|_| text.len() <= MAX_BYTES).ok_or_else(|| SpeakError::NoUrl(file.clone()))
    }
}

/// The address is a credential.
fn http(error: reqwest::Error) -> SpeakError {
    SpeakError::Http(error.without_url())
}

impl Outage {
    fn begin(after: Duration) -> Self {
        #[expect(clippy::disallowed_methods, reason = "which day it is, for the election alone")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let jitter = JITTER.min(after).mul_f64(tls::random_unit());
        Self { day: now.as_secs() / 86_400, window: 0, jitter, has_spoken: false }
    }

    /// Whether the next window has come, `lasted` after the outage was long enough.
    fn is_due(&self, lasted: Duration) -> bool {
        self.window < election::MAX_WINDOWS
            && lasted >= election::opens_after(self.window) + self.jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback(kind: Kind, url_file: PathBuf) -> Fallback {
        let config = Options { kind, url_file, after_s: 600 };
        Fallback::new(config, Uuid::nil(), Path::new("/nonexistent"))
    }

    #[test]
    fn an_address_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = std::env::temp_dir().join(format!("procfleet-fallback-{}", Uuid::new_v4()));
        fs::write(&file, "https://robot.example/send?key=canary\n").unwrap();
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let fallback = fallback(Kind::Wecom, file.clone());
        let error = fallback.address().unwrap_err();
        assert!(matches!(error, SpeakError::Exposed(_)), "{error:?}");
        mode(0o600);
        assert_eq!(fallback.address().unwrap().host_str(), Some("robot.example"));
        fs::write(&file, "canary").unwrap();
        let error = fallback.address().unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn no_name_makes_a_mention_a_link_or_markup() {
        let mut fallback = fallback(Kind::Wecom, PathBuf::new());
        fallback.host_name = harmless::unmarked("<@all> [x](https://evil.example)\n# head");
        let endpoints = ["https://a.example:7443".parse().unwrap()];
        for quiet in [Some(Duration::from_mins(12)), None] {
            let body = fallback.body(&endpoints, quiet, Some(1000));
            let text = body["text"]["content"].as_str().unwrap();
            for bad in ["@", "<", "://", "[", "\n", "#"] {
                assert!(!text.contains(bad), "{bad:?}: {text}");
            }
        }
    }
}
