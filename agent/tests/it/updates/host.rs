//! A host with releases: directories, links, keys, and root's programs run as units run them. Versions are copies of
//! the agent with a few bytes appended: they run alike, and are other files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;
use shared_model::Timestamp;
use shared_model::release::{Artifact, Manifest, PublicKey, Release, Signed, SigningKeys, target};

use crate::support::TestDir;

pub(super) fn key_pair() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), hex)
}

/// Who makes releases.
pub(super) struct Maker {
    pub(super) root: Ed25519KeyPair,
    pub(super) signing: Ed25519KeyPair,
    pub(super) agent: Vec<u8>,
}

/// A release and its binary.
pub(super) struct Made {
    pub(super) release: Release,
    pub(super) binary: Vec<u8>,
    /// What its directory is called.
    pub(super) id: String,
}

impl Maker {
    pub(super) fn new() -> Self {
        let directory = TestDir::new();
        let stripped = directory.0.join("agent");
        let strip = Command::new("strip")
            .arg("-o")
            .arg(&stripped)
            .arg(env!("CARGO_BIN_EXE_procfleet-agent"))
            .status();
        assert!(strip.unwrap().success(), "binutils are needed");
        Self { root: key_pair(), signing: key_pair(), agent: fs::read(stripped).unwrap() }
    }

    /// Release `seq`: the agent, and its number behind it.
    pub(super) fn release(&self, seq: u64) -> Made {
        let mut binary = self.agent.clone();
        binary.extend(format!("release {seq}").bytes());
        self.release_of(seq, binary, |_| {})
    }

    /// A program of anything.
    pub(super) fn release_of(
        &self,
        seq: u64,
        binary: Vec<u8>,
        edit: impl FnOnce(&mut Manifest),
    ) -> Made {
        let sha256 = sha256(&binary);
        let id = sha256[..16].to_owned();
        let artifact = Artifact { target: target().into(), size: binary.len() as u64, sha256 };
        let mut manifest = Manifest {
            seq,
            version: format!("1.{seq}.0"),
            created_at: Timestamp::UNIX_EPOCH,
            artifacts: vec![artifact],
            allow_downgrade_to: Vec::new(),
            yanked: Vec::new(),
        };
        edit(&mut manifest);
        let keys = SigningKeys { keys: vec![PublicKey::of(&self.signing)] };
        let release = Release {
            signing_keys: Signed::sign(&keys, &[&self.root]),
            manifest: Signed::sign(&manifest, &[&self.signing]),
        };
        Made { release, binary, id }
    }
}

/// See the module.
pub(super) struct Host {
    directory: TestDir,
}

impl Host {
    /// With a release that was installed and confirmed.
    pub(super) fn with(maker: &Maker, made: &Made) -> Self {
        let host = Self { directory: TestDir::new() };
        let release = host.base().join("releases").join(&made.id);
        for directory in [&release, &host.keys(), &host.drop_box()] {
            fs::create_dir_all(directory).unwrap();
        }
        let program = release.join("procfleet-agent");
        fs::write(&program, &made.binary).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(release.join("release.json"), serde_json::to_vec(&made.release).unwrap())
            .unwrap();
        for link in ["current", "confirmed"] {
            symlink(format!("releases/{}", made.id), host.base().join(link)).unwrap();
        }
        fs::write(host.keys().join("maker.pub"), PublicKey::of(&maker.root).to_string()).unwrap();
        host
    }

    pub(super) fn base(&self) -> PathBuf {
        self.directory.0.join("base")
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.directory.0.join("keys")
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.directory.0.join("state")
    }

    pub(super) fn drop_box(&self) -> PathBuf {
        self.state_dir().join("update")
    }

    /// What the agent leaves for root.
    pub(super) fn ask(&self, made: &Made) {
        fs::write(self.drop_box().join("artifact"), &made.binary).unwrap();
        let request = serde_json::json!({ "release": made.release, "interval_s": 1 });
        fs::write(self.drop_box().join("request.json"), request.to_string()).unwrap();
    }

    pub(super) fn say_working(&self, made: &Made) {
        let working = serde_json::json!({ "id": made.id });
        fs::write(self.drop_box().join("working.json"), working.to_string()).unwrap();
    }

    /// `update …` by the release that proved itself, behind other words.
    pub(super) fn command(&self, before: &[&str], command: &str) -> Command {
        let confirmed = self.base().join("confirmed/procfleet-agent");
        let mut line: Vec<_> = before.iter().map(std::ffi::OsString::from).collect();
        line.push(confirmed.into());
        let mut command_line = Command::new(&line[0]);
        command_line.args(&line[1..]).args(["update", command]).env_clear();
        command_line
            // No service manager is here to be asked.
            .env("PATH", self.directory.0.join("none"))
            .env("PROCFLEET_AGENT_STATE_DIR", self.state_dir())
            .env("PROCFLEET_AGENT_UPDATE__BASE", self.base())
            .env("PROCFLEET_AGENT_UPDATE__TRUSTED_KEYS", self.keys());
        command_line
    }

    pub(super) fn update(&self, command: &str) -> Output {
        let output = self.command(&[], command).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        output
    }

    /// The id behind a link, whose program is what the id says, and runs.
    pub(super) fn linked(&self, link: &str) -> String {
        let target = fs::read_link(self.base().join(link)).unwrap();
        let id = target.file_name().unwrap().to_str().unwrap().to_owned();
        let program = self.base().join(&target).join("procfleet-agent");
        assert_eq!(sha256(&fs::read(&program).unwrap())[..16], id, "{link}");
        let ran = Command::new(&program).arg("--version").output().unwrap();
        assert!(ran.status.success(), "{link}: {ran:?}");
        id
    }

    pub(super) fn links(&self) -> (String, String) {
        (self.linked("current"), self.linked("confirmed"))
    }

    pub(super) fn ledger(&self) -> Value {
        serde_json::from_slice(&fs::read(self.base().join("update-state.json")).unwrap()).unwrap()
    }

    pub(super) fn state(&self) -> String {
        self.ledger()["state"].as_str().unwrap().to_owned()
    }

    pub(super) fn reason(&self) -> String {
        self.ledger()["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The releases that are there.
    pub(super) fn releases(&self) -> Vec<String> {
        let entries = fs::read_dir(self.base().join("releases")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    pub(super) fn is_asked(&self) -> bool {
        self.drop_box().join("request.json").exists()
    }
}
