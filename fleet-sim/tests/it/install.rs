//! The one-line installation, on machines that have what Debian 12, Debian 13 or busybox have and nothing more.

mod machine;
mod truncated;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child::{self, Directory};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::server::{Deployment, Doors, ServerProcess};
use machine::{Machine, differences, done, said, stand_in_for_systemd};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use shared_model::release::{Artifact, Manifest, PublicKey, Release, Signed, SigningKeys, target};
use sqlx::PgConnection;

use crate::fleet::{connect, now};

const AGENT: &str = "/usr/local/bin/procfleet-agent";

/// A server that mirrors the agent of this build.
pub(super) struct Mirror {
    server: ServerProcess,
    deployment: Deployment,
    directory: Directory,
    sha256: String,
    api_key: String,
    _database: TestDatabase,
}

/// What an operator gets.
struct Offer {
    token: String,
    command: String,
}

impl Mirror {
    pub(super) async fn start(name: &str) -> Result<Self> {
        let doors = Doors::free()?;
        let database = TestDatabase::create(Engine::PostgreSql).await?;
        let endpoints = vec![doors.agent_endpoint()];
        let mut deployment = Deployment::create(name, &database.url, endpoints).await?;
        let directory = Directory::create("mirror")?;
        let sha256 = publish(directory.path())?;
        let path = directory.path().display().to_string();
        deployment.environment.push(("PROCFLEET_ARTIFACTS__DIRECTORY", path));
        let server = deployment.start("server", doors).await?;
        let api_key = deployment.create_api_key("admin").await?;
        Ok(Self { server, deployment, directory, sha256, api_key, _database: database })
    }

    async fn offer(&self) -> Result<Offer> {
        let body = json!({ "name": "install" });
        let made = self.server.post("/v1/enrollment-tokens", &self.api_key, &body).await?;
        let made: Value = serde_json::from_str(&made)?;
        let text = |field: &str| made[field].as_str().map(str::to_owned).context(made.to_string());
        Ok(Offer { token: text("paste")?, command: text("install_command")? })
    }

    /// The script, as the first half of the printed command fetches it; none, with what was said: it does not.
    pub(super) async fn script(&self) -> Result<String> {
        fetch(&self.offer().await?.command)?.map_err(anyhow::Error::msg)
    }

    /// Puts script and token on a machine; the token's secret part.
    async fn bring(&self, machine: &Machine) -> Result<String> {
        let Offer { token, command } = self.offer().await?;
        let script = fetch(&command)?.map_err(anyhow::Error::msg)?;
        fs::write(machine.path("root/install.sh"), script)?;
        let file = machine.path("root/token");
        fs::write(&file, &token)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(token)
    }

    fn artifact(&self) -> std::path::PathBuf {
        self.directory.path().join(&self.sha256)
    }

    async fn connect(&self) -> Result<PgConnection> {
        connect(&self.deployment).await
    }
}

/// Signs and mirrors the agent, without what only debuggers read; its SHA-256.
fn publish(directory: &Path) -> Result<String> {
    let stripped = directory.join("agent");
    done(Command::new("strip").arg("-o").arg(&stripped).arg(child::binary("procfleet-agent")?))?;
    let binary = fs::read(&stripped)?;
    let sum = done(Command::new("sha256sum").arg(&stripped))?;
    let sha256 = sum.split(' ').next().context("a digest")?.to_owned();
    fs::rename(&stripped, directory.join(&sha256))?;
    let pair = || {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    };
    let (root, signing) = (pair(), pair());
    let size = binary.len() as u64;
    let manifest = Manifest {
        seq: 1,
        version: env!("CARGO_PKG_VERSION").into(),
        created_at: now(),
        artifacts: vec![Artifact { target: target().into(), size, sha256: sha256.clone() }],
        allow_downgrade_to: Vec::new(),
        yanked: Vec::new(),
    };
    let keys = SigningKeys { keys: vec![PublicKey::of(&signing)] };
    let release = Release {
        signing_keys: Signed::sign(&keys, &[&root]),
        manifest: Signed::sign(&manifest, &[&signing]),
    };
    fs::write(directory.join("manifest.json"), serde_json::to_vec(&release)?)?;
    Ok(sha256)
}

