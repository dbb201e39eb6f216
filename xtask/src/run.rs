//! Running other programs and saying what went wrong.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// Last lines of diagnostics that a failure shows.
const KEPT_LINES: usize = 25;

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
    bail!(
        "{name} ended with {}:\n{}",
        output.status,
        tail(&String::from_utf8_lossy(&text), KEPT_LINES)
    );
}

/// Runs with its diagnostics kept; `each` hears every line of them as it comes, also those that a
/// carriage return replaces. A failure shows their end.
pub(crate) fn watched(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    let name = name(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let mut kept = VecDeque::new();
    let mut line = Vec::new();
    for byte in child.stderr.take().map(BufReader::new).into_iter().flat_map(Read::bytes) {
        let byte = byte.with_context(|| format!("read what {name} says"))?;
        if !matches!(byte, b'\r' | b'\n') {
            line.push(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        each(&text);
        if byte == b'\n' {
            kept.push_back(text);
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
        line.clear();
    }
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}:\n{}", kept.make_contiguous().join("\n"));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_heard_and_a_failure_shows_the_last() {
        let mut heard = Vec::new();
        let script = "printf 'one\\rtwo\\nthree\\n' >&2; exit 3";
        let error = watched(Command::new("sh").args(["-c", script]), |line| {
            heard.push(line.to_owned());
        });
        assert_eq!(heard, ["one", "two", "three"]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("two\nthree") && !error.contains("one"), "{error}");
    }
}
