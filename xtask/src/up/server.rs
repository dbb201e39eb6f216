//! The server's part of `up`: schema, authorities, process, admin key.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{DATABASE_VARIABLE, binary, run_quietly, toml_string};
use crate::http;
use crate::process::start_detached;
use crate::progress::{Step, poll};
use crate::project::{Project, remove, write_private};
use crate::run::tail;
use crate::state::{Part, State, fingerprint};

const START_PATIENCE: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// 0600.
pub(super) fn admin_key_file(project: &Project) -> PathBuf {
    project.private("admin.key")
}

/// The server program with its configuration; the database's URL travels in the environment.
pub(super) fn command(project: &Project, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary(project, "procfleet-server"));
    command
        .current_dir(&project.root)
        .env(DATABASE_VARIABLE, url)
        .arg("--config")
        .arg(project.private("server.toml"))
        .args(arguments);
    command
}

/// Migrates, initialises and starts the server unless it runs as it should. Says whether it was
/// started now.
pub(super) fn ensure(project: &Project, state: &mut State, url: &str) -> Result<bool> {
    let configuration = configuration(project, state);
    let fingerprint =
        fingerprint(&binary(project, "procfleet-server"), &format!("{configuration}{url}"))?;
    if let Some(part) = &state.server {
        if part.is_current(&fingerprint) && is_ready(state.operator_port) {
            Step::start("server").done("already runs");
            return Ok(false);
        }
        if part.process.is_running() {
            let step = Step::start("stop the server (its build or configuration changed)");
            part.process.stop(Signal::TERM, STOP_PATIENCE)?;
            step.done("");
        }
    }
    write_private(&project.private("server.toml"), configuration.as_bytes())?;
    run_quietly(&mut command(project, url, &["migrate"]), "migrate the database")?;
    run_quietly(&mut command(project, url, &["init"]), "make the certificate authorities")?;
    start(project, state, url, fingerprint)?;
    Ok(true)
}

fn start(project: &Project, state: &mut State, url: &str, fingerprint: String) -> Result<()> {
    let step = Step::start("start the server");
    let log = project.log("server");
    let process = start_detached(&mut command(project, url, &["serve"]), &log)?;
    state.server = Some(Part { process: process.clone(), fingerprint });
    state.save(project)?;
    let port = state.operator_port;
    let ready = poll(START_PATIENCE, || {
        if !process.is_running() {
            bail!("the server ended");
        }
        Ok(is_ready(port).then_some(()))
    });
    if !matches!(ready, Ok(Some(()))) {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        bail!("the server did not become ready; its log ends with:\n{}", tail(&log, 15));
    }
    step.done(&format!("agent door {}, operator door {port}", state.agent_port));
    Ok(())
}

/// Answers `/readyz` with 200.
pub(crate) fn is_ready(operator_port: u16) -> bool {
    http::get(operator_port, "/readyz", None).is_ok_and(|(status, _)| status == 200)
}

/// The key in the file if it still opens the door, else a new one.
pub(super) fn ensure_admin_key(project: &Project, state: &State, url: &str) -> Result<String> {
    let file = admin_key_file(project);
    if let Ok(key) = std::fs::read_to_string(&file) {
        let (status, body) = http::get(state.operator_port, "/v1/api-keys", Some(key.trim()))?;
        match status {
            200 => return Ok(key.trim().to_owned()),
            401 | 403 => remove(&file)?, // revoked, or another database's
            _ => bail!("the server answers the admin key with {status}: {}", tail(&body, 5)),
        }
    }
    let path = file.to_str().context("the checkout's path is not UTF-8")?;
    run_quietly(
        &mut command(
            project,
            url,
            &[
                "api-keys",
                "--direct",
                "create",
                "--name=xtask-up",
                "--role=admin",
                "--secret-file",
                path,
            ],
        ),
        "create the admin API key",
    )?;
    Ok(std::fs::read_to_string(&file)?.trim().to_owned())
}

fn configuration(project: &Project, state: &State) -> String {
    let key = toml_string(&project.private("ca.key"));
    let (agent, operator) = (state.agent_port, state.operator_port);
    format!(
        "# Written by `cargo xtask up` at every start.
ca_key_file = {key}
agent_endpoints = [\"https://127.0.0.1:{agent}\"]

[agent_door]
listen = \"127.0.0.1:{agent}\"
names = [\"localhost\", \"127.0.0.1\"]

[operator_door]
listen = \"127.0.0.1:{operator}\"
"
    )
}
