//! The agent's part of `up`: enrolment of this host through the real protocol, process, first
//! sample.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use super::foreground::Interrupt;
use super::{binary, run_quietly, server, toml_string};
use crate::http;
use crate::process::start_detached;
use crate::progress::{Step, poll};
use crate::project::{Project, remove, write_private};
use crate::run::tail;
use crate::state::{Part, State, fingerprint};

const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// The baseline, then the first report 2 s later; the rest is room for a busy machine.
const SAMPLE_PATIENCE: Duration = Duration::from_mins(1);

fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary(project, "procfleet-agent"));
    command
        .current_dir(&project.root)
        .args(arguments)
        .arg("--config")
        .arg(project.private("agent.toml"));
    command
}

fn configuration(project: &Project, state: &State) -> String {
    format!(
        "# Written by `cargo xtask up` at every start.
state_dir = {}
endpoints = [\"https://127.0.0.1:{}\"]
interval_ms = 10000
",
        toml_string(&project.private("agent")),
        state.agent_port
    )
}

/// Enrols this host with a token that lives for ten minutes and one use, unless it has an identity.
pub(super) fn ensure_enrolled(project: &Project, state: &State, url: &str) -> Result<()> {
    write_private(&project.private("agent.toml"), configuration(project, state).as_bytes())?;
    if host_id(project).is_some() {
        return Ok(());
    }
    let token = project.private("enrolment.token");
    remove(&token)?;
    let path = token.to_str().context("the checkout's path is not UTF-8")?;
    let create = [
        "tokens",
        "--direct",
        "create",
        "--name=xtask-up",
        "--max-uses=1",
        "--ttl=10m",
        "--secret-file",
        path,
    ];
    run_quietly(&mut server::command(project, url, &create), "create an enrolment token")?;
    let enrolled =
        run_quietly(&mut command(project, &["enroll", "--token-file", path]), "enrol this host");
    remove(&token)?;
    enrolled
}

/// Starts the agent unless it runs as it should. Says whether it was started now.
pub(super) fn ensure(project: &Project, state: &mut State) -> Result<bool> {
    let fingerprint =
        fingerprint(&binary(project, "procfleet-agent"), &configuration(project, state))?;
    if let Some(part) = &state.agent {
        if part.is_current(&fingerprint) {
            Step::start("agent").done("already runs");
            return Ok(false);
        }
        if part.process.is_running() {
            let step = Step::start("stop the agent (its build or configuration changed)");
            part.process.stop(Signal::TERM, STOP_PATIENCE)?;
            step.done("");
        }
    }
    let process = start_detached(&mut command(project, &["run"]), &project.log("agent"))?;
    state.agent = Some(Part { process, fingerprint });
    state.save(project)?;
    Ok(true)
}

/// When this host was last sampled before the agent is started: what `wait_for_sample` must not
/// take for new. `None` if the agent runs already, or has never.
pub(super) fn sampled_before(project: &Project, state: &State, key: &str) -> Option<Value> {
    if state.agent.as_ref().is_some_and(|part| part.process.is_running()) {
        return None;
    }
    Some(ask(state, &host_id(project)?, key).ok()??["last_sampled_at"].clone())
}

/// Waits until the operators' API shows a sample of this host, other than the one from `before`.
pub(super) fn wait_for_sample(
    project: &Project,
    state: &State,
    key: &str,
    before: Option<&Value>,
    interrupted: &Interrupt,
) -> Result<()> {
    let host = host_id(project).context("the enrolled identity names no host")?;
    let process = state.agent.as_ref().context("no agent was started")?.process.clone();
    let step = Step::start("wait for this host's first sample");
    let seen = poll(SAMPLE_PATIENCE, || {
        interrupted.check()?;
        if !process.is_running() {
            bail!("the agent ended; its log ends with:\n{}", log_end(project));
        }
        let answer = ask(state, &host, key)?;
        let sampled_at = answer.map_or(Value::Null, |host| host["last_sampled_at"].clone());
        Ok((!sampled_at.is_null() && Some(&sampled_at) != before).then_some(()))
    })?;
    if seen.is_none() {
        bail!(
            "no sample of this host arrived within {} s; the agent's log ends with:\n{}",
            SAMPLE_PATIENCE.as_secs(),
            log_end(project)
        );
    }
    step.done("");
    Ok(())
}

/// This host as the operators' API shows it, `None` while the server does not know it.
pub(super) fn ask(state: &State, host: &str, key: &str) -> Result<Option<Value>> {
    let (status, body) = http::get(state.operator_port, &format!("/v1/hosts/{host}"), Some(key))?;
    match status {
        200 => Ok(Some(serde_json::from_str(&body).context("the server's answer is not JSON")?)),
        404 => Ok(None),
        _ => bail!("the server answers {status}: {}", tail(&body, 5)),
    }
}

fn log_end(project: &Project) -> String {
    tail(&std::fs::read_to_string(project.log("agent")).unwrap_or_default(), 15)
}

/// What to call this host in a URL.
pub(super) fn host_reference(project: &Project) -> String {
    host_id(project).unwrap_or_else(|| "HOST".to_owned())
}

/// The server-minted id in the identity, `None` when this host was not enrolled from here.
pub(super) fn host_id(project: &Project) -> Option<String> {
    let files = std::fs::read_dir(project.private("agent/identity")).ok()?;
    files.flatten().find_map(|file| {
        let content: Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        content["host_id"].as_str().map(str::to_owned)
    })
}
