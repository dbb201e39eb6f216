//! Long-running processes that this tool starts, known by pid **and** start time **and** boot, so
//! that a reused pid is never taken for ours and never killed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::progress::poll;

/// One process, for ever.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Recorded {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks between boot and its start.
    start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`: start ticks repeat after a reboot.
    boot_id: String,
}

impl Recorded {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let (_, start_ticks) = read_stat(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Self { pid, start_ticks, boot_id: boot_id()? })
    }

    /// This very process.
    pub(crate) fn own() -> Result<Self> {
        Self::of(i32::try_from(std::process::id())?)
    }

    /// Runs and is no zombie.
    pub(crate) fn is_running(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && read_stat(self.pid)
                .is_some_and(|(state, start)| start == self.start_ticks && state != 'Z')
    }

    /// Asks with `signal`, waits, then kills. Says whether it had to kill.
    pub(crate) fn stop(&self, signal: Signal, patience: Duration) -> Result<bool> {
        self.signal(signal)?;
        let gone = || Ok((!self.is_running()).then_some(()));
        if poll(patience, gone)?.is_some() {
            return Ok(false);
        }
        self.signal(Signal::KILL)?;
        match poll(Duration::from_secs(10), gone)? {
            Some(()) => Ok(true),
            None => bail!("process {} does not even end by SIGKILL", self.pid),
        }
    }

    /// The descriptor is opened first and the identity checked after, so the signal reaches the
    /// checked process or nobody.
    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        if !self.is_running() {
            return Ok(());
        }
        let sent = match descriptor {
            Ok(descriptor) => rustix::process::pidfd_send_signal(descriptor, signal),
            Err(_) => rustix::process::kill_process(pid, signal), // before Linux 5.3
        };
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }
}

/// State letter and start time, `None` when there is no such process.
fn read_stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name may hold spaces and parentheses: fields count from the last `)`.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(id.trim().to_owned())
}

/// Starts a process that outlives us: own group (Ctrl-C is for us), output to a log file.
pub(crate) fn start_detached(command: &mut Command, log: &Path) -> Result<Recorded> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    Recorded::of(i32::try_from(child.id())?)
}

/// Who listens on a TCP port of this network namespace: "name (pid N)", as far as we may see.
pub(crate) fn listener(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, port).map(str::to_owned))?;
    let wanted = format!("socket:[{inode}]");
    let owner = fs::read_dir("/proc").ok()?.flatten().find(|process| {
        // Numbers only: `self` and `thread-self` are there, too.
        process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
            && fs::read_dir(process.path().join("fd")).is_ok_and(|descriptors| {
                descriptors.flatten().any(|fd| {
                    fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())
                })
            })
    })?;
    let name = fs::read_to_string(owner.path().join("comm")).ok()?;
    Some(format!("{} (pid {})", name.trim(), owner.file_name().to_string_lossy()))
}

/// The socket inode of the listener in a `/proc/net/tcp` table (state 0A).
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A")
            .then(|| fields.get(9).copied())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=30).map(|field| (field * 100).to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", fields.join(" "));
        assert_eq!(parse_stat(&stat), Some(('S', 2200)));
    }

    #[test]
    fn another_process_with_our_pid_is_not_ours() {
        let own = Recorded::own().unwrap();
        assert!(own.is_running());
        let reused = Recorded { start_ticks: own.start_ticks + 1, ..own.clone() };
        assert!(!reused.is_running());
        reused.stop(Signal::KILL, Duration::ZERO).unwrap();
        let before_reboot = Recorded { boot_id: "another".into(), ..own };
        assert!(!before_reboot.is_running());
        before_reboot.stop(Signal::KILL, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_process_is_asked_then_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0_u8; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let recorded = Recorded::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(recorded.stop(Signal::TERM, Duration::from_millis(200)).unwrap());
        assert!(!recorded.is_running());
        child.wait().unwrap();
    }

    #[test]
    fn the_listener_of_a_port_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener(socket.local_addr().unwrap().port()).unwrap();
        assert!(name.ends_with(&format!("(pid {})", std::process::id())), "{name}");
    }
}
