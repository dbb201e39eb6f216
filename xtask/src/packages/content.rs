//! The files of a package, whatever its format.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Making;
use super::binary::{Architecture, Binary};
use crate::dist::licences;
use crate::dist::parts::{self, Part};
use crate::run::captured;

/// A file as it is installed.
pub(super) struct File {
    /// Without the first slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

/// What a package of any format consists of.
pub(crate) struct Content {
    pub(crate) product: &'static str,
    pub(crate) architecture: Architecture,
    /// The newest version of glibc's symbols that the program needs.
    pub(super) glibc: (u32, u32),
    pub(super) program: Vec<u8>,
    pub(super) unit: Vec<u8>,
    /// `agent.toml` or `server.toml`, with its name.
    pub(super) configuration: (&'static str, String),
    /// Names and texts, not compressed.
    pub(super) pages: Vec<(String, Vec<u8>)>,
    /// For bash, zsh and fish.
    pub(super) completions: [Vec<u8>; 3],
    /// Names and texts of further files for whoever reads.
    pub(super) examples: Vec<(&'static str, Vec<u8>)>,
    /// What is in the program beside our own.
    pub(crate) parts: Vec<Part>,
    /// Theirs.
    pub(crate) licences: String,
}

impl Content {
    pub(crate) fn gather(
        making: &Making<'_>,
        (product, package): (&'static str, &str),
    ) -> Result<Self> {
        let root = &making.project.root;
        let read = |path: &str| {
            fs::read(root.join(path)).with_context(|| format!("read {path} of the sources"))
        };
        let text = |path: &str| anyhow::Ok(String::from_utf8(read(path)?)?);
        let scratch = making.scratch(product)?;
        let binary = Binary::read(&making.binaries.join(product), &scratch.join(product))?;
        let documenter = making.documenters.join(product).canonicalize()?;
        let print = |arguments: &[&str]| captured(Command::new(&documenter).args(arguments));
        let pages = pages(&documenter, &scratch)?;
        crate::project::remove(&scratch)?;
        let is_agent = product == "procfleet-agent";
        let unit = text(&format!("deploy/systemd/{product}.service"))?;
        let (unit, name, sample) = if is_agent {
            (packaged(&unit)?, "agent.toml", "agent/agent.toml")
        } else {
            (unit, "server.toml", "collector-api/server.toml")
        };
        let parts = parts::of(making.project, package, &making.target)?;
        let example = "deploy/packages/procfleet-server/server.env";
        Ok(Self {
            product,
            architecture: binary.architecture,
            glibc: binary.glibc,
            program: binary.bytes,
            unit: unit.into_bytes(),
            configuration: (name, commented(&text(sample)?)),
            pages,
            completions: [
                print(&["completions", "bash"])?.into_bytes(),
                print(&["completions", "zsh"])?.into_bytes(),
                print(&["completions", "fish"])?.into_bytes(),
            ],
            examples: if is_agent { Vec::new() } else { vec![("server.env", read(example)?)] },
            licences: licences::write(product, &parts)?,
            parts,
        })
    }

    /// What every format installs at the same place; paths of `zsh` and of documents differ.
    pub(super) fn files(&self, zsh: &str) -> Result<Vec<File>> {
        let product = self.product;
        let [bash, zsh_script, fish] = &self.completions;
        let mut files = vec![
            file(format!("usr/bin/{product}"), 0o755, &self.program),
            file(format!("usr/lib/systemd/system/{product}.service"), 0o644, &self.unit),
            file(
                format!("etc/procfleet/{}", self.configuration.0),
                0o644,
                self.configuration.1.as_bytes(),
            ),
            file(format!("usr/share/bash-completion/completions/{product}"), 0o644, bash),
            file(format!("{zsh}/_{product}"), 0o644, zsh_script),
            file(format!("usr/share/fish/vendor_completions.d/{product}.fish"), 0o644, fish),
        ];
        for (name, page) in &self.pages {
            files.push(file(format!("usr/share/man/man8/{name}.gz"), 0o644, &gzip(page)?));
        }
        for (name, text) in &self.examples {
            files.push(file(format!("usr/share/doc/{product}/examples/{name}"), 0o644, text));
        }
        Ok(files)
    }
}

pub(super) fn file(path: String, mode: u32, bytes: &[u8]) -> File {
    File { path, mode, bytes: bytes.to_vec() }
}

/// Writes files below `root`.
pub(super) fn lay(files: &[File], root: &Path) -> Result<()> {
    for file in files {
        let path = root.join(&file.path);
        let write = || -> std::io::Result<()> {
            for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(root)) {
                if dir.exists() {
                    break;
                }
                fs::create_dir_all(dir)?;
            }
            fs::write(&path, &file.bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))
        };
        write().with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The manual's pages that the program writes, by name.
fn pages(documenter: &Path, scratch: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    captured(Command::new(documenter).arg("man").arg(scratch))?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(scratch)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        pages.push((name, fs::read(&path)?));
    }
    pages.sort();
    ensure!(!pages.is_empty(), "{} wrote no manual", documenter.display());
    Ok(pages)
}

/// As Debian and reproducible builds want it: best compression, no name and no time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["--best", "--no-name", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start gzip")?;
    let mut input = child.stdin.take().context("gzip has an input")?;
    let output = std::thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(bytes));
        let output = child.wait_with_output();
        let written = writer.join().map_err(|_| anyhow::anyhow!("writing to gzip panicked"))?;
        written.context("write to gzip")?;
        output.context("read from gzip")
    })?;
    ensure!(output.status.success(), "gzip ended with {}", output.status);
    Ok(output.stdout)
}

