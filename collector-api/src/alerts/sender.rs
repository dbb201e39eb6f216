//! One attempt: opens the channel's seal, makes the request, judges the answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::client::Certificate;
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::destination::{self, DestinationError};
use super::message::Message;
use super::provider::{Destination, Incoming, Kind, Outgoing, Verdict};
use super::wording::Language;
use super::{alertmanager, email};
use crate::authority::sealing::{SealingError, SealingKey};
use crate::config::Alerts;
use crate::config::network::Network;
use crate::config::public_url::PublicUrl;
use crate::error::Chain;
use crate::store::channels::SealedChannel;

/// Longest a receiver may take: far below the lease.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest a mail server may take for all of a message: it says many words, some of them slowly.
const MAIL_TIMEOUT: Duration = Duration::from_secs(25);
/// Most of an answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Authenticated with the seal of a destination.
const PURPOSE: &str = "channel";

/// Sends. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    key_file: PathBuf,
    allowed: Arc<[Network]>,
    tls: ClientConfig,
    mail_roots: Arc<[Certificate]>,
    page: Option<PublicUrl>,
}

/// Why a destination cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealDestinationError {
    /// See there.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// Never seen.
    #[error("the destination cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// Never seen.
    #[error("TLS to receivers of messages cannot be set up")]
    Tls(#[from] rustls::Error),
    /// Of the configuration.
    #[error("alerts.ca_file {0} cannot be read as certificates in PEM")]
    Authorities(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Sender {
    /// With the key of the authorities, and what the configuration says about messages.
    pub fn new(key_file: PathBuf, alerts: &Alerts) -> Result<Self, SenderError> {
        let mut roots = RootCertStore::empty();
        // A machine without roots can still tell receivers that speak plain HTTP.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut mail_roots = Vec::new();
        if let Some(file) = &alerts.ca_file {
            let unusable = |error| SenderError::Authorities(file.clone(), error);
            for certificate in authorities(file).map_err(unusable)? {
                let mail_root = Certificate::from_der(certificate.to_vec());
                mail_roots.push(mail_root.map_err(|error| unusable(error.into()))?);
                roots.add(certificate).map_err(|error| unusable(error.into()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let allowed = alerts.allowed_networks.clone().into();
        let page = alerts.public_url.clone();
        Ok(Self { key_file, allowed, tls, mail_roots: mail_roots.into(), page })
    }

    /// What links in messages begin with.
    pub fn page(&self) -> Option<PublicUrl> {
        self.page.clone()
    }

    /// Seals a destination for its row.
    pub fn seal(
        &self,
        channel_id: Uuid,
        destination: &Destination,
    ) -> Result<Vec<u8>, SealDestinationError> {
        let plain = serde_json::to_vec(destination).map_err(SealDestinationError::Json)?;
        Ok(SealingKey::read(&self.key_file)?.seal(channel_id, PURPOSE, &plain)?)
    }

    /// Sends `message`; if it is too long, once more at half its length.
    pub async fn send(&self, channel: &SealedChannel, message: &Message) -> Verdict {
        let (kind, destination) = match self.open(channel) {
            Ok(opened) => opened,
            Err(why) => return Verdict::Later(None, why),
        };
        let limit = kind.limit();
        match self.attempt(kind, &destination, message, limit).await {
            Verdict::TooLong(_) => {
                match self.attempt(kind, &destination, message, limit / 2).await {
                    Verdict::TooLong(why) => Verdict::Refused(why),
                    verdict => verdict,
                }
            }
            verdict => verdict,
        }
    }

    /// Tells every peer of a channel of kind `alertmanager`.
    pub async fn tell_peers(&self, channel: &SealedChannel, alerts: &[Value]) -> Verdict {
        match self.open(channel) {
            Ok((_, destination)) => alertmanager::post(self, &destination, alerts).await,
            Err(why) => Verdict::Later(None, why),
        }
    }

    /// Sends a message without anything to tell.
    pub async fn test(&self, channel: &SealedChannel, now: OffsetDateTime) -> Verdict {
        if channel.kind == Kind::Alertmanager.as_str() {
            let alert = alertmanager::test_alert(channel, now);
            return self.tell_peers(channel, &[alert]).await;
        }
        self.send(channel, &Self::test_message(channel, now)).await
    }

    /// Calls an address that is to hear that this server is well. The error holds no word of the address.
    pub async fn ping(&self, url: &str) -> Result<(), String> {
        let url = reqwest::Url::parse(url).map_err(|_| "the address is no URL".to_owned())?;
        let addresses = destination::resolve(&url, &self.allowed)
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let outgoing = Outgoing { url, headers: Vec::new(), body: b"{}".to_vec() };
        match tokio::time::timeout(TIMEOUT, self.exchange(outgoing, &addresses)).await {
            Ok(Ok(answer)) if (200..300).contains(&answer.status) => Ok(()),
            Ok(Ok(answer)) => Err(format!("HTTP {}", answer.status)),
            Ok(Err(error)) => Err(Chain(&error.without_url()).to_string()),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }

    fn open(&self, channel: &SealedChannel) -> Result<(Kind, Destination), String> {
        let kind = Kind::parse(&channel.kind).ok_or("a kind that this server does not know")?;
        let key = SealingKey::read(&self.key_file).map_err(|error| Chain(&error).to_string())?;
        let plain = key
            .open(channel.channel_id, PURPOSE, &channel.sealed)
            .map_err(|error| Chain(&error).to_string())?;
        let destination =
            serde_json::from_slice(&plain).map_err(|_| "the sealed address cannot be read")?;
        Ok((kind, destination))
    }

    async fn attempt(
        &self,
        kind: Kind,
        destination: &Destination,
        message: &Message,
        limit: usize,
    ) -> Verdict {
        if kind == Kind::Email {
            return self.mail(destination, message, limit).await;
        }
        match kind.request(destination, message, limit) {
            Some(outgoing) => self.post(outgoing, |answer| kind.verdict(answer)).await,
            None => Verdict::Refused("the address is no URL".into()),
        }
    }

    async fn mail(&self, destination: &Destination, message: &Message, limit: usize) -> Verdict {
        let route = match email::Route::parse(&destination.url) {
            Ok(route) => route,
            Err(why) => return Verdict::Refused(why),
        };
        let found = destination::resolve_host(&route.host, route.port, &self.allowed).await;
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(error) => return unreachable(&error),
        };
        let password = destination.secret.as_deref();
        let sent = route.send(password, message, limit, (&addresses, &self.mail_roots));
        tokio::time::timeout(MAIL_TIMEOUT, sent).await.unwrap_or_else(|_| too_slow(MAIL_TIMEOUT))
    }

    /// Makes a request, where its address may be sent to, and judges the answer.
    pub async fn post(
        &self,
        outgoing: Outgoing,
        verdict: impl FnOnce(&Incoming) -> Verdict,
    ) -> Verdict {
        let addresses = match destination::resolve(&outgoing.url, &self.allowed).await {
            Ok(addresses) => addresses,
            Err(error) => return unreachable(&error),
        };
        match tokio::time::timeout(TIMEOUT, self.exchange(outgoing, &addresses)).await {
            Ok(Ok(answer)) => verdict(&answer),
            // The address is the credential: no word of it.
            Ok(Err(error)) => Verdict::Later(None, Chain(&error.without_url()).to_string()),
            Err(_) => too_slow(TIMEOUT),
        }
    }

    async fn exchange(
        &self,
        outgoing: Outgoing,
        addresses: &[std::net::SocketAddr],
    ) -> Result<Incoming, reqwest::Error> {
        let host = outgoing.url.host_str().unwrap_or_default().to_owned();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .connect_timeout(TIMEOUT)
            .resolve_to_addrs(&host, addresses)
            .build()?;
        let mut request = client.post(outgoing.url).header("content-type", "application/json");
        for (name, value) in outgoing.headers {
            request = request.header(name, value);
        }
        let mut response = request.body(outgoing.body).send().await?;
        let header = response.headers().get("retry-after");
        let retry_after_s = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut answer =
            Incoming { status: response.status().as_u16(), retry_after_s, body: Vec::new() };
        while let Some(chunk) = response.chunk().await? {
            let room = MAX_ANSWER_BYTES - answer.body.len();
            answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if answer.body.len() == MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok(answer)
    }
}

impl Sender {
    /// A message without anything to tell.
    pub fn test_message(channel: &SealedChannel, now: OffsetDateTime) -> Message {
        Message {
            language: Language::parse(&channel.language),
            items: Vec::new(),
            now,
            page: None,
            busiest: BTreeMap::new(),
        }
    }
}

fn authorities(
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, Box<dyn std::error::Error + Send + Sync>> {
    let pem = std::fs::read(file)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>()?;
    if found.is_empty() { Err("there is none in it".into()) } else { Ok(found) }
}

fn unreachable(error: &DestinationError) -> Verdict {
    match error {
        DestinationError::Unresolved(_) => Verdict::Later(None, Chain(error).to_string()),
        _ => Verdict::Refused(error.to_string()),
    }
}

fn too_slow(timeout: Duration) -> Verdict {
    Verdict::Later(None, format!("no answer within {} s", timeout.as_secs()))
}
