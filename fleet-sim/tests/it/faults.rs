//! The short form of the fault suite: see [`fleet_sim::faults`].

use anyhow::{Context as _, Result, ensure};
use fleet_sim::faults::{FAULTS, Scale, Verdict, run_alone, run_together};

fn check(verdict: &Verdict) -> Result<()> {
    println!("{verdict:?}");
    let checked = verdict.checked;
    ensure!(checked.hosts == Scale::SHORT.agents && checked.reports > 10 * checked.hosts);
    ensure!(checked.hosts_in_full > 0 && checked.rejected > 0, "{checked:?}");
    Ok(())
}

async fn together(in_network: bool) -> Result<()> {
    let verdict = run_together(&FAULTS, in_network, Scale::SHORT).await?.context("no faults")?;
    ensure!(verdict.refilled == 0, "an acknowledged report was lost: {verdict:?}");
    check(&verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_is_killed_or_stopped() -> Result<()> {
    together(false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_the_network_does() -> Result<()> {
    together(true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_promoted_standby_had_lost_is_filled_in_again() -> Result<()> {
    check(&run_alone("fail-over", Scale::SHORT).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_database_loses_nothing() -> Result<()> {
    let verdict = run_alone("disk-full", Scale::SHORT).await?;
    ensure!(verdict.refilled == 0, "an acknowledged report was lost: {verdict:?}");
    check(&verdict)
}

#[tokio::test]
async fn killed_and_stopped_agents_lose_nothing_that_they_spooled() -> Result<()> {
    let verdict = run_alone("kill-agents", Scale::SHORT).await?;
    ensure!(verdict.checked.reports > 20, "{verdict:?}");
    Ok(())
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_loses_nothing() -> Result<()> {
    let verdict = run_alone("clock-jumps", Scale::SHORT).await?;
    ensure!(verdict.checked.reports > 10, "{verdict:?}");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_of_the_spool_loses_nothing() -> Result<()> {
    let verdict = run_alone("spool-full", Scale::SHORT).await?;
    ensure!(verdict.checked.reports > 10, "{verdict:?}");
    Ok(())
}
