use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair};
use uuid::Uuid;

use super::*;
use crate::testing::{Authority, Reply, Seen, Server};

const SECRET: &str = "the-secret-of-the-token";
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("procfleet-enroll-{}", Uuid::new_v4()))
}

fn token(pin: String, endpoints: &[&str]) -> JoinToken {
    JoinToken {
        version: 1,
        endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
        pins: vec!["00".repeat(32), pin],
        id: Uuid::from_u128(1),
        secret: SECRET.into(),
    }
}

/// Signs as the server does: the CSR's key and nothing else of it.
fn sign(authority: &Authority, seen: &Seen) -> Reply {
    let request: EnrollRequest = serde_json::from_slice(&seen.body).unwrap();
    let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
    let certificate = CertificateParams::default().signed_by(&csr.public_key, &authority.issuer);
    let response = EnrollResponse {
        host_id: Uuid::from_u128(9),
        certificate_chain_pem: certificate.unwrap().pem(),
        ca_bundle_pem: authority.issuer.pem(),
        not_after: NOW,
        renew_after: NOW,
        server_time: NOW,
        endpoints: vec!["https://later:7443".into()],
    };
    let body = serde_json::to_vec(&response).unwrap();
    Reply::Http { status: 201, headers: String::new(), body }
}

async fn run(token: &JoinToken, dir: &Path) -> Result<Enrolled, EnrollError> {
    enroll(token, HostFacts::default(), dir, NOW).await
}

#[tokio::test]
async fn the_right_pin_gets_an_identity_once() {
    let authority = Authority::new();
    let pin = authority.pin();
    let leaf = authority.leaf(|_| ());
    let server = Server::start(leaf, move |seen| sign(&authority, seen)).await;
    let dir = directory();
    // The first endpoint of the token is away.
    let token = token(pin, &["https://127.0.0.1:1", &server.endpoint]);
    let Enrolled::New(identity) = run(&token, &dir).await.unwrap() else { panic!("not new") };
    assert_eq!(identity.host_id, Uuid::from_u128(9));
    assert_eq!(identity.endpoints, ["https://later:7443"]);
    let [seen] = &server.seen()[..] else { panic!("one request") };
    assert!(seen.head.starts_with("post /v1/enroll "));
    assert!(seen.head.contains(&format!("authorization: bearer {}.{SECRET}", token.id)));
    assert!(!String::from_utf8_lossy(&seen.body).contains("PRIVATE"));
    assert!(matches!(run(&token, &dir).await, Ok(Enrolled::Already(_))));
    assert_eq!(server.seen().len(), 1, "no second use of the token");
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_wrong_pin_is_told_nothing() {
    let authority = Authority::new();
    let pin = authority.pin();
    let server = Server::start(authority.leaf(|_| ()), |_| Reply::Close).await;
    let dir = directory();
    let token = token(Authority::new().pin(), &[&server.endpoint]);
    let error = run(&token, &dir).await.unwrap_err();
    assert!(matches!(error, EnrollError::WrongPin { .. }), "{error}");
    assert!(error.to_string().contains(&pin), "says what was presented: {error}");
    assert!(!format!("{error:?}{token:?}").contains(SECRET));
    assert!(server.seen().is_empty());
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_replayed_certificate_without_its_key_is_told_nothing() {
    let authority = Authority::new();
    let (chain, _) = authority.leaf(|_| ());
    let server = Server::start((chain, KeyPair::generate().unwrap()), |_| Reply::Close).await;
    let dir = directory();
    let error = run(&token(authority.pin(), &[&server.endpoint]), &dir).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unverified { .. }), "{error}");
    assert!(server.seen().is_empty());
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_pinned_ca_beside_a_foreign_leaf_is_told_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (mut chain, key) = theirs.leaf(|_| ());
    chain[1] = ours.issuer.der().clone();
    let server = Server::start((chain, key), |_| Reply::Close).await;
    let dir = directory();
    let error = run(&token(ours.pin(), &[&server.endpoint]), &dir).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unverified { .. }), "{error}");
    assert!(server.seen().is_empty());
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let authority = Authority::new();
    for (from, to) in [(2000, 2001), (3000, 3001)] {
        let leaf = authority.leaf(|params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        });
        let server = Server::start(leaf, |_| Reply::Close).await;
        let dir = directory();
        let error = run(&token(authority.pin(), &[&server.endpoint]), &dir).await.unwrap_err();
        assert!(matches!(error, EnrollError::ClockSkew { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&from.to_string()) && text.contains("1970-01-01"), "{text}");
        assert!(server.seen().is_empty());
        fs::remove_dir_all(dir).unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let authority = Authority::new();
    let pin = authority.pin();
    let leaf = authority.leaf(|_| ());
    let times = AtomicU32::new(0);
    let server = Server::start(leaf, move |seen| match times.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Close,
        _ => sign(&authority, seen),
    })
    .await;
    let dir = directory();
    run(&token(pin, &[&server.endpoint]), &dir).await.unwrap();
    let keys: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| {
            let request: EnrollRequest = serde_json::from_slice(&seen.body).unwrap();
            let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
            rcgen::PublicKeyData::subject_public_key_info(&csr.public_key)
        })
        .collect();
    assert!(keys.len() >= 2);
    assert!(keys.iter().all(|key| *key == keys[0]));
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn refusals_have_their_code_and_keep_the_key() {
    let authority = Authority::new();
    for code in [
        ProblemCode::TokenInvalid,
        ProblemCode::TokenExpired,
        ProblemCode::TokenExhausted,
        ProblemCode::TokenRevoked,
        ProblemCode::KeyAlreadyRegistered,
    ] {
        let server = Server::start(authority.leaf(|_| ()), move |_| {
            let body = serde_json::to_vec(&Problem::new(code, "no")).unwrap();
            Reply::Http { status: code.status(), headers: String::new(), body }
        })
        .await;
        let dir = directory();
        let error = run(&token(authority.pin(), &[&server.endpoint]), &dir).await.unwrap_err();
        assert!(
            matches!(error, EnrollError::Refused { code: told, .. } if told == code),
            "{error}"
        );
        assert_eq!(server.seen().len(), 1, "no retry");
        assert!(dir.join("key.pem").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_for_another_key_is_not_stored() {
    let authority = Authority::new();
    let pin = authority.pin();
    let leaf = authority.leaf(|_| ());
    let server = Server::start(leaf, move |seen| {
        let mut request: EnrollRequest = serde_json::from_slice(&seen.body).unwrap();
        let other = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&other).unwrap();
        request.csr_pem = csr.pem().unwrap();
        sign(&authority, &Seen { body: serde_json::to_vec(&request).unwrap(), ..seen.clone() })
    })
    .await;
    let dir = directory();
    let error = run(&token(pin, &[&server.endpoint]), &dir).await.unwrap_err();
    assert!(matches!(error, EnrollError::BadAnswer { .. }), "{error}");
    assert!(!dir.join("identity.json").exists());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_token_file_must_be_private() {
    let dir = directory();
    fs::create_dir(&dir).unwrap();
    let path = dir.join("token");
    fs::write(&path, token("00".repeat(32), &["https://a:7443"]).to_paste() + "\n").unwrap();
    let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o644);
    let error = read_token(Some(&path)).unwrap_err().to_string();
    assert!(error.contains("chmod 0600"), "{error}");
    set_mode(0o600);
    assert_eq!(read_token(Some(&path)).unwrap().secret, SECRET);
    let link = dir.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = read_token(Some(&link)).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    remove_token(&path).unwrap();
    remove_token(&path).unwrap();
    fs::remove_dir_all(dir).unwrap();
}
