//! First contact: who answers, before anything is told.

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use shared_model::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::EnrollError;
use crate::tls;

/// Most certificates looked at.
const MAX_PRESENTED: usize = 10;

/// Notes what is presented and refuses it: no connection ever comes out of it.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<CertificateDer<'static>>>);

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut presented = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        presented.push(end_entity.clone().into_owned());
        presented.extend(
            intermediates.iter().take(MAX_PRESENTED).map(|other| other.clone().into_owned()),
        );
        Err(refused())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

fn refused() -> rustls::Error {
    rustls::Error::General("only looking".into())
}

/// The certificates a server presents, leaf first. Unverified: good for nothing but comparing.
pub(super) async fn presented_chain(
    url: &Url,
    endpoint: &str,
) -> Result<Vec<CertificateDer<'static>>, EnrollError> {
    let unreachable =
        |cause: String| EnrollError::Unreachable { endpoint: endpoint.to_owned(), cause };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let name = ServerName::try_from(host.clone())
        .map_err(|_| EnrollError::Endpoint(endpoint.to_owned()))?;
    let recorder = Arc::new(Recorder::default());
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls::TlsError::Unusable("TLS versions", error))?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_no_client_auth();
    let handshake = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let failure = match tokio::time::timeout(tls::CONNECT_TIMEOUT, handshake).await {
        Ok(Ok(_)) => "the handshake went on without a certificate".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let presented = std::mem::take(&mut *recorder.0.lock().unwrap_or_else(PoisonError::into_inner));
    if presented.is_empty() { Err(unreachable(failure)) } else { Ok(presented) }
}

/// DER of a certificate's `SubjectPublicKeyInfo`.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_pki.raw.to_vec())
}

fn key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    use std::fmt::Write as _;
    let mut hash = String::new();
    for byte in Sha256::digest(public_key(certificate)?) {
        write!(hash, "{byte:02x}").ok()?;
    }
    Some(hash)
}

pub(super) fn key_hashes(certificates: &[CertificateDer<'_>]) -> Vec<String> {
    certificates.iter().filter_map(key_hash).collect()
}

/// The presented certificate with a pinned key. The pins are public: no constant time is needed.
pub(super) fn pinned(
    presented: &[CertificateDer<'static>],
    pins: &[String],
) -> Option<CertificateDer<'static>> {
    let is_pinned = |certificate: &&CertificateDer<'_>| {
        key_hash(certificate)
            .is_some_and(|hash| pins.iter().any(|pin| pin.eq_ignore_ascii_case(&hash)))
    };
    presented.iter().find(is_pinned).cloned()
}

/// Why the verified connection failed.
pub(super) fn explain(
    error: &reqwest::Error,
    endpoint: &str,
    presented: &[CertificateDer<'_>],
    now: Timestamp,
) -> EnrollError {
    let endpoint = endpoint.to_owned();
    let cause = tls::chain(error);
    match find_tls_error(error) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => {
            let (not_before, not_after) = presented.first().map(validity).unwrap_or_default();
            EnrollError::ClockSkew { endpoint, not_before, not_after, now: now.to_string() }
        }
        Some(_) => EnrollError::Unverified { endpoint, cause },
        None => EnrollError::Unreachable { endpoint, cause },
    }
}

fn validity(certificate: &CertificateDer<'_>) -> (String, String) {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => {
            let validity = parsed.validity();
            (validity.not_before.to_string(), validity.not_after.to_string())
        }
        Err(_) => ("?".into(), "?".into()),
    }
}

/// The TLS error behind an HTTP error, which may hide it in an `io::Error`.
fn find_tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
