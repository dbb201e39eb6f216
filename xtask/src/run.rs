//! Running other programs and saying what went wrong.

use std::ffi::OsString;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// The cargo that runs us.
pub(crate) fn cargo(project: &Project) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&project.root);
    // Set for us by `cargo run`; a build script of the child must not see ours.
    for (name, _) in std::env::vars_os() {
        if is_own_crate_variable(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_own_crate_variable(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name == "CARGO_BIN_NAME"
    })
}

/// Whether a program is in the path.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Runs with its output kept; a failure shows its end.
pub(crate) fn captured(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    bail!("{name} ended with {}:\n{}", output.status, tail(&String::from_utf8_lossy(&text), 25));
}

/// Runs with its output shown.
pub(crate) fn shown(command: &mut Command) -> Result<ExitStatus> {
    let name = name(command);
    command.status().with_context(|| format!("start {name}"))
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The program without its arguments: these may hold secrets.
fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
