//! Installing Debian packages when something we need is missing. `/etc/apt` is never touched.

use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Step;
use crate::run::{captured, exists};

/// Fails with what to do unless packages can be installed here.
fn require(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    if !exists("apt-get") {
        bail!(
            "{why} needs the Debian packages {list}, but there is no apt-get: install their equivalents yourself"
        );
    }
    if !is_root() {
        bail!(
            "{why} needs the Debian packages {list}: run `sudo apt-get install {list}`, or this command as root"
        );
    }
    Ok(())
}

/// Installs what is missing of `packages`, whose presence is told by `programs` of the same order.
pub(crate) fn ensure(programs: &[(&str, &str)], why: &str) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !exists(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() { Ok(()) } else { install(&missing, why) }
}

/// Installs clang, unless another one is named, where there is none.
pub(crate) fn ensure_clang() -> Result<()> {
    if std::env::var_os("PROCFLEET_CLANG").is_some() {
        return Ok(());
    }
    ensure(&[("clang", "clang")], "it compiles the agent's BPF programs")
}

/// Installs packages; the lists are refreshed only when the first try does not find them.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    require(packages, why)?;
    let step = Step::start(format!("install {} ({why})", packages.join(" ")));
    let try_install = || {
        captured(
            apt_get()
                .args(["install", "--yes", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
                .args(packages),
        )
    };
    if try_install().is_err() {
        captured(apt_get().arg("update"))?;
        if let Err(error) = try_install() {
            bail!(
                "{error:#}\nThe packages could not be installed: is the network there, and is another apt running?"
            );
        }
    }
    step.done("");
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

/// Effective user 0.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The major version of this Debian, `None` on another distribution.
pub(crate) fn debian_version() -> Option<u32> {
    parse_release(&std::fs::read_to_string("/etc/os-release").ok()?)
}

fn parse_release(text: &str) -> Option<u32> {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'))
    };
    (value("ID=")? == "debian").then(|| value("VERSION_ID=")?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_release_is_read() {
        assert_eq!(super::parse_release("ID=debian\nVERSION_ID=\"12\"\n"), Some(12));
        assert_eq!(super::parse_release("ID=ubuntu\nVERSION_ID=\"24.04\"\n"), None);
        assert_eq!(super::parse_release("ID=debian\n"), None);
    }
}
