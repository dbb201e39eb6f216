//! A real `PgBouncer` in transaction mode, in front of a cluster of the test's own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::address::free_address;
use crate::child::{Child, Directory};
use crate::eventually::eventually;

const START_DEADLINE: Duration = Duration::from_secs(10);
/// Where Debian puts it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A running pooler.
#[derive(Debug)]
pub struct PgBouncerProcess {
    /// Connects to the database `postgres` behind it.
    pub url: String,
    _child: Child,
    // Dropped, and so removed, after the child.
    _directory: Directory,
}

impl PgBouncerProcess {
    /// In front of `database`. `lenient`: it ignores the settings of connections instead of refusing them,
    /// as most guides advise.
    pub async fn start(database: SocketAddr, lenient: bool) -> Result<Self> {
        let (listen, directory) = (free_address()?, Directory::create("pgbouncer")?);
        // It runs as another user, who must be able to read its configuration.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let ignored = if lenient { "extra_float_digits, options, search_path" } else { "" };
        let configuration = format!(
            "[databases]
* = host={} port={} user=postgres
[pgbouncer]
listen_addr = {}
listen_port = {}
auth_type = any
pool_mode = transaction
unix_socket_dir =
ignore_startup_parameters = {ignored}
",
            database.ip(),
            database.port(),
            listen.ip(),
            listen.port()
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, configuration)?;
        anyhow::ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} does not exist: install pgbouncer");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        }
        command.arg("--").arg(PROGRAM).arg(&file);
        let mut child = Child::spawn("pgbouncer", directory.path(), &mut command)?;
        eventually(START_DEADLINE, "pgbouncer listens", async || {
            child.check_alive()?;
            tokio::net::TcpStream::connect(listen).await.context("connect")
        })
        .await
        .with_context(|| child.log_tail())?;
        let url = format!("postgres://postgres@{listen}/postgres");
        Ok(Self { url, _child: child, _directory: directory })
    }
}
