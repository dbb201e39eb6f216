//! The service manager: restarts the agent, and starts `update work` every minute while a release is on probation.
//!
//! Without systemd nothing is done and a warning says so.

use std::process::{Command, Stdio};

/// The agent's unit.
const AGENT: &str = "procfleet-agent.service";
/// Starts `update work` every minute.
const TIMER: &str = "procfleet-agent-update.timer";

/// Starts the agent anew, with what `current` points at.
pub fn restart_agent() {
    ask("restart", AGENT);
}

/// Looks after a probation until it is decided.
pub fn watch() {
    ask("start", TIMER);
}

/// There is none any more.
pub fn stop_watching() {
    ask("stop", TIMER);
}

/// Leaves it to systemd: this program is itself started by it, and must not wait for what waits for it.
fn ask(verb: &str, unit: &str) {
    let asked = Command::new("systemctl")
        .args(["--no-block", verb, unit])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match asked {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(%status, verb, unit, "systemctl failed"),
        Err(error) => tracing::warn!(%error, verb, unit, "systemctl cannot be started"),
    }
}
