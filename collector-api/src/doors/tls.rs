//! TLS of both doors: 1.2 and 1.3, ring, HTTP/1.1.
//!
//! The agent door's certificate exists in memory only: each replica issues itself one for its names,
//! and another after two thirds of its life. It is sent with its authority, whose key agents pin at
//! first contact. Client certificates are optional in the handshake, because a host that enrols has
//! none; one that is shown must be of our client authority, or the handshake fails.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::authority::issue::SERVER_LIFE;
use crate::authority::{Authorities, Authority};
use crate::error::Chain;

/// How often the age of the certificate is looked at: often, so that a machine that slept renews soon.
const RENEWAL_CHECK: Duration = Duration::from_mins(1);

/// Why a door has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The agent door's certificate cannot be issued; a name may be malformed.
    #[error("no certificate can be issued for agent_door.names")]
    Issue(#[source] rcgen::Error),
    /// rustls refused.
    #[error("the TLS configuration is not acceptable")]
    Tls(#[from] rustls::Error),
    /// The client authority cannot be used.
    #[error("the client authority cannot verify certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// Only one of two files is named.
    #[error(
        "operator_door.tls_certificate_file and operator_door.tls_key_file are needed together"
    )]
    HalfConfigured,
    /// A PEM file cannot be read.
    #[error("{} cannot be read as PEM", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The library's answer.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
}

/// The agent door's certificate, replaced while it serves.
pub struct ServerLeaf {
    current: RwLock<(Arc<CertifiedKey>, OffsetDateTime)>,
    names: Vec<String>,
}

impl fmt::Debug for ServerLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerLeaf").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.0))
    }
}

impl ServerLeaf {
    /// Issues the first certificate.
    pub fn issue(
        authority: &Authority,
        names: Vec<String>,
        now: OffsetDateTime,
    ) -> Result<Self, TlsError> {
        let current = RwLock::new((certified(authority, &names, now)?, now));
        Ok(Self { current, names })
    }

    /// Issues another one if two thirds of the current one's life are over.
    pub fn renew(&self, authority: &Authority, now: OffsetDateTime) -> Result<bool, TlsError> {
        let issued_at = self.current.read().unwrap_or_else(PoisonError::into_inner).1;
        if now < issued_at + SERVER_LIFE * 2 / 3 {
            return Ok(false);
        }
        let next = (certified(authority, &self.names, now)?, now);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(true)
    }

    /// Keeps the certificate young, until `stop`.
    pub async fn keep_young(
        self: Arc<Self>,
        authorities: Arc<Authorities>,
        stop: CancellationToken,
    ) {
        while stop.run_until_cancelled(tokio::time::sleep(RENEWAL_CHECK)).await.is_some() {
            #[expect(clippy::disallowed_methods, reason = "the loop that owns the clock")]
            let now = OffsetDateTime::now_utc();
            match self.renew(&authorities.server, now) {
                Ok(true) => tracing::info!("the agent door has a new certificate"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "cannot renew the agent door's certificate");
                }
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certified(
    authority: &Authority,
    names: &[String],
    now: OffsetDateTime,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = KeyPair::generate().map_err(TlsError::Issue)?;
    let leaf = authority.issue_server(names, &key, now).map_err(TlsError::Issue)?;
    let chain = vec![leaf.der().clone(), authority.certificate_der.clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

/// TLS of the agent door.
pub fn agent_door(
    authorities: &Authorities,
    leaf: Arc<ServerLeaf>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authorities.client.certificate_der.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(leaf);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of the operator door, if it is configured.
pub fn operator_door(
    certificate_file: Option<&Path>,
    key_file: Option<&Path>,
) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let (certificate_file, key_file) = match (certificate_file, key_file) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(TlsError::HalfConfigured),
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(certificate_file))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(failed(key_file))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}
