//! Why the agent was asked to stop: because the host goes down, or because somebody stopped it.
//!
//! A signal does not say. systemd does (`systemctl is-system-running` says `stopping`), and every init
//! that follows it forbids logins first (`/run/nologin`, nologin(5)). An agent stopped on a host that
//! stays up is expected back: that is `restart`, and if it does not come back the host becomes silent.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shared_model::Goodbye;

/// For systemd's answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether it came.
const PAUSE: Duration = Duration::from_millis(20);

/// Why, as far as the host can tell.
pub(super) fn reason() -> Goodbye {
    reason_of(system_state().as_deref(), Path::new("/run/nologin").exists())
}

fn reason_of(system_state: Option<&str>, logins_forbidden: bool) -> Goodbye {
    let goes_down = system_state.map_or(logins_forbidden, |state| state == "stopping");
    if goes_down { Goodbye::Shutdown } else { Goodbye::Restart }
}

/// What systemd calls the state of the host; none: there is no systemd, or it does not answer.
fn system_state() -> Option<String> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let mut child = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let asked = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if asked.elapsed() > PATIENCE {
            if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
                tracing::debug!(%error, "systemctl does not end");
            }
            return None;
        }
        std::thread::sleep(PAUSE);
    }
    let mut answer = String::new();
    child.stdout.take()?.read_to_string(&mut answer).ok()?;
    Some(answer.trim().to_owned()).filter(|state| !state.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_goes_down_says_so() {
        assert_eq!(reason_of(Some("stopping"), false), Goodbye::Shutdown);
        assert_eq!(reason_of(Some("degraded"), true), Goodbye::Restart);
        assert_eq!(reason_of(None, true), Goodbye::Shutdown);
        assert_eq!(reason_of(None, false), Goodbye::Restart);
    }
}
