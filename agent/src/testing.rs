//! A TLS server that answers what a test tells it to and remembers what it was sent.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use shared_model::{AgentSample, HostSample, Record, Report, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::identity::Identity;
use crate::spool::Position;
use crate::tls;

pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Lower-case hex of the SHA-256 of its `SubjectPublicKeyInfo`.
    pub(crate) fn pin(&self) -> String {
        let hash = Sha256::digest(self.issuer.key().subject_public_key_info());
        hash.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    }

    /// What host 3 got from it: servers at `endpoints` are its own.
    pub(crate) fn identity(&self, endpoints: Vec<String>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().signed_by(&key, &self.issuer).unwrap();
        Identity {
            host_id: Uuid::from_u128(3),
            endpoints,
            certificate_chain_pem: certificate.pem(),
            ca_bundle_pem: self.issuer.pem(),
            trust_id: None,
            not_after: Timestamp::UNIX_EPOCH,
            renew_after: Timestamp::UNIX_EPOCH,
            private_key_pem: key.serialize_pem(),
        }
    }

    /// A certificate for 127.0.0.1 and its key; `edit` may spoil it.
    pub(crate) fn leaf(
        &self,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, KeyPair) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().clone(), self.issuer.der().clone()], key)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request line and headers, lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) enum Reply {
    Http {
        status: u16,
        headers: String,
        body: Vec<u8>,
    },
    /// Closes the connection without a word, after the request was read.
    Close,
    /// Says nothing, and keeps the connection.
    Silence,
    Garbage,
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(
        (chain, key): (Vec<CertificateDer<'static>>, KeyPair),
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(certified(chain, &key))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, log, answer) =
                    (acceptor.clone(), Arc::clone(&log), Arc::clone(&answer));
                connections.spawn(async move {
                    serve(stream, acceptor, log, &*answer).await.ok();
                });
            }
        });
        Self { endpoint, seen, tasks }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        assert!(!self.tasks.is_empty());
        self.seen.lock().unwrap().clone()
    }
}

/// Does not check that the key fits the certificate: a man in the middle does not either.
#[derive(Debug)]
struct Always(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> Arc<rustls::sign::CertifiedKey> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    Arc::new(rustls::sign::CertifiedKey::new(chain, key))
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: &(impl Fn(&Seen) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let seen = Seen { head, body: buffer[end..end + length].to_vec() };
        buffer.drain(..end + length);
        log.lock().unwrap().push(seen.clone());
        match answer(&seen) {
            Reply::Close => return Ok(()),
            Reply::Silence => return std::future::pending().await,
            Reply::Garbage => {
                stream.write_all(b"\x00\x01 what?\r\n\r\n").await?;
                return stream.shutdown().await;
            }
            Reply::Http { status, headers, body } => {
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
                stream.flush().await?;
            }
        }
    }
}

/// An empty report of host 3.
pub(crate) fn report(position: Position) -> Record {
    Record::Report(Box::new(Report {
        version: shared_model::PROTOCOL_VERSION,
        host_id: Uuid::from_u128(3),
        stream_id: position.stream_id,
        sequence: position.sequence,
        boot_id: Uuid::nil(),
        sampled_at: Timestamp::UNIX_EPOCH,
        clock_offset_ms: None,
        interval_ms: 1000,
        facts: None,
        host: HostSample::default(),
        filesystems: Vec::new(),
        block_devices: Vec::new(),
        network_interfaces: Vec::new(),
        processes: Vec::new(),
        connections: Vec::new(),
        exits: Vec::new(),
        exit_folds: Vec::new(),
        process_definitions: Vec::new(),
        instance_definitions: Vec::new(),
        agent: AgentSample::default(),
    }))
}
