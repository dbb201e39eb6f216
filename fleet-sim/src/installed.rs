//! An agent as the install script leaves it, under a stand-in for systemd: a thread that does what the units say. It runs
//! `boot-check` and then the agent, again whenever it ends; `update work` when the path unit would, and every second while the timer
//! is started; and what the installer asks `systemctl` for.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::child::{self, Child, Directory};
use crate::releases::{self, Published};
use crate::server::{Deployment, path_text};

/// As `RestartSec` and the timer's period, shorter.
const RESTART: Duration = Duration::from_millis(200);
const TIMER: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// As `TimeoutStopSec`, shorter.
const STOP: Duration = Duration::from_secs(10);

/// Notes what it is asked for.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >>\"${0%/*}/asked\"\n";

/// See the module.
#[derive(Debug)]
pub struct InstalledAgent {
    directory: Arc<Directory>,
    is_over: Arc<AtomicBool>,
    starts: Arc<AtomicU32>,
    systemd: Option<JoinHandle<Result<()>>>,
}

impl InstalledAgent {
    /// Installs and enrols it, and starts it.
    pub async fn start(
        deployment: &Deployment,
        name: &str,
        release: &Published,
        root: &str,
    ) -> Result<Self> {
        let directory = Arc::new(Directory::create(name)?);
        let host = Host { directory: Arc::clone(&directory), starts: Arc::default() };
        let bin = host.path("bin");
        for made in [&bin, &host.path("keys"), &host.path("base")] {
            fs::create_dir_all(made)?;
        }
        fs::write(bin.join("systemctl"), SYSTEMCTL)?;
        fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755))?;
        fs::write(host.path("keys/root.pub"), root)?;
        releases::place(release, &host.path("base"))?;
        fs::write(host.path("agent.toml"), host.configuration()?)?;
        let token = deployment.create_token(&format!("{name}-token"), &[]).await?;
        let mut enroll =
            host.command("current", &["enroll", "--token-file", path_text(&token)?])?;
        Child::run("enroll", directory.path(), &mut enroll).await?;
        let (is_over, starts) = (Arc::new(AtomicBool::new(false)), Arc::clone(&host.starts));
        let over = Arc::clone(&is_over);
        let systemd = std::thread::spawn(move || host.supervise(&over));
        Ok(Self { directory, is_over, starts, systemd: Some(systemd) })
    }

    /// The id of the release that a link points at.
    pub fn linked(&self, link: &str) -> Result<String> {
        let target = fs::read_link(self.directory.path().join("base").join(link))?;
        Ok(target.file_name().context("a release")?.to_string_lossy().into_owned())
    }

    /// What the installer knows.
    pub fn ledger(&self) -> Result<serde_json::Value> {
        let path = self.directory.path().join("base/update-state.json");
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// How often the agent was started.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Everything it, the installer and the stand-in wrote, for a failed test.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for name in ["boot-check", "work", "run"] {
            let log = fs::read_to_string(self.directory.path().join(format!("{name}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            write!(text, "--- {name}\n{tail}\n").ok();
        }
        text
    }

    /// Stops the agent and the stand-in, which must have had no trouble of its own.
    pub fn stop(mut self) -> Result<()> {
        self.end().unwrap_or(Ok(()))
    }

    fn end(&mut self) -> Option<Result<()>> {
        self.is_over.store(true, Ordering::Relaxed);
        let systemd = self.systemd.take()?;
        systemd.thread().unpark();
        Some(systemd.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the stand-in panicked"))))
    }
}

impl Drop for InstalledAgent {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the stand-in works on.
struct Host {
    directory: Arc<Directory>,
    starts: Arc<AtomicU32>,
}

/// What the units are doing.
#[derive(Default)]
struct Units {
    agent: Option<Child>,
    /// When the agent is to be started (again).
    start_at: Option<Instant>,
    /// When the timer fires, if it was started.
    timer_at: Option<Instant>,
    /// Lines of what `systemctl` was asked for that are done.
    done: usize,
}

impl Host {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configuration(&self) -> Result<String> {
        let path = |name: &str| Ok::<_, anyhow::Error>(path_text(&self.path(name))?.to_owned());
        Ok(format!(
            "state_dir = {:?}\ninterval_ms = 1000\n[collect]\ntier = \"proc\"\n[budget]\ncpu_cores = 8.0\n\
             [update]\nbase = {:?}\ntrusted_keys = {:?}\nstable_s = 2\ndeadline_s = 20\ngrace_s = 20\n",
            path("state")?,
            path("base")?,
            path("keys")?
        ))
    }

    fn command(&self, link: &str, arguments: &[&str]) -> Result<Command> {
        let program = self.path("base").join(link).join("procfleet-agent");
        let mut command = child::command(&program);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_")) {
            command.env_remove(variable);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", path_text(&self.path("bin"))?));
        command.args(arguments).arg("--config").arg(self.path("agent.toml"));
        Ok(command)
    }

    fn supervise(&self, is_over: &AtomicBool) -> Result<()> {
        let mut units = Units { start_at: Some(Instant::now()), ..Units::default() };
        while !is_over.load(Ordering::Relaxed) {
            self.run_agent(&mut units)?;
            let drop_box = self.path("state/update");
            let is_asked = |name: &str| drop_box.join(name).exists();
            let is_due = units.timer_at.is_some_and(|at| Instant::now() >= at);
            if is_due || is_asked("request.json") || is_asked("working.json") {
                self.one_shot("work")?;
                units.timer_at = units.timer_at.map(|_| Instant::now() + TIMER);
            }
            self.obey(&mut units)?;
            std::thread::park_timeout(PAUSE);
        }
        Self::stop(units.agent.take());
        Ok(())
    }

    fn run_agent(&self, units: &mut Units) -> Result<()> {
        if units.agent.as_mut().is_some_and(|agent| agent.check_alive().is_err()) {
            units.agent = None;
            units.start_at = Some(Instant::now() + RESTART);
        }
        if units.start_at.is_some_and(|at| Instant::now() >= at) {
            // `-`: its failure keeps nobody from starting.
            self.one_shot("boot-check").ok();
            let mut command = self.command("current", &["run"])?;
            // systemd fails to execute, notes it and tries again.
            units.agent = Child::spawn("run", self.directory.path(), &mut command).ok();
            units.start_at = None;
            self.starts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A root's program, to its end.
    fn one_shot(&self, name: &str) -> Result<()> {
        let mut command = self.command("confirmed", &["update", name])?;
        let mut child = Child::spawn(name, self.directory.path(), &mut command)?;
        let status = child.wait_here()?;
        ensure!(status.success(), "update {name} ended with {status}:\n{}", child.log_tail());
        Ok(())
    }

    /// Does what `systemctl` was asked for.
    fn obey(&self, units: &mut Units) -> Result<()> {
        let asked = fs::read_to_string(self.path("bin/asked")).unwrap_or_default();
        for line in asked.lines().skip(units.done) {
            match line {
                "--no-block start procfleet-agent-update.timer" => {
                    units.timer_at.get_or_insert_with(|| Instant::now() + TIMER);
                }
                "--no-block stop procfleet-agent-update.timer" => units.timer_at = None,
                "--no-block restart procfleet-agent.service" => {
                    Self::stop(units.agent.take());
                    units.start_at = Some(Instant::now());
                }
                other => anyhow::bail!("systemctl was asked for {other:?}"),
            }
            units.done += 1;
        }
        Ok(())
    }

    /// Asks it to end; dropped it is killed, if it is still there.
    fn stop(agent: Option<Child>) {
        let Some(mut agent) = agent else { return };
        let began = Instant::now();
        if agent.signal(Signal::TERM).is_ok() {
            while agent.check_alive().is_ok() && began.elapsed() < STOP {
                std::thread::park_timeout(PAUSE);
            }
        }
    }
}

/// A file of the mirror that is damaged, for tests of what agents make of it.
pub fn damage(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let last = bytes.last_mut().context("a file with bytes")?;
    *last ^= 1;
    Ok(fs::write(file, bytes)?)
}
