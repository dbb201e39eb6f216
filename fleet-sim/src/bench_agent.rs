//! What one tick of the real agent costs, by the number of processes on the host.
//!
//! The children are `sleep`s with distinct command lines of 300 characters. `procfleet-agent once` takes a
//! baseline and a report one second later; the report says what CPU the agent used between the two and
//! how much memory it holds. Nothing is enrolled and nothing sent. Children are killed and reaped by their
//! ids, and would end by themselves.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use shared_model::Report;

/// Children of each line of the table.
const COUNTS: [usize; 3] = [100, 1000, 3000];
/// Reports taken for each line.
const RUNS: usize = 5;
/// Length of a child's command line.
const COMMAND_LINE_BYTES: usize = 300;
/// When children end if nobody kills them, seconds.
const LIFETIME: &str = "600";

/// Measures and prints a Markdown table.
pub fn run() -> Result<()> {
    let agent = agent_binary()?;
    println!(
        "| children | processes | CPU ms per tick (median, least–most) | µs per process | process collector ms | RSS MiB | report KiB |\n|---|---|---|---|---|---|---|"
    );
    for count in COUNTS {
        let children = Children::start(count)?;
        let mut reports = Vec::new();
        for _ in 0..RUNS {
            reports.push(report(&agent)?);
        }
        drop(children);
        println!("{}", line(count, reports)?);
    }
    Ok(())
}

/// Beside this program.
fn agent_binary() -> Result<PathBuf> {
    let agent = std::env::current_exe()?.with_file_name("procfleet-agent");
    ensure!(agent.exists(), "{} is missing: cargo build --release --bins", agent.display());
    Ok(agent)
}

/// A report and its length as JSON.
fn report(agent: &Path) -> Result<(Report, usize)> {
    let output = Command::new(agent)
        .args(["once", "--interval", "1s", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", agent.display()))?;
    ensure!(output.status.success(), "{} ended with {}", agent.display(), output.status);
    let report = serde_json::from_slice(&output.stdout).context("read the agent's report")?;
    Ok((report, output.stdout.len()))
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn line(count: usize, mut reports: Vec<(Report, usize)>) -> Result<String> {
    reports.sort_by_key(|(report, _)| report.agent.cpu_us);
    let cpu_ms = |index: usize| {
        let cpu = reports.get(index).and_then(|(report, _)| report.agent.cpu_us);
        cpu.map(|cpu| cpu as f64 / 1000.0).context("the report does not tell the agent's CPU")
    };
    let (least, median, most) =
        (cpu_ms(0)?, cpu_ms(reports.len() / 2)?, cpu_ms(reports.len() - 1)?);
    let (report, length) = &reports[reports.len() / 2];
    let processes: u32 = report.processes.iter().map(|row| row.process_count).sum();
    let collector = report.agent.collectors.iter().find(|run| run.collector == "process");
    let wall_ms = collector.map_or(f64::NAN, |run| run.duration_us as f64 / 1000.0);
    let rss =
        report.agent.memory_usage_bytes.context("the report does not tell the agent's memory")?;
    Ok(format!(
        "| {count} | {processes} | {median:.1} ({least:.1}–{most:.1}) | {:.1} | {wall_ms:.1} | {:.1} | {} |",
        median * 1000.0 / f64::from(processes),
        rss as f64 / f64::from(1 << 20),
        length >> 10,
    ))
}

/// Sleepers, killed and reaped at the end.
struct Children(Vec<Child>);

impl Children {
    fn start(count: usize) -> Result<Self> {
        let mut children = Self(Vec::with_capacity(count));
        for index in 0..count {
            let name = format!("sleeper-{index:0>COMMAND_LINE_BYTES$}");
            let child = Command::new("sleep")
                .arg0(&name)
                .arg(LIFETIME)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("start child {index} of {count}"))?;
            children.0.push(child);
        }
        Ok(children)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // What cannot be killed or reaped has ended.
        for child in &mut self.0 {
            child.kill().unwrap_or_default();
        }
        for child in &mut self.0 {
            drop(child.wait());
        }
    }
}
