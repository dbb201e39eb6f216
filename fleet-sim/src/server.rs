//! Real `procfleet-server` processes.
//!
//! A [`Deployment`] is what replicas share: the database, the sealing key, the endpoints that tokens
//! advertise. A [`ServerProcess`] is one replica; killed and started again, it keeps its addresses.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::header::CONTENT_TYPE;
use rustix::process::Signal;
use serde_json::Value;
use shared_model::JoinToken;

use crate::address::{free_address, own_address};
use crate::child::{self, Child, Directory};
use crate::eventually::eventually;

/// How long a server may take from its start to `/readyz`.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a server may take to drain and end.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// What all replicas share.
#[derive(Debug)]
pub struct Deployment {
    /// Logs, keys and tokens.
    pub directory: Directory,
    /// For assertions, and handed to the servers by environment.
    pub database_url: String,
    /// What tokens tell agents to connect to.
    pub agent_endpoints: Vec<String>,
    /// More of the servers' configuration, as variables; for those started from now on.
    pub environment: Vec<(&'static str, String)>,
    /// Network namespace of the servers started from now on; none: the test's.
    pub namespace: Option<String>,
}

/// The addresses of a replica.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// TLS with client certificates.
    pub agent: SocketAddr,
    /// Plain HTTP.
    pub operator: SocketAddr,
}

/// One replica.
#[derive(Debug)]
pub struct ServerProcess {
    name: String,
    doors: Doors,
    child: Child,
}

impl Doors {
    /// Two free addresses.
    pub fn free() -> Result<Self> {
        Ok(Self { agent: free_address()?, operator: free_address()? })
    }

    /// As agents write it.
    pub fn agent_endpoint(&self) -> String {
        format!("https://{}", self.agent)
    }
}

impl Deployment {
    /// Migrates the database and makes the authorities, by the program's own commands.
    pub async fn create(
        name: &str,
        database_url: &str,
        agent_endpoints: Vec<String>,
    ) -> Result<Self> {
        let deployment = Self {
            directory: Directory::create(name)?,
            database_url: database_url.into(),
            agent_endpoints,
            environment: Vec::new(),
            namespace: None,
        };
        deployment.run("migrate", &["migrate"]).await?;
        deployment.run("init", &["init"]).await?;
        Ok(deployment)
    }

    /// Runs a one-shot command of the server's program.
    pub async fn run(&self, name: &str, arguments: &[&str]) -> Result<()> {
        Child::run(name, self.directory.path(), self.command()?.args(arguments)).await
    }

    /// The server's program with this deployment's configuration, secrets by environment.
    fn command(&self) -> Result<Command> {
        let program = child::binary("procfleet-server")?;
        let mut command = child::command_in(self.namespace.as_deref(), &program);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_")) {
            command.env_remove(variable);
        }
        command
            .env("PROCFLEET_DATABASE_URL", &self.database_url)
            .env("PROCFLEET_CA_KEY_FILE", self.directory.path().join("ca.key"))
            .env("PROCFLEET_AGENT_ENDPOINTS", self.agent_endpoints.join(","))
            // Every real agent of a test is on this machine.
            .env("PROCFLEET_ENROLLMENT__MACHINE_PER_HOUR", "0")
            .env("PROCFLEET_AGENT_DOOR__NAMES", own_address().to_string())
            .envs(self.environment.iter().cloned());
        Ok(command)
    }

    /// Starts a replica and waits until it is ready.
    pub async fn start(&self, name: &str, doors: Doors) -> Result<ServerProcess> {
        self.start_with(name, doors, &["serve"]).await
    }

    /// Starts a replica that makes what is missing: schema, sealing key, authorities.
    pub async fn start_preparing(&self, name: &str, doors: Doors) -> Result<ServerProcess> {
        self.start_with(name, doors, &["serve", "--migrate", "--init"]).await
    }

    async fn start_with(
        &self,
        name: &str,
        doors: Doors,
        arguments: &[&str],
    ) -> Result<ServerProcess> {
        let child = self.spawn(name, doors, arguments)?;
        let mut server = ServerProcess { name: name.into(), doors, child };
        server.wait_ready().await?;
        Ok(server)
    }

    fn spawn(&self, name: &str, doors: Doors, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command()?;
        command
            .env("PROCFLEET_AGENT_DOOR__LISTEN", doors.agent.to_string())
            .env("PROCFLEET_OPERATOR_DOOR__LISTEN", doors.operator.to_string())
            .args(arguments);
        Child::spawn(name, self.directory.path(), &mut command)
    }

    /// The path of a fresh enrolment token, as the command line makes it.
    pub async fn create_token(&self, name: &str, options: &[&str]) -> Result<PathBuf> {
        self.create_secret(name, &["tokens", "--direct", "create", "--name", name], options).await
    }

    /// A fresh enrolment token, parsed.
    pub async fn join_token(&self, name: &str) -> Result<JoinToken> {
        let path = self.create_token(name, &[]).await?;
        Ok(fs::read_to_string(path)?.parse()?)
    }

    /// A fresh operator key.
    pub async fn create_api_key(&self, role: &str) -> Result<String> {
        let name = format!("key-{role}");
        let command = ["api-keys", "--direct", "create", "--name", &name, "--role", role];
        let path = self.create_secret(&name, &command, &[]).await?;
        Ok(fs::read_to_string(path)?.trim().to_owned())
    }

    async fn create_secret(
        &self,
        name: &str,
        command: &[&str],
        options: &[&str],
    ) -> Result<PathBuf> {
        let path = self.directory.path().join(format!("{name}.secret"));
        let file = path_text(&path)?;
        let arguments = [command, options, &["--secret-file", file]].concat();
        self.run(name, &arguments).await?;
        Ok(path)
    }
}

