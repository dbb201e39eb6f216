//! A PostgreSQL cluster of the test's own, to be stopped and started: what shared test servers are not
//! for. Plain PostgreSQL from the distribution, on the test's loopback address.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use crate::address::free_address;
use crate::child::{Child, Directory};
use crate::eventually::eventually;
use crate::network;

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Attempts to start after a death.
const REVIVALS: u32 = 25;
/// Where Debian keeps the servers.
const DEBIAN_DIRECTORY: &str = "/usr/lib/postgresql";
/// PostgreSQL refuses to run as root; this account comes with Debian's package.
const ACCOUNT: &str = "postgres";

/// A running or stopped cluster.
#[derive(Debug)]
pub struct PostgresCluster {
    /// Connects to the database `postgres` as superuser.
    pub url: String,
    directory: Directory,
    data: PathBuf,
    programs: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl PostgresCluster {
    /// Makes a cluster and starts it.
    pub async fn start_new() -> Result<Self> {
        let directory = Directory::create("postgres")?;
        let data = directory.path().join("data");
        Self::start_in(directory, data, free_address()?).await
    }

    /// Makes one that listens on `address`, which is of [`network::RANGE`].
    pub async fn start_at(address: IpAddr) -> Result<Self> {
        let directory = Directory::create("postgres")?;
        let data = directory.path().join("data");
        let port = TcpListener::bind((address, 0)).and_then(|free| free.local_addr())?;
        Self::start_in(directory, data, port).await
    }

    /// Makes one whose data lies on `volume`, and starts it.
    pub async fn start_on(volume: &Path) -> Result<Self> {
        let directory = Directory::create("postgres")?;
        Self::start_in(directory, volume.join("data"), free_address()?).await
    }

    async fn start_in(directory: Directory, data: PathBuf, address: SocketAddr) -> Result<Self> {
        let mut cluster = Self::new(directory, data, address)?;
        let mut initdb = cluster.command("initdb");
        initdb.arg("-D").arg(&cluster.data);
        initdb.args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--no-sync", "--no-instructions"]);
        Child::run("initdb", cluster.directory.path(), &mut initdb).await?;
        let mut access = fs::File::options().append(true).open(cluster.data.join("pg_hba.conf"))?;
        writeln!(access, "host all all {} trust", network::RANGE)?;
        cluster.start().await?;
        Ok(cluster)
    }

    /// A standby of this one, by streaming replication, running.
    pub async fn standby(&self) -> Result<Self> {
        let directory = Directory::create("standby")?;
        let data = directory.path().join("data");
        let mut standby = Self::new(directory, data, free_address()?)?;
        let mut backup = standby.command("pg_basebackup");
        backup.arg("-D").arg(&standby.data).args(["-U", "postgres", "-R", "--no-sync"]);
        backup.args(["-X", "stream", "--checkpoint=fast", "-h", &self.address.ip().to_string()]);
        backup.args(["-p", &self.address.port().to_string()]);
        Child::run("pg_basebackup", standby.directory.path(), &mut backup).await?;
        standby.start().await?;
        Ok(standby)
    }

    fn new(directory: Directory, data: PathBuf, address: SocketAddr) -> Result<Self> {
        fs::create_dir(&data)?;
        give_to_account(&data)?;
        let url = format!("postgres://postgres@{address}/postgres");
        Ok(Self { url, directory, data, programs: programs()?, address, child: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups"]);
        }
        command.arg("--").arg(self.programs.join(program)).current_dir("/");
        command
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data);
        for setting in [
            format!("listen_addresses={}", self.address.ip()),
            format!("port={}", self.address.port()),
            "unix_socket_directories=".into(),
            "shared_buffers=32MB".into(),
        ] {
            command.arg("-c").arg(setting);
        }
        let mut child = Child::spawn("postgres", self.directory.path(), &mut command)?;
        eventually(START_DEADLINE, "PostgreSQL answers", async || {
            child.check_alive()?;
            PgConnection::connect(&self.url).await?.close().await.context("close")
        })
        .await
        .with_context(|| child.log_tail())?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL of the server's first process; the others notice and end.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { bail!("PostgreSQL is not running") };
        child.kill()
    }

    /// Starts it after a death, when the processes that outlived it for a moment are gone too.
    pub async fn revive(&mut self) -> Result<()> {
        let mut seen = None;
        for _ in 0..REVIVALS {
            match self.start().await {
                Ok(()) => return Ok(()),
                Err(error) => seen = Some(error),
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        Err(seen.context("no attempt was made")?)
    }

    /// Whether its first process runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.check_alive().is_ok())
    }

    /// Cuts every connection and stops it (fast shutdown).
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { bail!("PostgreSQL is not running") };
        let status = child.stop(Signal::INT, STOP_DEADLINE).await?;
        if !status.success() {
            bail!("PostgreSQL ended with {status}:\n{}", child.log_tail());
        }
        Ok(())
    }
}

impl Drop for PostgresCluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Killing the postmaster alone would leave its children behind for a moment.
            rustix::process::kill_process_group(child.group(), Signal::QUIT).ok();
            child.reap();
        }
    }
}

/// The newest server installed.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(DEBIAN_DIRECTORY).with_context(|| {
        format!("{DEBIAN_DIRECTORY} does not exist: install postgresql, or run `cargo xtask test`")
    })?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("postgres").exists())
        .max()
        .context("no PostgreSQL server under /usr/lib/postgresql: install postgresql")
}

fn give_to_account(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let ids = accounts
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"))
        .context("no account named postgres: install postgresql")?;
    let mut fields = ids.split(':').skip(1);
    let mut id = || -> Result<u32> { Ok(fields.next().context("a short /etc/passwd")?.parse()?) };
    let (user, group) = (id()?, id()?);
    std::os::unix::fs::chown(path, Some(user), Some(group)).context("chown the data directory")
}
