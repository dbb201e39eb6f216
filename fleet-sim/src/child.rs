//! A program of ours, or of somebody else's, as a child of the test: in a process group of its own, its
//! output in a file, killed and reaped with the test.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::eventually::eventually;

/// Lines of output shown when a child did what it should not.
const LOG_TAIL_LINES: usize = 40;
/// How long one-shot commands may take.
const COMMAND_DEADLINE: Duration = Duration::from_mins(1);

/// A running child.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    process: std::process::Child,
}

/// A command whose process dies with the thread that starts it, whatever happens to that thread.
/// `setpriv` belongs to util-linux, which is essential in Debian; it replaces itself by `program`.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The same, in the network namespace of this name, if any.
pub fn command_in(namespace: Option<&str>, program: &Path) -> Command {
    let Some(namespace) = namespace else { return command(program) };
    // It replaces itself by the program, too.
    let mut command = command(Path::new("ip"));
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

impl Child {
    /// Starts `command`; its output is appended to `<directory>/<name>.log`.
    pub fn spawn(name: &str, directory: &Path, command: &mut Command) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let process = command
            .process_group(0)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { name: name.into(), log, process })
    }

    /// Runs `command` to its end, which must be a success.
    pub async fn run(name: &str, directory: &Path, command: &mut Command) -> Result<()> {
        let mut child = Self::spawn(name, directory, command.stdin(Stdio::null()))?;
        let status = child.wait(COMMAND_DEADLINE).await?;
        if !status.success() {
            bail!("{name} ended with {status}:\n{}", child.log_tail());
        }
        Ok(())
    }

    /// Process id; of the program itself, not of a wrapper.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Fails, with the end of its log, if the child is gone.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.process.try_wait().context("wait for the child")? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().with_context(|| format!("kill {}", self.name))?;
        let status = self.process.wait().with_context(|| format!("reap {}", self.name))?;
        if status.signal() != Some(9) {
            bail!("{} ended with {status} before it was killed:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Sends `signal` to the process itself.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.check_alive()?;
        kill_process(self.raw_pid(), signal).with_context(|| format!("signal {}", self.name))
    }

    /// Sends `signal` and waits for the end.
    pub async fn stop(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(deadline).await
    }

    /// Waits for the end.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        eventually(deadline, &what, async || match self.process.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("still running".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// Waits for the end, on a thread of the test's own.
    pub fn wait_here(&mut self) -> Result<ExitStatus> {
        self.process.wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it wrote.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// The child's process group.
    pub fn group(&self) -> Pid {
        self.raw_pid()
    }

    /// Waits for the end of a child that was told to end, by whatever means.
    pub fn reap(&mut self) {
        drop(self.process.wait());
    }

    /// The child's standard input, where it was piped.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.process.stdin.take()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Errors mean that it is gone already, which is what this is for.
            kill_process_group(self.raw_pid(), Signal::KILL).ok();
            drop(self.process.wait());
        }
    }
}

/// A program built by this workspace, found beside the running test binary or benchmark.
pub fn binary(name: &str) -> Result<PathBuf> {
    let mut directory = std::env::current_exe().context("find the test binary")?;
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let path = directory.join(name);
    if !path.exists() {
        bail!(
            "{} does not exist: run `cargo build --workspace --bins`, or `cargo xtask test`",
            path.display()
        );
    }
    Ok(path)
}

/// A directory of the test's own that is removed with it. On the file system of the build
/// directory: a real one, where `/tmp` may be memory.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one; `name` tells people whose it is.
    pub fn create(name: &str) -> Result<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = binary(".").context("find the build directory")?;
        let path = base.join("tmp").join(format!("{name}-{}-{next}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A failed test leaves its logs behind for its author.
        if !std::thread::panicking() {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}
