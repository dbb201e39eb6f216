//! A host with a thousand processes: none is missed, and the rows add up to the host.
//!
//! What is compared: in every report, the sum of all process rows (recorded and residual) against the
//! host's user and system time of the same report, both over the same interval, summed over a few
//! seconds of full load, a part of it by processes that live for milliseconds: no sample sees them, the
//! residual has them by what their parents waited for. Both sides see whatever else the machine does
//! meanwhile. Three things are in the host's time and in no row: interrupts (a fraction of a percent
//! here), what ends unwaited for, and that the kernel counts the host's time by ticks and the
//! processes' by the scheduler's clock, which evens out over seconds. The bound of 3 % holds them all.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child;
use fleet_sim::eventually::eventually;
use uuid::Uuid;

use crate::fleet::{
    DEADLINE, Fleet, Workload, number, report_count, wait_for_deltas, wait_for_reports,
};

const PROCESSES: usize = 1000;
const BURN_MS: u32 = 6000;

/// Sleepers that end with the test.
struct Crowd(Vec<Child>);

impl Crowd {
    fn start() -> Result<Self> {
        let mut crowd = Self(Vec::with_capacity(PROCESSES));
        for _ in 0..PROCESSES {
            let mut sleeper: Command = child::command(Path::new("sleep"));
            crowd.0.push(sleeper.arg("600").stdin(Stdio::null()).spawn()?);
        }
        Ok(crowd)
    }

    fn pids(&self) -> Result<Vec<i32>> {
        Ok(self.0.iter().map(|child| i32::try_from(child.id())).collect::<Result<_, _>>()?)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            drop(sleeper.kill());
        }
        for sleeper in &mut self.0 {
            drop(sleeper.wait());
        }
    }
}

/// A shell whose children live for milliseconds: most end without a sample that saw them.
struct ShortLived(fleet_sim::child::Child);

impl ShortLived {
    fn start(directory: &Path) -> Result<Self> {
        let script = "while ((SECONDS < $1)); do
            (for ((i = 0; i < 3000; i++)); do :; done)
        done; times";
        let mut command = child::command(Path::new("bash"));
        command.args(["-c", script, "bash", &(BURN_MS / 1000).to_string()]);
        let shell = fleet_sim::child::Child::spawn("short-lived", directory, &mut command)?;
        Ok(Self(shell))
    }

    /// User and system CPU of its children, µs: the second line of `times`, `0m1.234s 0m0.056s`.
    async fn finish(&mut self) -> Result<i64> {
        self.0.wait(DEADLINE).await?;
        let log = self.0.log();
        let mut used = Duration::ZERO;
        for time in log.lines().nth(1).context("times")?.split_whitespace() {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m').context("m")?;
            used += Duration::from_mins(minutes.parse()?);
            used += Duration::try_from_secs_f64(seconds.parse()?)?;
        }
        Ok(i64::try_from(used.as_micros())?)
    }
}

#[tokio::test]
async fn all_are_discovered_and_their_rows_add_up_to_the_host() -> Result<()> {
    let fleet = Fleet::start("thousand").await?;
    let crowd = Crowd::start()?;
    let mut connection = fleet.connect().await?;

    let mut everything = fleet.agent("everything", Duration::from_secs(1), true).await?;
    let pids = crowd.pids()?;
    let all = everything.host_id()?;
    eventually(DEADLINE, "every process is discovered", async || {
        everything.check_alive()?;
        let known: i64 = sqlx::query_scalar(
            "select count(distinct pid) from procfleet_process_samples s join process_instances i
            using (host_id, instance_id) where host_id = $1 and pid = any($2)",
        )
        .bind(all)
        .bind(&pids)
        .fetch_one(&mut connection)
        .await?;
        ensure!(known == i64::try_from(PROCESSES)?, "{known} of {PROCESSES}");
        Ok(())
    })
    .await?;
    everything.terminate().await?;

    let mut agent = fleet.agent("selecting", Duration::from_secs(1), false).await?;
    let host_id = agent.host_id()?;
    wait_for_deltas(&mut connection, &mut agent).await?;
    let directory = fleet.deployment.directory.path();
    let cores = std::thread::available_parallelism()?.get();
    let mut workloads = Vec::new();
    for core in 0..cores {
        let mut workload = Workload::start(&format!("burner-{core}"), directory, &[])?;
        workload.tell(&format!("burn {BURN_MS}"))?;
        workloads.push(workload);
    }
    let mut short_lived = ShortLived::start(directory)?;
    for workload in &mut workloads {
        workload.wait_done().await?;
    }
    let short_lived_us = short_lived.finish().await?;
    let reports = report_count(&mut connection, host_id).await?;
    wait_for_reports(&mut connection, &mut agent, reports).await?;
    for workload in workloads {
        workload.finish().await?;
    }
    let short = (i64::from(short_lived.0.pid()), short_lived_us);
    check_sums(&mut connection, host_id, cores, short).await?;
    agent.terminate().await
}

/// Over all reports that have deltas.
async fn check_sums(
    connection: &mut sqlx::PgConnection,
    host_id: Uuid,
    cores: usize,
    (shell, short_lived_us): (i64, i64),
) -> Result<()> {
    let host =
        "select sum(cpu_user_us + cpu_system_us)::bigint from host_samples where host_id = $1";
    let rows = "select sum(coalesce(p.cpu_user_us, 0) + coalesce(p.cpu_system_us, 0))::bigint
        from procfleet_process_samples p join host_samples h using (host_id, sampled_at)
        where host_id = $1 and h.cpu_user_us is not null";
    // A child that happens to live at a tick may have a row of its own, up to then.
    let residual = format!(
        "{rows} and (instance_id = 0 or instance_id in (select instance_id from process_instances
        where host_id = $1 and parent_pid = {shell}))"
    );
    let host = number(connection, host, host_id).await?;
    let sum = number(connection, rows, host_id).await?;
    let residual = number(connection, &residual, host_id).await?;
    println!("{short_lived_us} µs by short-lived processes");
    println!("host {host} µs, rows {sum} µs, of which residual and short-lived {residual} µs");
    assert!(
        residual * 100 >= short_lived_us * 97,
        "{short_lived_us} µs by short-lived processes, residual and their rows {residual} µs"
    );
    let burnt = i64::from(BURN_MS) * 1000 * i64::try_from(cores)?;
    assert!(host >= burnt, "the host used {host} µs, the test alone {burnt} µs");
    assert!((host - sum).abs() * 100 <= host * 3, "host {host} µs, its rows {sum} µs");

    let fewest = "select min(count) from (select sum(process_count) as count
        from procfleet_process_samples where host_id = $1 group by sampled_at) t";
    let fewest = number(connection, fewest, host_id).await?;
    assert!(fewest >= i64::try_from(PROCESSES)?, "a report stands for {fewest} processes only");
    Ok(())
}
