//! TLS of both doors: 1.2 and 1.3, ring, HTTP/1.1.
//!
//! The agent door's certificate exists in memory only: each replica issues itself one for its names, with the key that
//! came with the authority, and another after two thirds of its life or when the authority changes. It is sent with its authority, whose key agents pin at
//! first contact. Client certificates are optional in the handshake, because a host that enrols has
//! none; one that is shown must be of our client authority, or the handshake fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::authority::issue::SERVER_LIFE;
use crate::authority::{Authorities, Authority};

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

/// TLS of a door, now.
pub type LiveTls = watch::Receiver<Arc<ServerConfig>>;

/// Who must show a certificate.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Hosts, if they have one.
    Hosts,
    /// Proxies, one of these authorities'.
    Proxies(Arc<RootCertStore>),
    /// Nobody: proxies that are known by a secret.
    Anyone,
}

/// TLS of a door with a certificate of our own authority, replaced while it serves: a whole
/// configuration at a time, so that sessions under authorities of before are not resumed.
pub struct AgentTls {
    names: Vec<String>,
    clients: Clients,
    issued_at: OffsetDateTime,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl AgentTls {
    /// Issues the first certificate.
    pub fn new(
        authorities: &Authorities,
        names: Vec<String>,
        clients: Clients,
        now: OffsetDateTime,
    ) -> Result<Self, TlsError> {
        let (current, _) = watch::channel(server_config(authorities, &names, &clients, now)?);
        Ok(Self { names, clients, issued_at: now, current })
    }

    /// What the door works with.
    pub fn subscribe(&self) -> LiveTls {
        self.current.subscribe()
    }

    /// Issues another certificate, and trusts whom `authorities` say, from the next connection on.
    pub fn replace(
        &mut self,
        authorities: &Authorities,
        now: OffsetDateTime,
    ) -> Result<(), TlsError> {
        let config = server_config(authorities, &self.names, &self.clients, now)?;
        self.current.send_replace(config);
        self.issued_at = now;
        Ok(())
    }

    /// Issues another one if two thirds of the current one's life are over.
    pub fn renew(
        &mut self,
        authorities: &Authorities,
        now: OffsetDateTime,
    ) -> Result<(), TlsError> {
        if now >= self.issued_at + SERVER_LIFE * 2 / 3 {
            self.replace(authorities, now)?;
            tracing::info!("a door has a new certificate");
        }
        Ok(())
    }
}

/// Whose certificates proxies show.
pub fn proxies(ca_file: Option<&Path>) -> Result<Clients, TlsError> {
    let Some(path) = ca_file else { return Ok(Clients::Anyone) };
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path).map_err(failed)? {
        roots.add(root.map_err(failed)?)?;
    }
    Ok(Clients::Proxies(Arc::new(roots)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certified(
    authority: &Authority,
    names: &[String],
    now: OffsetDateTime,
) -> Result<CertifiedKey, TlsError> {
    let own;
    let key = if let Some(key) = &authority.door_key {
        key
    } else {
        own = KeyPair::generate().map_err(TlsError::Issue)?;
        &own
    };
    let leaf = authority.issue_server(names, key, SERVER_LIFE, now).map_err(TlsError::Issue)?;
    let mut chain = vec![leaf.der().clone(), authority.certificate_der.clone()];
    for bridge in CertificateDer::pem_slice_iter(authority.bridge_pem.as_bytes()) {
        chain.push(bridge.map_err(|_| TlsError::Issue(rcgen::Error::CouldNotParseCertificate))?);
    }
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(CertifiedKey::from_der(chain, key, &provider())?)
}

fn server_config(
    authorities: &Authorities,
    names: &[String],
    clients: &Clients,
    now: OffsetDateTime,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = match clients {
        Clients::Hosts => Arc::clone(&authorities.trust.client_verifier),
        Clients::Proxies(roots) => {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider()).build()?
        }
        Clients::Anyone => WebPkiClientVerifier::no_client_auth(),
    };
    let leaf = certified(&authorities.server, names, now)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(leaf)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of the operator door, if it is configured.
pub fn operator_door(
    certificate_file: Option<&Path>,
    key_file: Option<&Path>,
) -> Result<Option<LiveTls>, TlsError> {
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
    Ok(Some(watch::channel(Arc::new(config)).1))
}
