//! `/v1/certificate`, against real servers: renewal in two phases, recovery by the old key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use shared_model::certificate::recovery_message;
use shared_model::{EnrollResponse, JoinToken, PROTOCOL_VERSION, RecoverRequest};

use crate::fleet::{Fleet, Server, new_host};

/// A key and what it was given.
pub(crate) struct Identity {
    pub(crate) key: KeyPair,
    pub(crate) given: EnrollResponse,
}

impl Identity {
    pub(crate) async fn enroll(fleet: &Fleet, server: &Server) -> Self {
        Self::enroll_with(fleet, server, &fleet.token(None).await).await
    }

    pub(crate) async fn enroll_with(fleet: &Fleet, server: &Server, token: &JoinToken) -> Self {
        let (key, body) = new_host("h");
        let client = fleet.client(None);
        let (status, answer) = server.enroll(&client, &token.authorization(), &body).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        Self { key, given: serde_json::from_value(answer).unwrap() }
    }

    pub(crate) fn client(&self, fleet: &Fleet) -> Client {
        fleet.client(Some((&self.given.certificate_chain_pem, &self.key)))
    }

    /// What `GET /v1/certificate` says to it.
    async fn in_force(&self, fleet: &Fleet, server: &Server) -> (u16, Value) {
        let request = self.client(fleet).get(server.agent_url("/v1/certificate"));
        answer(request.send().await.unwrap()).await
    }

    async fn renew(&self, fleet: &Fleet, server: &Server, key: &KeyPair) -> (u16, Value) {
        let body = json!({ "version": PROTOCOL_VERSION, "csr_pem": csr(key) });
        let request = self.client(fleet).post(server.agent_url("/v1/certificate")).json(&body);
        answer(request.send().await.unwrap()).await
    }

    fn leaf_pem(&self) -> String {
        const END: &str = "-----END CERTIFICATE-----\n";
        self.given.certificate_chain_pem.split_inclusive(END).next().unwrap().to_owned()
    }

    /// A proof over `nonce` for `key`.
    fn prove(&self, key: &KeyPair, nonce: &str) -> RecoverRequest {
        let (certificate_pem, csr_pem) = (self.leaf_pem(), csr(key));
        let message = recovery_message(&certificate_pem, &csr_pem, nonce);
        let signature = STANDARD.encode(self.key.sign(&message).unwrap());
        let nonce = nonce.to_owned();
        RecoverRequest { version: PROTOCOL_VERSION, certificate_pem, csr_pem, nonce, signature }
    }
}

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or("-"))
}

fn identity(key: KeyPair, answer: (u16, Value)) -> Identity {
    assert_eq!(answer.0, 200, "{}", answer.1);
    Identity { key, given: serde_json::from_value(answer.1).unwrap() }
}

