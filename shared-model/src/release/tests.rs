//! Whose word counts.

use ring::signature::Ed25519KeyPair;

use super::*;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed")
}

fn manifest() -> Manifest {
    Manifest {
        seq: 7,
        version: "1.4.2".to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
        artifacts: vec![Artifact {
            target: "x86_64-linux".to_owned(),
            size: 3,
            sha256: "ab".repeat(32),
        }],
        allow_downgrade_to: vec![6],
        yanked: Vec::new(),
    }
}

/// Root 1 vouches for signing key 2, which signs.
fn release() -> Release {
    let keys = SigningKeys { keys: vec![PublicKey::of(&pair(2))] };
    Release {
        signing_keys: Signed::sign(&keys, &[&pair(1)]),
        manifest: Signed::sign(&manifest(), &[&pair(2)]),
    }
}

#[test]
fn a_release_is_believed_through_a_root_alone() {
    let root = PublicKey::of(&pair(1));
    let other = PublicKey::of(&pair(9));
    assert_eq!(release().verify(&[other, root]), Ok(manifest()));
    assert_eq!(release().verify(&[other]), Err(ReleaseError::Untrusted("signing keys")));
    assert_eq!(release().verify(&[]), Err(ReleaseError::Untrusted("signing keys")));
    // A signing key is no root.
    let signing = PublicKey::of(&pair(2));
    assert_eq!(release().verify(&[signing]), Err(ReleaseError::Untrusted("signing keys")));
}

#[test]
fn a_manifest_that_no_listed_key_signed_is_refused() {
    let root = PublicKey::of(&pair(1));
    let refused = Err(ReleaseError::Untrusted("contents of the manifest"));
    // Signed by the root itself, by a stranger, by nobody; changed after it was signed; a list in its place.
    for signers in [&[1_u8][..], &[9], &[]] {
        let pairs: Vec<_> = signers.iter().map(|seed| pair(*seed)).collect();
        let pairs: Vec<_> = pairs.iter().collect();
        let release = Release { manifest: Signed::sign(&manifest(), &pairs), ..release() };
        assert_eq!(release.verify(&[root]), refused, "{signers:?}");
    }
    let mut changed = release();
    changed.manifest.payload = Signed::sign(&Manifest { seq: 8, ..manifest() }, &[]).payload;
    assert_eq!(changed.verify(&[root]), refused);
    let keys = SigningKeys { keys: vec![] };
    let swapped = Release { manifest: Signed::sign(&keys, &[&pair(2)]), ..release() };
    assert_eq!(swapped.verify(&[root]), refused);
}

#[test]
fn names_that_are_not_safe_in_paths_and_scripts_are_refused_though_signed() {
    let root = PublicKey::of(&pair(1));
    let artifact = |target: &str, sha256: &str| Artifact {
        target: target.to_owned(),
        size: 1,
        sha256: sha256.to_owned(),
    };
    let good = "0f".repeat(32);
    let hostile = [
        Manifest { version: "1; rm -rf /".to_owned(), ..manifest() },
        Manifest { version: "../1".to_owned(), ..manifest() },
        Manifest { version: String::new(), ..manifest() },
        Manifest { artifacts: vec![artifact("a'b", &good)], ..manifest() },
        Manifest { artifacts: vec![artifact("x86_64-linux", "../../etc/shadow")], ..manifest() },
        Manifest { artifacts: vec![artifact("x86_64-linux", &good.to_uppercase())], ..manifest() },
        Manifest { artifacts: vec![artifact("x86_64-linux", &good); 65], ..manifest() },
    ];
    for manifest in hostile {
        let release = Release { manifest: Signed::sign(&manifest, &[&pair(2)]), ..release() };
        assert!(
            matches!(release.verify(&[root]), Err(ReleaseError::Unreadable { .. })),
            "{manifest:?}"
        );
        assert!(release.unverified().is_err(), "{manifest:?}");
    }
}

#[test]
fn a_key_is_32_bytes_of_base64() {
    let key = PublicKey::of(&pair(1));
    assert_eq!(key.to_string().parse(), Ok(key));
    for text in ["", "x", "AAAA", &"A".repeat(100)] {
        assert_eq!(text.parse::<PublicKey>(), Err(ReleaseError::NotAKey));
    }
}
