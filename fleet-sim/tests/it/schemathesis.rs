//! schemathesis asks the running server what `openapi.yaml` allows, and what it does not: no failure of
//! the server, no answer that is not documented, in thousands of cases.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child::{self, Child};

use crate::fleet::Fleet;

/// Fewest cases that count as a run.
const CASES: u64 = 2000;
/// A run takes a minute or two where nothing else does.
const DEADLINE: Duration = Duration::from_mins(9);

#[tokio::test]
async fn the_server_keeps_to_its_document() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let tools = root.join(".procfleet/tools/schemathesis");
    ensure!(tools.is_dir(), "schemathesis is missing: run `cargo xtask test`");
    let fleet = Fleet::start("schemathesis").await?;
    let directory = fleet.deployment.directory.path();
    let operator = fleet.server.doors().operator;
    let mut command = child::command(Path::new("/usr/bin/python3"));
    command
        .env("PYTHONPATH", &tools)
        .env("PROCFLEET_URL", format!("http://{operator}"))
        .env("PROCFLEET_API_KEY", fleet.deployment.create_api_key("admin").await?)
        .current_dir(directory)
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "--config-file"])
        .arg(root.join("fleet-sim/tests/schemathesis.toml"))
        .arg("run")
        .arg(root.join("openapi.yaml"))
        .arg("--no-color");
    let mut run = Child::spawn("schemathesis-run", directory, &mut command)?;
    let status = run.wait(DEADLINE).await?;
    let log = run.log();
    ensure!(status.success(), "{log}");
    let cases = log.lines().find_map(|line| line.trim().split_once(" generated,"));
    let cases: u64 = cases.context("no number of cases")?.0.parse()?;
    ensure!(cases >= CASES, "only {cases} cases: raise max-examples in schemathesis.toml");
    Ok(())
}
