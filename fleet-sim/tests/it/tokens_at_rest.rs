//! After a host has enrolled and reports, its token's secret is nowhere: not in what `ps auxe` shows, not in logs,
//! not in a file of the agent or the server, not in any column of the database.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};

use crate::fleet::{Fleet, wait_for_reports};
use crate::secrets::found;

/// Files below `directory` whose bytes hold `text`.
fn files_with(directory: &Path, text: &[u8], into: &mut Vec<String>) -> Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files += files_with(&path, text, into)?;
        } else if path.is_file() {
            // One that ends meanwhile, such as a piece of the spool, holds nothing.
            let bytes = fs::read(&path).unwrap_or_default();
            files += 1;
            if bytes.windows(text.len()).any(|window| window == text) {
                into.push(path.display().to_string());
            }
        }
    }
    Ok(files)
}

/// Processes whose arguments or environment hold `text`; and how many were looked at.
fn processes_with(text: &[u8]) -> Result<(Vec<String>, usize)> {
    let (mut holders, mut seen) = (Vec::new(), 0);
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        if path.file_name().is_none_or(|name| name.to_string_lossy().parse::<u32>().is_err()) {
            continue;
        }
        for file in ["cmdline", "environ"] {
            // Another user's, or one that has ended.
            let Ok(bytes) = fs::read(path.join(file)) else { continue };
            seen += 1;
            if bytes.windows(text.len()).any(|window| window == text) {
                holders.push(path.join(file).display().to_string());
            }
        }
    }
    Ok((holders, seen))
}

#[tokio::test]
async fn a_token_is_nowhere_after_its_host_has_enrolled() -> Result<()> {
    let fleet = Fleet::start("at-rest").await?;
    let mut connection = fleet.connect().await?;
    let token_file = fleet.deployment.create_token("at-rest", &[]).await?;
    let paste = fs::read_to_string(&token_file)?.trim().to_owned();
    let token: shared_model::JoinToken = paste.parse()?;
    let options = AgentOptions {
        name: "at-rest".into(),
        interval: Duration::from_millis(500),
        keep_all: true,
        ..AgentOptions::default()
    };
    let mut agent = AgentProcess::start(options, &token_file).await?;
    wait_for_reports(&mut connection, &mut agent, 2).await?;
    ensure!(!token_file.exists(), "the agent removes the file that held the token");

    let state = agent.state_dir();
    let places =
        [state.parent().context("the agent's directory")?, fleet.deployment.directory.path()];
    for secret in [paste.as_str(), token.secret.as_str()] {
        let (holders, seen) = processes_with(secret.as_bytes())?;
        ensure!(seen > 4, "{seen} files of processes were read");
        assert!(holders.is_empty(), "the token is in {holders:?}");
        for place in places {
            let mut holders = Vec::new();
            let files = files_with(place, secret.as_bytes(), &mut holders)?;
            ensure!(files > 0, "nothing in {}", place.display());
            assert!(holders.is_empty(), "the token is in {holders:?}");
        }
        let tables = found(&mut connection, secret).await?;
        assert!(tables.is_empty(), "the token is in {tables:?}");
    }
    // The searches would find what is there.
    let name = agent.host_id()?.to_string();
    let mut files = Vec::new();
    files_with(&state, name.as_bytes(), &mut files)?;
    let in_database = found(&mut connection, &token.id.to_string()).await?;
    ensure!(!files.is_empty() && !in_database.is_empty(), "the search finds nothing");
    let config = state.with_file_name("agent.toml");
    let (own, _) = processes_with(config.as_os_str().as_encoded_bytes())?;
    ensure!(!own.is_empty(), "the agent's own arguments are not found");
    agent.terminate().await
}