/// The agent's unit as a package has it, made from that of the install script: the package manager replaces the
/// program, which lies elsewhere, and whoever enrols the host does so as root, whose files they are then. Root has no
/// more powers in it than the script's user.
fn packaged(unit: &str) -> Result<String> {
    /// Of releases beside each other, and of the user.
    const LEFT_OUT: [&str; 5] = [
        "# As root: takes a release back",
        "ExecStartPre=",
        "User=",
        "Group=",
        "AmbientCapabilities=",
    ];
    const START: [&str; 2] = [
        "ExecStart=/opt/procfleet/agent/current/procfleet-agent",
        "ExecStart=/usr/bin/procfleet-agent",
    ];
    for expected in LEFT_OUT.iter().chain(&START[..1]) {
        let found = unit.lines().filter(|line| line.starts_with(expected)).count();
        ensure!(found == 1, "the agent's unit has {found} lines that begin with {expected}");
    }
    let stays = |line: &&str| !LEFT_OUT.iter().any(|start| line.starts_with(start));
    let lines: Vec<_> =
        unit.lines().filter(stays).map(|line| line.replace(START[0], START[1])).collect();
    Ok(lines.join("\n") + "\n")
}

/// A sample whose keys stand at their defaults, with every key commented out: what is changed later stands out, and
/// defaults of later versions hold. Tables stay, so that a key is set by removing one `#`. A packaged agent
/// does not replace itself, whatever the default: the package manager does that.
fn commented(sample: &str) -> String {
    let mut text = String::new();
    let mut table = "";
    for line in sample.lines() {
        let content = line.trim_start();
        if content.starts_with('[') && !content.ends_with(',') && line.starts_with('[') {
            table = content.split(']').next().unwrap_or_default();
        }
        let stays = content.is_empty() || content.starts_with('#') || line.starts_with('[');
        if table == "[update" && content.starts_with("enabled") {
            text.push_str(
                "enabled = false                     # this program belongs to a package",
            );
        } else if stays {
            text.push_str(line);
        } else {
            text.push('#');
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_commented_out_key_by_key() {
        let sample = "# About.\nname = 1\n\n[filesystem]\ntypes = [\n    \"a\", \"b\",\n]\n\n[update]\nenabled = true\n";
        let expected = "# About.\n#name = 1\n\n[filesystem]\n#types = [\n#    \"a\", \"b\",\n]\n\n[update]\nenabled = false                     # this program belongs to a package\n";
        assert_eq!(commented(sample), expected.replace("\n]\n", "\n#]\n"));
    }

    #[test]
    fn compressed_bytes_are_the_same_each_time() {
        let bytes = vec![7_u8; 200_000];
        let once = gzip(&bytes).unwrap();
        assert_eq!(once, gzip(&bytes).unwrap());
        assert!(once.len() < 1000 && once.starts_with(&[0x1f, 0x8b]), "{}", once.len());
    }
}