/// Runs the command up to `&&`; the script, or what curl said.
fn fetch(command: &str) -> Result<Result<String, String>> {
    let (fetching, running) = command.split_once(" && ").context("two commands")?;
    ensure!(running == "sudo sh procfleet-install.sh", "{running}");
    let directory = Directory::create("fetch")?;
    let output =
        Command::new("sh").args(["-c", fetching]).current_dir(directory.path()).output()?;
    let script = directory.path().join("procfleet-install.sh");
    if output.status.success() {
        return Ok(Ok(fs::read_to_string(script)?));
    }
    ensure!(!script.exists(), "a script that was not verified was left");
    Ok(Err(said(&output)))
}

async fn hosts(connection: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from hosts").fetch_one(connection).await?)
}

/// From nothing to a host that reports, over a repair, to nothing. `given`: how the agent comes, if it is not downloaded.
async fn whole_life(
    mirror: &Mirror,
    machine: &Machine,
    systemd: bool,
    given: &[&str],
) -> Result<()> {
    let mut connection = mirror.connect().await?;
    let token = mirror.bring(machine).await?;
    if systemd {
        stand_in_for_systemd(machine)?;
    }
    fs::rename(machine.path("root/token"), machine.path("token"))?;
    let before = machine.files()?;

    let told = machine.install_well(&[&["--token-file", "/token"], given].concat())?;
    ensure!(!machine.path("token").exists(), "the token's file is left");
    let mut foreground = None;
    if systemd {
        ensure!(told.contains("the server has this host's reports"), "{told}");
        let unit =
            machine.files()?.contains_key(Path::new("etc/systemd/system/procfleet-agent.service"));
        ensure!(unit, "no unit");
    } else {
        ensure!(told.contains(&format!("{AGENT} run")), "{told}");
        foreground = Some(machine.command(AGENT).arg("run").spawn()?);
        done(machine.command(AGENT).args(["delivered", "--more-than", "0", "--wait", "60s"]))?;
    }
    let samples: i64 =
        sqlx::query_scalar("select count(*) from host_samples").fetch_one(&mut connection).await?;
    ensure!(samples > 0 && hosts(&mut connection).await? == 1, "{samples} samples");
    for (path, (_, content)) in machine.files()? {
        let holds = content.windows(token.len()).any(|part| part == token.as_bytes());
        ensure!(!holds, "{} holds the token", path.display());
    }

    let release = format!("opt/procfleet/agent/releases/{}/procfleet-agent", &mirror.sha256[..16]);
    fs::remove_file(machine.path(&release))?;
    let told = machine.install_well(given)?;
    assert_eq!(told.contains("downloading"), given.is_empty(), "{told}");
    ensure!(machine.path(&release).exists(), "{told}");
    let told = machine.install_well(&[])?;
    ensure!(told.contains("is here already") && !told.contains("downloading"), "{told}");
    assert_eq!(hosts(&mut connection).await?, 1, "a repair is no new host");

    machine.install_well(&["uninstall"])?;
    if let Some(mut agent) = foreground {
        ensure!(agent.wait()?.success(), "the agent was not stopped in peace");
    }
    let goodbye = "select goodbye from heartbeats";
    let goodbye: Option<String> = sqlx::query_scalar(goodbye).fetch_one(&mut connection).await?;
    assert_eq!(goodbye.as_deref(), Some("uninstall"));
    let mut left = differences(&before, &machine.files()?);
    left.retain(|path| path != Path::new("token") && !path.starts_with("run"));
    assert_eq!(left, Vec::<std::path::PathBuf>::new(), "uninstall left or took something");
    machine.install_well(&["uninstall"])?;
    Ok(())
}

#[tokio::test]
async fn debian_12_with_systemd_and_curl() -> Result<()> {
    let mirror = Mirror::start("install-12").await?;
    whole_life(&mirror, &Machine::debian("bookworm", "curl").await?, true, &[]).await
}

#[tokio::test]
async fn debian_13_without_systemd_with_wget() -> Result<()> {
    let mirror = Mirror::start("install-13").await?;
    whole_life(&mirror, &Machine::debian("trixie", "wget").await?, false, &[]).await
}

