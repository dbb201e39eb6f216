//! One attempt: opens the channel's seal, makes the request, judges the answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use uuid::Uuid;

use super::destination;
use super::message::Message;
use super::provider::{Destination, Incoming, Kind, Outgoing, Verdict};
use super::wording::Language;
use crate::authority::sealing::{SealingError, SealingKey};
use crate::config::network::Network;
use crate::error::Chain;
use crate::store::channels::SealedChannel;

/// Longest a receiver may take: far below the lease.
const TIMEOUT: Duration = Duration::from_secs(10);
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

impl Sender {
    /// With the key of the authorities, and the networks that are allowed beside public and private ones.
    pub fn new(key_file: PathBuf, allowed: &[Network]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // A machine without roots can still tell receivers that speak plain HTTP.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { key_file, allowed: allowed.into(), tls })
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
        let Some(outgoing) = kind.request(destination, message, limit) else {
            return Verdict::Refused("the address is no URL".into());
        };
        let addresses = match destination::resolve(&outgoing.url, &self.allowed).await {
            Ok(addresses) => addresses,
            Err(error @ destination::DestinationError::Unresolved(_)) => {
                return Verdict::Later(None, Chain(&error).to_string());
            }
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let answered = tokio::time::timeout(TIMEOUT, self.exchange(outgoing, &addresses)).await;
        match answered {
            Ok(Ok(answer)) => kind.verdict(&answer),
            // The address is the credential: no word of it.
            Ok(Err(error)) => Verdict::Later(None, Chain(&error.without_url()).to_string()),
            Err(_) => Verdict::Later(None, format!("no answer within {} s", TIMEOUT.as_secs())),
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
    pub fn test_message(channel: &SealedChannel, now: time::OffsetDateTime) -> Message {
        Message { language: Language::parse(&channel.language), items: Vec::new(), now }
    }
}
