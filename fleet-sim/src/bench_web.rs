//! `fleet-sim bench-web`: how long the web page takes in Debian's Chromium, by the browser's own clocks.
//!
//! The fleet reports over the protocol to a real server: many hosts a report every half hour of a day,
//! and one every 30 s with 40 processes each time, which is the one that is opened. The scenarios and
//! what is timed are in `web/browser/bench.mjs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use shared_model::Timestamp;
use time::OffsetDateTime;

use crate::eventually::eventually;
use crate::faults::enrollment_without_limits;
use crate::fleet::{Population, enroll};
use crate::server::{Deployment, Doors, ServerProcess};
use crate::simulated::plan::Shape;

/// Time for a host's reports to be stored, and for the roll-ups after all of them.
const DEADLINE: Duration = Duration::from_mins(5);
/// Hosts of the list: few processes, few reports.
const SPARSE: Shape = Shape { processes: 4, interval_ms: 1_800_000, ..Shape::HOST };

/// What to measure on.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// An empty database that the benchmark may migrate and fill.
    #[arg(long, env = "PROCFLEET_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Hosts in the list.
    #[arg(long, default_value_t = 1000)]
    hosts: u64,
    /// Hours of data.
    #[arg(long, default_value_t = 24)]
    hours: u32,
    /// The folder of the page's sources, with its packages installed.
    #[arg(long, default_value = "web")]
    web: PathBuf,
    /// The browser.
    #[arg(long, default_value = "/usr/bin/chromium")]
    chromium: PathBuf,
}

/// Fills, waits for the roll-ups, measures, prints a Markdown table.
pub async fn run(arguments: Arguments) -> Result<()> {
    let doors = Doors::free()?;
    let endpoints = vec![doors.agent_endpoint()];
    let mut deployment =
        Deployment::create("bench-web", &arguments.database_url, endpoints).await?;
    deployment.environment = enrollment_without_limits();
    let server = deployment.start("server", doors).await?;
    #[expect(clippy::disallowed_methods, reason = "a benchmark owns its clock")]
    let now = OffsetDateTime::now_utc();
    report(&deployment, SPARSE, arguments.hosts, &arguments, now).await?;
    let host_id = report(&deployment, Shape::HOST, 1, &arguments, now).await?;
    let viewer_key = deployment.create_api_key("viewer").await?;
    rolled_up(&server, &viewer_key).await?;
    println!("{} hosts and {} h of data\n", arguments.hosts + 1, arguments.hours);
    let given = json!({
        "url": format!("http://{}", server.doors().operator),
        "chromium": arguments.chromium,
        "artefacts": deployment.directory.path(),
        "viewerKey": viewer_key,
        "hostId": host_id,
    });
    measure(&arguments.web, &given)
}

/// Hosts of a shape report as much as fits into the hours before `now`. Returns the id of one.
async fn report(
    deployment: &Deployment,
    shape: Shape,
    hosts: u64,
    arguments: &Arguments,
    now: Timestamp,
) -> Result<uuid::Uuid> {
    let token = deployment.join_token(&format!("hosts-{hosts}")).await?;
    let population = Population { seed: hosts, ..Population::calm(hosts, shape) };
    let began = now - Duration::from_hours(u64::from(arguments.hours));
    let reports = u64::from(arguments.hours) * 3_600_000 / u64::from(shape.interval_ms);
    let mut last = None;
    for mut agent in enroll(&token, &population, 0..hosts, began).await? {
        agent.produce(reports.saturating_sub(1));
        agent.drain(DEADLINE).await?;
        last = Some(agent.host_id);
    }
    last.context("no hosts")
}

/// Waits until maintenance has rolled up what arrived: a fleet that reports all the while is in this state.
async fn rolled_up(server: &ServerProcess, key: &str) -> Result<()> {
    eventually(DEADLINE, "everything is rolled up", async || {
        let progress: Value = serde_json::from_str(&server.get("/v1/maintenance", key).await?)?;
        let rollups = &progress["rollups"];
        ensure!(rollups["waiting"] == 0 && rollups["fine_until"].is_string(), "{rollups}");
        Ok(())
    })
    .await
}

/// Blocks: nothing else is to be done meanwhile.
fn measure(web: &Path, given: &Value) -> Result<()> {
    let mut command = Command::new("node");
    command.arg("browser/bench.mjs").current_dir(web);
    let status = command.env("PROCFLEET_BROWSER_TEST", given.to_string()).status();
    let status = status.context("start node")?;
    ensure!(status.success(), "the browser ended with {status}");
    Ok(())
}