async fn nonce(fleet: &Fleet, server: &Server) -> String {
    let url = server.agent_url("/v1/certificate/nonce");
    let (status, body) = answer(fleet.client(None).get(url).send().await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
    body["nonce"].as_str().unwrap().to_owned()
}

async fn recover(fleet: &Fleet, server: &Server, request: &RecoverRequest) -> (u16, Value) {
    let url = server.agent_url("/v1/certificate/recovery");
    answer(fleet.client(None).post(url).json(request).send().await.unwrap()).await
}

const STATUSES: &str = "select count(*) filter (where status = 'active') * 100
    + count(*) filter (where status = 'pending') * 10
    + count(*) filter (where status = 'superseded') from host_certificates";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_in_force_with_its_first_use() {
    let fleet = Fleet::create("renewal").await;
    let config = fleet.config();
    let (server, other) = (fleet.serve(&config).await, fleet.serve(&config).await);
    let old = Identity::enroll(&fleet, &server).await;
    let key = new_key();
    let first = old.renew(&fleet, &server, &key).await;
    // Through another replica, because the answer was lost.
    let again = old.renew(&fleet, &other, &key).await;
    assert_eq!(first.1["certificate_chain_pem"], again.1["certificate_chain_pem"]);
    let new = identity(key, first);
    assert_eq!(new.given.host_id, old.given.host_id);
    assert_eq!(fleet.count(STATUSES).await, 110);
    assert_eq!(old.in_force(&fleet, &server).await.0, 200, "the old one is good");

    let (status, body) = new.in_force(&fleet, &server).await;
    assert_eq!((status, &body["host_id"]), (200, &json!(old.given.host_id)));
    assert_eq!(fleet.count(STATUSES).await, 101);
    let fresh = fleet.serve(&config).await;
    assert_eq!(old.in_force(&fleet, &fresh).await.0, 200, "for a host that crashed in between");
    fleet
        .execute("update host_certificates set superseded_at = now() - interval '25 hours' where status = 'superseded'")
        .await;
    let fresh = fleet.serve(&config).await;
    let late = old.in_force(&fleet, &fresh).await;
    assert_eq!(code(&late), (403, "certificate_revoked"));

    // A pending one that was never used makes room for another, and is good no more.
    let given_up = identity(new_key(), (200, new.renew(&fleet, &server, &new_key()).await.1));
    let key = new_key();
    let answered = new.renew(&fleet, &server, &key).await;
    let used = identity(key, answered);
    assert_eq!(fleet.count(STATUSES).await, 112);
    assert_ne!(used.given.certificate_chain_pem, given_up.given.certificate_chain_pem);
    // Keys are not used twice, and not by others.
    let refused = new.renew(&fleet, &server, &old.key).await;
    assert_eq!(code(&refused), (409, "key_already_registered"));
    let stranger = Identity::enroll(&fleet, &server).await;
    let refused = stranger.renew(&fleet, &server, &used.key).await;
    assert_eq!(code(&refused), (409, "key_already_registered"));
    let refused = new.renew(&fleet, &server, &new_key()).await;
    assert_eq!(refused.0, 200);
    for _ in 0..20 {
        let answer = stranger.renew(&fleet, &server, &new_key()).await;
        if answer.0 != 200 {
            assert_eq!(code(&answer), (429, "too_many_requests"));
            return;
        }
    }
    panic!("a host may ask as often as it likes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_key_recovers_once_per_nonce_and_never_after_a_revocation() {
    let fleet = Fleet::create("recovery").await;
    let mut config = fleet.config();
    config.certificates.host_life_s = 3600;
    let server = fleet.serve(&config).await;
    let old = Identity::enroll(&fleet, &server).await;
    fleet
        .execute("update host_certificates set not_before = now() - interval '100 d', not_after = now() - interval '70 d'")
        .await;
    let expired = old.in_force(&fleet, &server).await;
    assert_eq!(code(&expired), (403, "certificate_revoked"));

    let key = new_key();
    let nonce_of = nonce(&fleet, &server).await;
    let request = old.prove(&key, &nonce_of);
    let new = identity(key, recover(&fleet, &server, &request).await);
    assert_eq!(new.given.host_id, old.given.host_id, "its history goes on");
    assert_eq!(new.in_force(&fleet, &server).await.0, 200);
    let replayed = recover(&fleet, &server, &request).await;
    assert_eq!(code(&replayed), (409, "nonce_invalid"));
    let forged = old.prove(&new_key(), "AAAA");
    assert_eq!(code(&recover(&fleet, &server, &forged).await), (409, "nonce_invalid"));

    // Each part of what was signed counts; so does the key.
    let fresh = nonce(&fleet, &server).await;
    let other_csr = RecoverRequest { csr_pem: csr(&new_key()), ..old.prove(&new_key(), &fresh) };
    assert_eq!(code(&recover(&fleet, &server, &other_csr).await), (401, "proof_invalid"));
    let thief = Identity { key: new_key(), given: old.given.clone() };
    let stolen = thief.prove(&new_key(), &fresh);
    assert_eq!(code(&recover(&fleet, &server, &stolen).await), (401, "proof_invalid"));
    // A certificate like ours, with a key of its own, is nobody's.
    let (chain, key) = crate::doors::foreign_identity(old.given.host_id);
    let given = EnrollResponse { certificate_chain_pem: chain, ..old.given.clone() };
    let foreign = Identity { key, given }.prove(&new_key(), &fresh);
    assert_eq!(code(&recover(&fleet, &server, &foreign).await), (401, "host_unknown"));

    // A machine restored from an old snapshot shows a certificate that was superseded.
    let superseded = old.prove(&new_key(), &fresh);
    assert_eq!(recover(&fleet, &server, &superseded).await.0, 200);

    let cases = [
        (
            "update host_certificates set not_after = now() - interval '181 d'",
            403,
            "recovery_window_passed",
        ),
        ("update host_certificates set status = 'revoked'", 403, "certificate_revoked"),
        ("update hosts set lifecycle = 'decommissioned'", 410, "host_decommissioned"),
    ];
    for (change, status, expected) in cases {
        fleet.execute(change).await;
        let request = old.prove(&new_key(), &nonce(&fleet, &server).await);
        let refused = recover(&fleet, &server, &request).await;
        assert_eq!(code(&refused), (status, expected));
    }
    assert_eq!(fleet.count("select count(*) from hosts").await, 1);
}
