//! The mirror of a release, as a host without an identity sees it.

use std::fs;
use std::path::Path;

use collector_api::artifacts::MAX_DOWNLOADS;
use collector_api::config::Config;
use fleet_sim::child::Directory;
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared_model::release::{Artifact, Manifest, PublicKey, Release, Signed, SigningKeys, target};

use crate::fleet::{Fleet, Server, now};

/// Publishes `binary` for this machine; its SHA-256.
pub(crate) fn publish(directory: &Path, binary: &[u8]) -> String {
    let sha256 = collector_api::auth::secret::hex(&Sha256::digest(binary));
    let pair = || {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    };
    let (root, signing) = (pair(), pair());
    let artifact =
        Artifact { target: target().into(), size: binary.len() as u64, sha256: sha256.clone() };
    let manifest = Manifest {
        seq: 1,
        version: "0.1.0".into(),
        created_at: now(),
        artifacts: vec![artifact],
        allow_downgrade_to: Vec::new(),
        yanked: Vec::new(),
    };
    let keys = SigningKeys { keys: vec![PublicKey::of(&signing)] };
    let release = Release {
        signing_keys: Signed::sign(&keys, &[&root]),
        manifest: Signed::sign(&manifest, &[&signing]),
    };
    fs::write(directory.join(&sha256), binary).unwrap();
    fs::write(directory.join("manifest.json"), serde_json::to_vec(&release).unwrap()).unwrap();
    sha256
}

/// A server whose mirror is `directory`.
async fn mirror(fleet: &Fleet, directory: &Directory) -> Server {
    let mut config: Config = fleet.config();
    config.artifacts.directory = Some(directory.path().to_owned());
    fleet.serve(&config).await
}

async fn code_of(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let problem: Value = response.json().await.unwrap();
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_an_identity_gets_the_release_and_its_files() {
    let fleet = Fleet::create("artifacts").await;
    let directory = Directory::create("mirror").unwrap();
    let server = mirror(&fleet, &directory).await;
    let client = fleet.client(None);
    let manifest = || client.get(server.agent_url("/v1/artifacts/manifest")).send();
    assert_eq!(
        code_of(manifest().await.unwrap()).await,
        (StatusCode::NOT_FOUND, "not_found".into())
    );

    // More than one piece, and not whole pieces.
    let binary: Vec<u8> = (0..200_003_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let sha256 = publish(directory.path(), &binary);
    let answer = manifest().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let committed = fs::read(directory.path().join("manifest.json")).unwrap();
    assert_eq!(answer.bytes().await.unwrap(), committed);

    let url = server.agent_url(&format!("/v1/artifacts/{sha256}"));
    let answer = client.get(url.clone()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-length"], "200003");
    assert_eq!(answer.headers()["accept-ranges"], "bytes");
    assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(answer.bytes().await.unwrap(), binary);

    let answer = client.get(url.clone()).header(RANGE, "bytes=70000-").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.headers()["content-range"], "bytes 70000-200002/200003");
    assert_eq!(answer.bytes().await.unwrap(), binary[70_000..]);

    let answer = client.get(url.clone()).header(RANGE, "bytes=200003-").send().await.unwrap();
    assert_eq!(answer.headers()["content-range"], "bytes */200003");
    let refused = code_of(answer).await;
    assert_eq!(refused, (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_artifacts_is_given() {
    let fleet = Fleet::create("artifacts-names").await;
    let directory = Directory::create("mirror-names").unwrap();
    let server = mirror(&fleet, &directory).await;
    let client = fleet.client(None);
    let name = "0".repeat(64);
    fs::create_dir(directory.path().join(&name)).unwrap();
    fs::write(directory.path().join("secret"), "hush").unwrap();
    for (path, expected) in [
        ("secret", StatusCode::BAD_REQUEST),
        ("manifest.json", StatusCode::BAD_REQUEST),
        ("..%2fsecret", StatusCode::BAD_REQUEST),
        ("%2e%2e%2f%2e%2e%2fetc%2fpasswd", StatusCode::BAD_REQUEST),
        (&"A".repeat(64), StatusCode::BAD_REQUEST),
        (&name, StatusCode::NOT_FOUND),
        (&"1".repeat(64), StatusCode::NOT_FOUND),
    ] {
        let url = server.agent_url(&format!("/v1/artifacts/{path}"));
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
        assert!(!answer.text().await.unwrap().contains("hush"), "{path}");
    }
    fs::write(directory.path().join("manifest.json"), "{}").unwrap();
    let answer = client.get(server.agent_url("/v1/artifacts/manifest")).send().await.unwrap();
    assert_eq!(code_of(answer).await, (StatusCode::INTERNAL_SERVER_ERROR, "internal".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_too_many_is_told_to_come_back() {
    let fleet = Fleet::create("artifacts-many").await;
    let directory = Directory::create("mirror-many").unwrap();
    let server = mirror(&fleet, &directory).await;
    let client = fleet.client(None);
    let sha256 = publish(directory.path(), b"small");
    // Far more than sockets hold: a reader that reads nothing keeps its place.
    let large = "a".repeat(64);
    fs::File::create(directory.path().join(&large)).unwrap().set_len(64 << 20).unwrap();
    let large = server.agent_url(&format!("/v1/artifacts/{large}"));
    let mut open = Vec::new();
    for _ in 0..MAX_DOWNLOADS {
        let answer = client.get(large.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        open.push(answer);
    }
    let small = server.agent_url(&format!("/v1/artifacts/{sha256}"));
    let refused = client.get(small.clone()).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "15");
    let refused = code_of(refused).await;
    assert_eq!(refused, (StatusCode::TOO_MANY_REQUESTS, "too_many_requests".into()));
    open.clear();
    let fetched =
        fleet_sim::eventually::eventually(crate::fleet::PATIENCE, "a place is free", async || {
            let answer = client.get(small.clone()).send().await?.error_for_status()?;
            anyhow::Ok(answer.bytes().await?)
        });
    assert_eq!(fetched.await.unwrap(), "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_mirror_says_so() {
    let fleet = Fleet::create("artifacts-none").await;
    let server = fleet.serve(&fleet.config()).await;
    let sha256 = "0".repeat(64);
    for path in ["manifest", &sha256] {
        let url = server.agent_url(&format!("/v1/artifacts/{path}"));
        let answer = fleet.client(None).get(url).send().await.unwrap();
        let text = answer.text().await.unwrap();
        assert!(text.contains("release publish"), "{text}");
    }
}
