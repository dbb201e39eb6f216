//! Releases of the agent as their makers make them: signed and published by the server's own commands. Versions are copies of
//! the agent of this build with a few bytes appended: they run alike, and are other files with other numbers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use shared_model::release::{Release, target};

use crate::child::{self, Directory};
use crate::server::path_text;

/// Keys, and where releases are put together.
#[derive(Debug)]
pub struct ReleaseMaker {
    directory: Directory,
    /// The root's public half.
    pub root: String,
}

/// A release that was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its number.
    pub seq: u64,
    /// What its directory on hosts is called.
    pub id: String,
    /// Its binary, in the mirror.
    pub binary: PathBuf,
    /// Its description, in the mirror.
    pub description: PathBuf,
}

impl ReleaseMaker {
    /// With fresh keys and an empty mirror.
    pub fn new() -> Result<Self> {
        let mut maker = Self { directory: Directory::create("releases")?, root: String::new() };
        maker.root = maker.keygen("root")?;
        let signing = maker.keygen("signing")?;
        let [root_key, keys] = [maker.path("root")?, maker.path("keys.json")?];
        Self::release(&[
            "keys",
            "--root-key",
            &root_key,
            "--signing",
            &signing,
            "--output",
            &keys,
        ])?;
        let stripped = maker.agent();
        let agent = child::binary("procfleet-agent")?;
        let status = Command::new("strip").arg("-o").arg(&stripped).arg(agent).status()?;
        if !status.success() {
            bail!("strip ended with {status}: binutils are needed");
        }
        Ok(maker)
    }

    /// What servers mirror.
    pub fn mirror(&self) -> PathBuf {
        self.directory.path().join("mirror")
    }

    /// The agent that every good release is.
    pub fn agent(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    fn path(&self, name: &str) -> Result<String> {
        Ok(path_text(&self.directory.path().join(name))?.to_owned())
    }

    fn keygen(&self, name: &str) -> Result<String> {
        Self::release(&["keygen", &self.path(name)?])
    }

    /// `procfleet-server release …`; what it prints.
    fn release(arguments: &[&str]) -> Result<String> {
        let program = child::binary("procfleet-server")?;
        let output = Command::new(program).arg("release").args(arguments).output()?;
        if !output.status.success() {
            bail!("release {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Publishes the agent under a number.
    pub fn publish(&self, seq: u64) -> Result<Published> {
        let mut binary = fs::read(self.agent())?;
        binary.extend(format!("release {seq}").bytes());
        self.publish_program(seq, &binary)
    }

    /// Publishes a release that passes every test of the installer and, told to run, does `misdeed` (of a shell).
    pub fn publish_bad(&self, seq: u64, misdeed: &str) -> Result<Published> {
        let agent = self.agent();
        let agent = path_text(&agent)?;
        let script = format!(
            "#!/bin/sh\n# release {seq}\nif [ \"$1\" = run ]; then {misdeed}; fi\nexec {agent} \"$@\"\n"
        );
        self.publish_program(seq, script.as_bytes())
    }

    fn publish_program(&self, seq: u64, binary: &[u8]) -> Result<Published> {
        let program = self.directory.path().join(format!("program-{seq}"));
        fs::write(&program, binary)?;
        let [signing, keys] = [self.path("signing")?, self.path("keys.json")?];
        let (number, made) = (seq.to_string(), self.path(&format!("release-{seq}"))?);
        let artifact = format!("{}={}", target(), path_text(&program)?);
        let version = format!("0.1.{seq}");
        Self::release(&[
            "sign",
            "--key",
            &signing,
            "--signing-keys",
            &keys,
            "--version",
            &version,
            "--seq",
            &number,
            "--artifact",
            &artifact,
            "--output",
            &made,
        ])?;
        let mirror = self.mirror();
        Self::release(&["publish", &made, "--to", path_text(&mirror)?, "--root", &self.root])?;
        let description = mirror.join(format!("manifest-{seq}.json"));
        let release: Release = serde_json::from_slice(&fs::read(&description)?)?;
        let manifest = release.unverified()?;
        let sha256 = &manifest.artifact(target()).context("an artifact")?.sha256;
        Ok(Published { seq, id: sha256[..16].to_owned(), binary: mirror.join(sha256), description })
    }
}

/// Puts a published release where the install script would.
pub fn place(published: &Published, base: &Path) -> Result<()> {
    let directory = base.join("releases").join(&published.id);
    fs::create_dir_all(&directory)?;
    let program = directory.join("procfleet-agent");
    fs::copy(&published.binary, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::copy(&published.description, directory.join("release.json"))?;
    for link in ["current", "confirmed"] {
        std::os::unix::fs::symlink(format!("releases/{}", published.id), base.join(link))?;
    }
    Ok(())
}