/// A path as an argument.
pub fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

impl ServerProcess {
    /// Where it listens.
    pub fn doors(&self) -> Doors {
        self.doors
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits until `/readyz` says so.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let url = format!("http://{}/readyz", self.doors.operator);
        let client = operator_client()?;
        let what = format!("{} is ready", self.name);
        eventually(READY_DEADLINE, &what, async || {
            self.child.check_alive()?;
            let status = client.get(&url).send().await?.status();
            if !status.is_success() {
                bail!("{url} answered {status}");
            }
            Ok(())
        })
        .await
        .with_context(|| self.child.log_tail())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()
    }

    /// Any signal; SIGSTOP and SIGCONT above all.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.child.signal(signal)
    }

    /// SIGTERM, which must end in a drained server and status 0.
    pub async fn terminate(&mut self) -> Result<()> {
        let status = self.child.stop(Signal::TERM, STOP_DEADLINE).await?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.child.log_tail());
        }
        Ok(())
    }

    /// Starts it again on the same addresses; does not wait until it is ready.
    pub fn restart(&mut self, deployment: &Deployment) -> Result<()> {
        self.child = deployment.spawn(&self.name, self.doors, &["serve"])?;
        Ok(())
    }

    /// Fails if it ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.child.check_alive()
    }

    /// What it logged since its first start.
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// The end of it.
    pub fn log_tail(&self) -> String {
        self.child.log_tail()
    }

    /// GET on the operator door; the body of a success.
    pub async fn get(&self, path: &str, api_key: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.doors.operator);
        let response = operator_client()?.get(&url).bearer_auth(api_key).send().await?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("GET {url} answered {status}: {body}");
        }
        Ok(body)
    }

    /// POST on the operator door; the body of a success.
    pub async fn post(&self, path: &str, api_key: &str, body: &Value) -> Result<String> {
        let url = format!("http://{}{path}", self.doors.operator);
        let request = operator_client()?.post(&url).bearer_auth(api_key);
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        let response = request.send().await?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("POST {url} answered {status}: {body}");
        }
        Ok(body)
    }

    /// Sum of the series of a metric whose labels contain `labels`; 0 if there is none.
    pub async fn metric(&self, api_key: &str, name: &str, labels: &str) -> Result<f64> {
        let body = self.get("/metrics", api_key).await?;
        let mut sum = 0.0;
        for line in body.lines().filter(|line| line.starts_with(name) && line.contains(labels)) {
            let rest = &line[name.len()..];
            if rest.starts_with(['{', ' ']) {
                let value = line.rsplit(' ').next().unwrap_or_default();
                sum += value.parse::<f64>().with_context(|| line.to_owned())?;
            }
        }
        Ok(sum)
    }
}

fn operator_client() -> Result<reqwest::Client> {
    crate::simulated::install_crypto();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .context("build an HTTP client")
}