#[tokio::test]
async fn busybox_and_nothing_else() -> Result<()> {
    let mirror = Mirror::start("install-busybox").await?;
    let machine = Machine::busybox(&child::binary("procfleet-agent")?).await?;
    // Debian's static busybox cannot resolve names without the libraries of its own build, so the agent is brought.
    fs::copy(mirror.artifact(), machine.path("agent"))?;
    whole_life(&mirror, &machine, false, &["--binary", "/agent"]).await
}

#[tokio::test]
async fn what_is_not_the_release_is_not_installed() -> Result<()> {
    let mirror = Mirror::start("install-wrong").await?;
    let machine = Machine::debian("bookworm", "curl").await?;
    mirror.bring(&machine).await?;
    let before = machine.files()?;
    let refused = |words: &str, arguments: &[&str]| -> Result<()> {
        let output = machine.install(arguments)?;
        ensure!(!output.status.success() && said(&output).contains(words), "{}", said(&output));
        let mut changed = differences(&before, &machine.files()?);
        changed.retain(|path| !path.starts_with("run/mount"));
        ensure!(changed.is_empty(), "{words}: {changed:?}");
        Ok(())
    };
    let token = &["--token-file", "/root/token"];

    let whole = fs::read(mirror.artifact())?;
    let mut other = whole.clone();
    *other.last_mut().context("not empty")? ^= 1;
    fs::write(mirror.artifact(), &other)?;
    refused("is not the file of release", token)?;
    fs::write(mirror.artifact(), &whole[..whole.len() / 2])?;
    refused("it was cut off", token)?;
    fs::remove_file(mirror.artifact())?;
    refused("could not be downloaded", token)?;
    fs::write(mirror.artifact(), &whole)?;

    done(machine.command("mount").args(["-t", "tmpfs", "-o", "noexec", "tmpfs", "/opt"]))?;
    refused("noexec", token)?;
    done(machine.command("umount").arg("/opt"))?;
    refused("never an argument", &["--token", "pfj1_x"])?;
    Ok(())
}

#[tokio::test]
async fn who_has_another_key_is_not_asked_for_anything() -> Result<()> {
    let mirror = Mirror::start("install-pin").await?;
    let other = Mirror::start("install-pin-other").await?;
    let command = mirror.offer().await?.command;
    ensure!(fetch(&command)?.is_ok(), "the right pin");
    ensure!(command.contains(" -k --pinnedpubkey 'sha256//"), "{command}");
    let pin = |command: &str| command.split('\'').nth(1).unwrap().to_owned();
    let wrong = command.replace(&pin(&command), &pin(&other.offer().await?.command));
    let told = fetch(&wrong)?.unwrap_err();
    ensure!(told.contains("public key"), "{told}");

    // The pin outlives the server's certificate: another replica, or the same one anew, has the same key.
    let doors = Doors::free()?;
    let second = mirror.deployment.start("second", doors).await?;
    let endpoint = format!("https://{}", mirror.server.doors().agent);
    let elsewhere = command.replace(&endpoint, &format!("https://{}", second.doors().agent));
    ensure!(elsewhere != command && fetch(&elsewhere)?.is_ok(), "{elsewhere}");

    // A script that leads to somebody else: nothing comes of it.
    let machine = Machine::debian("bookworm", "curl").await?;
    mirror.bring(&machine).await?;
    let script = fs::read_to_string(machine.path("root/install.sh"))?;
    let there = format!("https://{}", other.server.doors().agent);
    fs::write(machine.path("root/install.sh"), script.replace(&endpoint, &there))?;
    let before = machine.files()?;
    let output = machine.install(&["--token-file", "/root/token"])?;
    ensure!(!output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("certificate"), "{}", said(&output));
    assert_eq!(differences(&before, &machine.files()?), Vec::<std::path::PathBuf>::new());
    let mut connection = other.connect().await?;
    eventually(Duration::from_secs(1), "nobody enrolled", async || {
        let hosts = hosts(&mut connection).await?;
        ensure!(hosts == 0, "{hosts}");
        Ok(())
    })
    .await
}
