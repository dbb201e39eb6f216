//! `cargo xtask status`: each part, one line. Exits 1 unless all of them run and are healthy.

use std::process::ExitCode;

use anyhow::Result;

use crate::down::{Part, processes};
use crate::project::Project;
use crate::state::State;
use crate::{http, up};

pub(crate) fn run(project: &Project) -> Result<ExitCode> {
    let state = State::load(project)?;
    let running = processes(&state);
    let mut all_healthy = true;
    println!("{:<10} {:<9} {:>8}  {:<22} health", "part", "state", "pid", "address");
    for part in [Part::Database, Part::Server, Part::Agent] {
        let process =
            running.iter().find(|(known, process)| *known == part && process.is_running());
        let external = part == Part::Database && state.database.is_none() && state.server.is_some();
        let (word, pid) = match process {
            Some((_, process)) => ("running", process.pid.to_string()),
            None if external => ("external", "-".to_owned()),
            None => ("stopped", "-".to_owned()),
        };
        let (healthy, text) = match (part, process.is_some()) {
            (_, false) => (external, String::new()),
            (Part::Database, true) => (true, "accepts connections".to_owned()),
            (Part::Server, true) => server_health(&state),
            (Part::Agent, true) => agent_health(project, &state),
        };
        all_healthy &= healthy;
        let line =
            format!("{:<10} {word:<9} {pid:>8}  {:<22} {text}", part.name(), address(&state, part));
        println!("{}", line.trim_end());
    }
    Ok(if all_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn address(state: &State, part: Part) -> String {
    match part {
        Part::Database => state
            .database
            .as_ref()
            .map_or_else(|| "-".to_owned(), |database| format!("127.0.0.1:{}", database.port)),
        Part::Server => format!("127.0.0.1:{},{}", state.agent_port, state.operator_port),
        Part::Agent => "-".to_owned(),
    }
}

fn server_health(state: &State) -> (bool, String) {
    match http::get(state.operator_port, "/readyz", None) {
        Ok((200, _)) => (true, "ready".to_owned()),
        Ok((status, _)) => (false, format!("not ready ({status}): `cargo xtask logs server`")),
        Err(error) => (false, format!("does not answer ({error:#}): `cargo xtask logs server`")),
    }
}

/// What the server knows of this host, with the agent's own word on its spool.
fn agent_health(project: &Project, state: &State) -> (bool, String) {
    let Some(host) = up::this_host(project, state) else {
        return (false, "unknown to the server: `cargo xtask logs agent`".to_owned());
    };
    let sampled_at = host["last_sampled_at"].as_str();
    let spool = host["agent"]["spool_reports"]
        .as_u64()
        .map_or_else(String::new, |count| format!(", {count} reports in the spool"));
    (sampled_at.is_some(), format!("last sample {}{spool}", sampled_at.unwrap_or("never")))
}
