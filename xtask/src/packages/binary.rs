//! A program that is packed: for which machine it is, what it needs, and without what only debuggers read.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::portable::{LIBRARIES, needed_libraries, needed_versions};
use crate::run::captured;

/// What the packages' systems call a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// Of Rust, rpm and `uname`.
    pub(crate) name: &'static str,
    /// Of Debian.
    pub(crate) debian: &'static str,
    /// As `readelf --file-header` says it.
    machine: &'static str,
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture { name: "x86_64", debian: "amd64", machine: "Advanced Micro Devices X86-64" },
    Architecture { name: "aarch64", debian: "arm64", machine: "AArch64" },
];

/// What a program needs.
pub(crate) struct Binary {
    pub(crate) architecture: Architecture,
    /// The newest version of glibc's symbols.
    pub(crate) glibc: (u32, u32),
    /// Its bytes, stripped.
    pub(crate) bytes: Vec<u8>,
}

impl Binary {
    /// Reads and strips `path`; `scratch` is a file that may be written.
    pub(crate) fn read(path: &Path, scratch: &Path) -> Result<Self> {
        ensure!(
            path.is_file(),
            "there is no program {}: build it, or name another --binaries",
            path.display()
        );
        let read = |flag: &str| {
            captured(Command::new("readelf").args([flag, "--wide"]).arg(path))
                .context("readelf of binutils")
        };
        let architecture = parse_architecture(&read("--file-header")?).with_context(|| {
            format!("{} is for a machine that we have no packages for", path.display())
        })?;
        let glibc = needed_versions(&read("--version-info")?).pop();
        let glibc =
            glibc.with_context(|| format!("{} names no version of glibc", path.display()))?;
        for library in needed_libraries(&read("--dynamic")?) {
            if !LIBRARIES.contains(&library.as_str()) {
                bail!(
                    "{} needs {library}, which the packages' dependencies do not name",
                    path.display()
                );
            }
        }
        captured(
            Command::new(strip(architecture))
                .arg("--strip-unneeded")
                .arg("-o")
                .arg(scratch)
                .arg(path),
        )?;
        let bytes =
            std::fs::read(scratch).with_context(|| format!("read {}", scratch.display()))?;
        crate::project::remove(scratch)?;
        Ok(Self { architecture, glibc, bytes })
    }
}

fn parse_architecture(header: &str) -> Option<Architecture> {
    let machine = header.lines().find_map(|line| line.trim().strip_prefix("Machine:"))?.trim();
    ARCHITECTURES.into_iter().find(|known| known.machine == machine)
}

/// Of binutils; for another machine of its cross binutils.
fn strip(architecture: Architecture) -> String {
    if architecture.name == std::env::consts::ARCH {
        "strip".to_owned()
    } else {
        format!("{}-linux-gnu-strip", architecture.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_their_names_in_each_format() {
        let arm = parse_architecture("ELF Header:\n  Machine:                           AArch64\n");
        assert_eq!(arm.map(|arm| (arm.name, arm.debian)), Some(("aarch64", "arm64")));
        assert_eq!(parse_architecture("  Machine:   MIPS R3000\n"), None);
    }
}
