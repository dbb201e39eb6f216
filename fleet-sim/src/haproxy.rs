//! A real load balancer: HAProxy in TCP passthrough, as `docs` recommend it to operators.
//!
//! TLS ends in the servers; HAProxy asks each server's `/readyz` on the operator door and takes it out
//! within a few hundred milliseconds.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::child::{self, Child, Directory};
use crate::eventually::eventually;
use crate::server::Doors;

pub(crate) const START_DEADLINE: Duration = Duration::from_secs(10);

/// What both kinds begin with. Idle agents keep their connections for 90 s.
const COMMON: &str = "global
    maxconn 4000
    log stdout format raw local0
defaults
    mode tcp
    log global
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    retries 3
    option redispatch
";

/// Files of a proxy that ends TLS, all PEM.
#[derive(Debug)]
pub struct Terminated {
    /// What agents are shown: leaf and authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose certificates hosts show.
    pub client_ca: PathBuf,
    /// Whose certificate the server shows.
    pub server_ca: PathBuf,
}

/// A running load balancer.
#[derive(Debug)]
pub struct HaproxyProcess {
    child: Child,
    // Dropped, and so removed, after the child.
    _directory: Directory,
}

impl HaproxyProcess {
    /// Listens on `listen`, spreads connections over `servers` in turn.
    pub async fn start(listen: SocketAddr, servers: &[Doors]) -> Result<Self> {
        let mut haproxy = Self::start_in(None, listen, servers)?;
        haproxy.wait_until_it_listens(listen).await?;
        Ok(haproxy)
    }

    /// Runs a configuration of somebody else's, which listens on `listen`.
    pub async fn start_from(configuration: &str, listen: SocketAddr) -> Result<Self> {
        let mut haproxy = Self::spawn(None, configuration)?;
        haproxy.wait_until_it_listens(listen).await?;
        Ok(haproxy)
    }

    /// The same as [`Self::start`], and every connection begins with who made it (PROXY protocol version 2).
    pub async fn start_with_proxy_protocol(listen: SocketAddr, servers: &[Doors]) -> Result<Self> {
        let text = configuration(listen, servers)?
            .replace("default-server inter", "default-server send-proxy-v2 inter");
        let mut haproxy = Self::spawn(None, &text)?;
        haproxy.wait_until_it_listens(listen).await?;
        Ok(haproxy)
    }

    /// Ends TLS, verifies hosts' certificates, and forwards them to the proxied door by RFC 9440.
    pub async fn start_terminating(
        listen: SocketAddr,
        door: SocketAddr,
        files: &Terminated,
        secret: &str,
    ) -> Result<Self> {
        let both = [fs::read(&files.certificate)?, fs::read(&files.key)?].concat();
        let pem = files.key.with_extension("both.pem");
        fs::write(&pem, both)?;
        let (pem, client_ca, server_ca) =
            (pem.display(), files.client_ca.display(), files.server_ca.display());
        let text = format!(
            "{COMMON}frontend agents
    mode http
    bind {listen} ssl crt {pem} ca-file {client_ca} verify optional alpn http/1.1
    option forwardfor
    http-request del-header client-cert
    http-request set-header client-cert :%[ssl_c_der,base64]: if {{ ssl_c_used }}
    http-request set-header procfleet-proxy-secret \"{secret}\"
    default_backend servers
backend servers
    mode http
    server s0 {door} ssl verify required ca-file {server_ca}
"
        );
        let mut haproxy = Self::spawn(None, &text)?;
        haproxy.wait_until_it_listens(listen).await?;
        Ok(haproxy)
    }

    /// The same in a network namespace, if one is named; does not wait.
    pub fn start_in(
        namespace: Option<&str>,
        listen: SocketAddr,
        servers: &[Doors],
    ) -> Result<Self> {
        Self::spawn(namespace, &configuration(listen, servers)?)
    }

    /// Listens on `listen`; goes to the first of two databases, to the second while the first is down.
    pub async fn start_for_databases(
        listen: SocketAddr,
        [first, second]: [SocketAddr; 2],
    ) -> Result<Self> {
        let text = format!(
            "{COMMON}listen databases
    bind {listen}
    option pgsql-check user postgres
    default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions
    server first {first} check
    server second {second} check backup\n"
        );
        let mut haproxy = Self::spawn(None, &text)?;
        haproxy.wait_until_it_listens(listen).await?;
        Ok(haproxy)
    }

    fn spawn(namespace: Option<&str>, configuration: &str) -> Result<Self> {
        let directory = Directory::create("haproxy")?;
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration)?;
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists())
            .context("haproxy is not installed: install it, or run `cargo xtask test`")?;
        // -db: in the foreground, without a master, so that our child is the load balancer.
        let mut command = child::command_in(namespace, program);
        command.arg("-db").arg("-f").arg(&file);
        let child = Child::spawn("haproxy", directory.path(), &mut command)?;
        Ok(Self { child, _directory: directory })
    }

    /// Waits until it takes connections.
    pub async fn wait_until_it_listens(&mut self, listen: SocketAddr) -> Result<()> {
        eventually(START_DEADLINE, "haproxy listens", async || {
            self.child.check_alive()?;
            tokio::net::TcpStream::connect(listen).await.context("connect")
        })
        .await
        .with_context(|| self.child.log_tail())?;
        Ok(())
    }

    /// SIGKILL, and every connection through it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()
    }

    /// Fails if it ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.child.check_alive()
    }
}

/// The balancer's configuration: TCP passthrough, health by the operator doors.
pub fn configuration(listen: SocketAddr, servers: &[Doors]) -> Result<String> {
    if servers.is_empty() {
        bail!("a load balancer needs servers");
    }
    let mut text = format!(
        "{COMMON}listen agents
    bind {listen}
    balance roundrobin
    option httpchk
    http-check send meth GET uri /readyz
    default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions\n"
    );
    for (index, doors) in servers.iter().enumerate() {
        writeln!(
            text,
            "    server s{index} {} check addr {} port {}",
            doors.agent,
            doors.operator.ip(),
            doors.operator.port()
        )?;
    }
    Ok(text)
}
