//! TLS and HTTP as the agent uses them: ring, our roots only, no proxy, no redirect, HTTP/1.1.

mod verifier;

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shared_model::EnrollResponse;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::Identity;
use verifier::Verifier;

/// How long a server may take to accept a connection and finish the handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a whole request may take. A server answers after its transaction, or 503.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// Why certificates or keys are not usable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("cannot read the PEM of the {0}")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// Not usable for TLS.
    #[error("cannot use the {0}")]
    Unusable(&'static str, #[source] rustls::Error),
    /// No roots in the bundle.
    #[error("cannot verify servers with the CA bundle")]
    Roots(#[source] rustls::server::VerifierBuilderError),
    /// The HTTP client.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// The cryptography used everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM bundle.
pub fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(what, error))
}

/// Whether an answer is a usable identity for the key with this `SubjectPublicKeyInfo`: a host
/// would be stuck with one that is not. The error says what is wrong with it.
pub fn check_identity(response: &EnrollResponse, spki: &[u8]) -> Result<(), String> {
    let words = |error: TlsError| chain(&error);
    let leaf = certificates("certificate", &response.certificate_chain_pem).map_err(words)?;
    let leaf = leaf.into_iter().next().ok_or("no certificate")?;
    let parsed = X509Certificate::from_der(&leaf).map_err(|_| "not a certificate")?.1;
    if parsed.public_key().raw != spki {
        return Err("the certificate is for another key".into());
    }
    if response.endpoints.is_empty() {
        return Err("no endpoints".into());
    }
    let roots = certificates("CA bundle", &response.ca_bundle_pem).map_err(words)?;
    client_config(roots, None, None).map_err(words)?;
    Ok(())
}

/// A configuration that trusts `roots` only and shows `identity`. `kept` is what the host knows the
/// time from if its clock is wrong ([`verifier`]): its identity, also where that is not shown.
pub fn client_config(
    roots: Vec<CertificateDer<'static>>,
    identity: Option<&Identity>,
    kept: Option<&Identity>,
) -> Result<ClientConfig, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|error| TlsError::Unusable("CA bundle", error))?;
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(TlsError::Roots)?;
    let own = kept.map(|kept| certificates("certificate", &kept.certificate_chain_pem));
    let issued_at = own.transpose()?.and_then(|own| verifier::not_before(own.first()?));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unusable("TLS versions", error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner, issued_at }));
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("certificate", &identity.certificate_chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key_pem.as_bytes())
        .map_err(|error| TlsError::Pem("private key", error))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| TlsError::Unusable("certificate and its key", error))
}

/// An HTTP client over it, with at most one idle connection.
pub fn http_client(config: ClientConfig) -> Result<reqwest::Client, TlsError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .https_only(true)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("procfleet-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(TlsError::Client)
}

/// Reads a response's body up to `most` bytes; what is longer is cut, and then is no JSON.
pub async fn read_capped(
    response: &mut reqwest::Response,
    most: usize,
) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < most {
        let Some(chunk) = response.chunk().await? else { break };
        body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
    }
    Ok(body)
}

/// Seconds of `Retry-After`. The date form is not used by our server and ignored.
pub fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A number in [0, 1).
pub fn random_unit() -> f64 {
    // Only jitter depends on it: without randomness there is none.
    let bits = getrandom::u64().unwrap_or(0) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit in the mantissa")]
    let numerator = bits as f64;
    #[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
    let denominator = (1_u64 << 53) as f64;
    numerator / denominator
}
