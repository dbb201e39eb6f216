//! The two certificate authorities: one signs what servers show, one what agents show.
//!
//! They are apart, with exclusive usages, so that no agent's certificate can ever pass for a server.
//! Both are P-256 and live ten years; the client authority signs leaves only (path length 0); agents pin the server
//! authority's key from their enrolment token. Certificates are in the database in clear, private
//! keys sealed under the key in `ca_key_file`, which every replica has and the database never sees.
//!
//! `init` makes both, once per database, whichever replica is first: the others use the winner's.
//!
//! Either can be replaced while the fleet reports ([`rotation`]): the next one is trusted before it
//! signs, the old one after it signs no more, and every replica reads the change within
//! [`live::RELOAD`].

pub mod issue;
pub mod live;
pub mod rotation;
pub mod sealing;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::secret::hex;
use crate::store::authorities::AuthorityRow;
use crate::store::{Store, StoreError};
use sealing::{SealingError, SealingKey};

/// What an authority's leaves are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Agents' client certificates.
    Client,
    /// Certificates of the agent door.
    Server,
}

impl Purpose {
    /// Both, in the order in which they are stored.
    pub const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// As in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// An authority that can sign.
pub struct Authority {
    /// In the table.
    pub authority_id: Uuid,
    /// PEM, one certificate.
    pub certificate_pem: String,
    /// The same in DER.
    pub certificate_der: CertificateDer<'static>,
    /// Its key certified by the authority before it, that one's by the one before, at most three: what a server shows
    /// beside its own, so that a host that missed the rotation finds the way from what it trusts. It then
    /// fetches what to trust now. Empty before the first rotation, and for the client authority.
    pub bridge_pem: String,
    /// The key of the doors' certificates, the same on every replica for this authority's life, so that it can be pinned by
    /// who knows no authorities ([`door_pin`](Self::door_pin)). None: an authority of before there was one, and the client's.
    pub(crate) door_key: Option<KeyPair>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

/// The authorities that sign, and all that are trusted.
pub struct Authorities {
    /// Signs the agent door's certificates.
    pub server: Authority,
    /// Signs the agents' certificates.
    pub client: Authority,
    /// Whom to trust while authorities take turns.
    pub trust: Trust,
    pub(crate) nonce_key: ring::hmac::Key,
}

/// Every authority that is trusted: those that sign, those that will, those that did.
pub struct Trust {
    /// Server authorities, PEM, for agents.
    pub server_bundle_pem: String,
    /// Client authorities, PEM, for proxies that end TLS.
    pub client_bundle_pem: String,
    /// SHA-256 of the server authorities' keys (`SubjectPublicKeyInfo`), lower-case hex.
    pub server_pins: Vec<String>,
    /// Verifies hosts' certificates: chain, validity, usage. Made once per set, not per request.
    pub client_verifier: Arc<dyn ClientCertVerifier>,
    /// 32 hex digits, of the server bundle and of who signs the agents' certificates: another one means
    /// that agents have something to fetch.
    pub id: String,
}

impl Trust {
    fn of(rows: &[AuthorityRow]) -> Result<Self, AuthorityError> {
        let bundle = |purpose: Purpose| -> String {
            let of_purpose = rows.iter().filter(|row| row.purpose == purpose.as_str());
            of_purpose.map(|row| row.certificate_pem.as_str()).collect()
        };
        let servers = rows.iter().filter(|row| row.purpose == Purpose::Server.as_str());
        let server_pins = servers.map(|row| hex(&row.spki_sha256)).collect();
        let (server_bundle_pem, client_bundle_pem) =
            (bundle(Purpose::Server), bundle(Purpose::Client));
        let unreadable = || AuthorityError::Certificate {
            purpose: Purpose::Client,
            what: "read",
            source: rcgen::Error::CouldNotParseCertificate,
        };
        let mut client_roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(client_bundle_pem.as_bytes()) {
            let added = client_roots.add(root.map_err(|_| unreadable())?);
            added.map_err(|_| unreadable())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client_verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(client_roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|_| unreadable())?;
        let id = trust_id(rows);
        Ok(Self { server_bundle_pem, client_bundle_pem, server_pins, client_verifier, id })
    }
}

/// See [`Trust::id`].
pub(crate) fn trust_id(rows: &[AuthorityRow]) -> String {
    let mut digest = Sha256::new();
    for row in rows {
        let counts = row.purpose == Purpose::Server.as_str() || row.state == "active";
        if counts {
            digest.update(row.authority_id.as_bytes());
        }
    }
    hex(&digest.finalize()[..16])
}

/// Why there are no authorities to work with.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sealing key is missing or wrong.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// Nobody ran `init`.
    #[error("the database has no {} authority: run `procfleet-server init`", .0.as_str())]
    Missing(Purpose),
    /// Certificate or key could not be made, or is damaged.
    #[error("the {} authority's certificate or key cannot be {what}", .purpose.as_str())]
    Certificate {
        /// Which.
        purpose: Purpose,
        /// `made` or `read`.
        what: &'static str,
        /// The library's answer.
        #[source]
        source: rcgen::Error,
    },
}

/// Makes the authorities unless they exist, and checks that this replica can use them.
pub async fn init(
    store: &Store,
    key_file: &Path,
    now: OffsetDateTime,
) -> Result<Authorities, AuthorityError> {
    let exist = !store.authorities().await?.is_empty();
    let (key, made) = if exist {
        (SealingKey::read(key_file)?, false)
    } else {
        SealingKey::read_or_create(key_file)?
    };
    if !exist {
        let rows = Purpose::ALL.map(|purpose| make(purpose, &key, None, now));
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
        store.insert_authorities(&rows).await?;
    }
    let loaded = load_with(store, &key).await;
    if made && matches!(loaded, Err(AuthorityError::Sealing(SealingError::OtherKey { .. }))) {
        // Another replica was first, with its own key: ours seals nothing.
        SealingKey::remove(key_file)?;
    }
    loaded
}

/// Opens the authorities that `init` made.
pub fn open(rows: &[AuthorityRow], key_file: &Path) -> Result<Authorities, AuthorityError> {
    if rows.is_empty() {
        return Err(AuthorityError::Missing(Purpose::Server));
    }
    open_all(rows, &SealingKey::read(key_file)?)
}

async fn load_with(store: &Store, key: &SealingKey) -> Result<Authorities, AuthorityError> {
    open_all(&store.authorities().await?, key)
}

fn open_all(rows: &[AuthorityRow], key: &SealingKey) -> Result<Authorities, AuthorityError> {
    let of = |purpose: Purpose| {
        let row = rows.iter().find(|row| row.purpose == purpose.as_str() && row.state == "active");
        open_one(purpose, row.ok_or(AuthorityError::Missing(purpose))?, key)
    };
    Ok(Authorities {
        server: of(Purpose::Server)?,
        client: of(Purpose::Client)?,
        trust: Trust::of(rows)?,
        nonce_key: key.nonce_key(),
    })
}

fn make(
    purpose: Purpose,
    key: &SealingKey,
    before: Option<&Authority>,
    now: OffsetDateTime,
) -> Result<AuthorityRow, AuthorityError> {
    let failed = |source| AuthorityError::Certificate { purpose, what: "made", source };
    let key_pair = KeyPair::generate().map_err(failed)?;
    let parameters = issue::authority_parameters(purpose, now).map_err(failed)?;
    let certificate = parameters.self_signed(&key_pair).map_err(failed)?;
    let bridge = before.map(|before| before.bridge_to(parameters.clone(), &key_pair));
    let authority_id = Uuid::now_v7();
    let mut keys = key_pair.serialize_der();
    if purpose == Purpose::Server {
        keys.extend(KeyPair::generate().map_err(failed)?.serialize_der());
    }
    Ok(AuthorityRow {
        authority_id,
        purpose: purpose.as_str().into(),
        state: "active".into(),
        certificate_pem: certificate.pem(),
        bridge_pem: bridge.transpose().map_err(failed)?.unwrap_or_default(),
        spki_sha256: Sha256::digest(key_pair.subject_public_key_info()).to_vec(),
        sealed_private_key: key.seal(authority_id, purpose.as_str(), &keys)?,
        sealing_key_id: key.id().to_owned(),
        not_after: parameters.not_after,
        state_changed_at: now,
    })
}

fn open_one(
    purpose: Purpose,
    row: &AuthorityRow,
    key: &SealingKey,
) -> Result<Authority, AuthorityError> {
    let failed = |source| AuthorityError::Certificate { purpose, what: "read", source };
    if row.sealing_key_id != key.id() {
        return Err(SealingError::OtherKey { wanted: row.sealing_key_id.clone() }.into());
    }
    let der = key.open(row.authority_id, purpose.as_str(), &row.sealed_private_key)?;
    let read = |der: &[u8]| {
        let pkcs8 = PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(failed)
    };
    let (own, door) = der.split_at(first_key(&der).unwrap_or(der.len()));
    let key_pair = read(own)?;
    let door_key = (!door.is_empty()).then(|| read(door)).transpose()?;
    let certificate_der = CertificateDer::from_pem_slice(row.certificate_pem.as_bytes())
        .map_err(|_| failed(rcgen::Error::CouldNotParseCertificate))?;
    let issuer = Issuer::from_ca_cert_der(&certificate_der, key_pair).map_err(failed)?;
    Ok(Authority {
        authority_id: row.authority_id,
        certificate_pem: row.certificate_pem.clone(),
        certificate_der,
        bridge_pem: row.bridge_pem.clone(),
        door_key,
        issuer,
    })
}

/// Bytes of the first of two keys in a row: a PKCS #8 key is one DER sequence, which says how long it is. None: it
/// does not say so within the bytes there are.
fn first_key(der: &[u8]) -> Option<usize> {
    let length = match *der.get(..3)? {
        [0x30, length, _] if length < 0x80 => 2 + usize::from(length),
        [0x30, 0x81, length] => 3 + usize::from(length),
        _ => return None,
    };
    (length <= der.len()).then_some(length)
}

impl Authority {
    /// What `curl --pinnedpubkey` takes after `sha256//`: the SHA-256 of the door key's `SubjectPublicKeyInfo`, base64.
    pub fn door_pin(&self) -> Option<String> {
        let key = self.door_key.as_ref()?;
        Some(STANDARD.encode(Sha256::digest(key.subject_public_key_info())))
    }
}
