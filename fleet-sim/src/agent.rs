//! Real `procfleet-agent` processes, each with a state directory of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use uuid::Uuid;

use crate::child::{self, Child, Directory};
use crate::server::path_text;

const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What a test wants of an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Names its log.
    pub name: String,
    /// Between reports.
    pub interval: Duration,
    /// Record every process, or select as by default.
    pub keep_all: bool,
    /// Instead of what enrolment says.
    pub endpoints: Vec<String>,
    /// More variables for all its commands.
    pub environment: Vec<(&'static str, String)>,
    /// Where its identity and its spool are; none: in a directory of its own.
    pub state_dir: Option<PathBuf>,
}

/// An enrolled agent, running or not.
#[derive(Debug)]
pub struct AgentProcess {
    options: AgentOptions,
    directory: Directory,
    child: Option<Child>,
}

impl AgentProcess {
    /// Enrols with the token in `token_file` (which the agent then removes) and starts to report.
    pub async fn start(options: AgentOptions, token_file: &Path) -> Result<Self> {
        let mut agent = Self::enroll(options, token_file).await?;
        agent.run()?;
        Ok(agent)
    }

    /// Enrols, and reports nothing yet.
    pub async fn enroll(options: AgentOptions, token_file: &Path) -> Result<Self> {
        let agent = Self::create(options)?;
        let mut command = agent.command("enroll")?;
        command.args(["--token-file", path_text(token_file)?]);
        Child::run("enroll", agent.directory.path(), &mut command).await?;
        Ok(agent)
    }

    /// Configures one that has whatever identity is in its state directory, and starts nothing.
    pub fn create(options: AgentOptions) -> Result<Self> {
        let directory = Directory::create(&options.name)?;
        let agent = Self { options, directory, child: None };
        fs::write(agent.config_file(), agent.configuration()?)?;
        Ok(agent)
    }

    fn config_file(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// Where its identity and its spool are.
    pub fn state_dir(&self) -> PathBuf {
        self.options.state_dir.clone().unwrap_or_else(|| self.directory.path().join("state"))
    }

    fn configuration(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "state_dir = {:?}", path_text(&self.state_dir())?)?;
        writeln!(text, "interval_ms = {}", self.options.interval.as_millis())?;
        if !self.options.endpoints.is_empty() {
            writeln!(text, "endpoints = {:?}", self.options.endpoints)?;
        }
        writeln!(text, "[profile]\nkeep_all = {}", self.options.keep_all)?;
        // Tests sample far more often than the budget is made for, often unoptimised.
        writeln!(text, "[budget]\ncpu_cores = 8.0")?;
        Ok(text)
    }

    fn command(&self, subcommand: &str) -> Result<Command> {
        let mut command = child::command(&child::binary("procfleet-agent")?);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_")) {
            command.env_remove(variable);
        }
        command.envs(self.options.environment.iter().cloned());
        command.arg(subcommand).arg("--config").arg(self.config_file());
        Ok(command)
    }

    /// Starts it (again).
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.command("run")?;
        self.child = Some(Child::spawn("run", self.directory.path(), &mut command)?);
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("the agent is not running")
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.child = None;
        Ok(())
    }

    /// Any signal; SIGSTOP and SIGCONT above all.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)
    }

    /// The end of what it logged.
    pub fn log_tail(&self) -> String {
        self.child.as_ref().map_or_else(String::new, Child::log_tail)
    }

    /// SIGTERM, which must end with status 0, what is in the spool delivered if a server is there.
    pub async fn terminate(&mut self) -> Result<()> {
        let status = self.running()?.stop(Signal::TERM, STOP_DEADLINE).await?;
        if !status.success() {
            bail!("the agent ended with {status}:\n{}", self.log());
        }
        self.child = None;
        Ok(())
    }

    /// What the scripts of a package run when the agent is replaced or removed.
    pub async fn say_goodbye(&self, reason: &str) -> Result<()> {
        let mut command = self.command("goodbye")?;
        command.args(["--reason", reason]);
        Child::run("goodbye", self.directory.path(), &mut command).await
    }

    /// Every key of what it works by, and where its value comes from.
    pub async fn show_configuration(&self) -> Result<serde_json::Value> {
        let mut command = self.command("config")?;
        command.args(["show", "--effective", "--format", "json"]);
        let output = tokio::process::Command::from(command).output().await?;
        if !output.status.success() {
            bail!("config show: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("config show")
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the agent is not running")?.pid())
    }

    /// Fails if it ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.running()?.check_alive()
    }

    /// What it logged since its first start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("run.log")).unwrap_or_default()
    }

    /// Its identity.
    pub fn host_id(&self) -> Result<Uuid> {
        let identity = agent::identity::Identity::load(&self.state_dir().join("identity"))?;
        Ok(identity.host_id)
    }
}
