//! Whatever is killed, cut, repeated or late: every report is in the database once, byte for byte.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::address::free_address;
use fleet_sim::agent::AgentProcess;
use fleet_sim::child::Directory;
use fleet_sim::eventually::eventually;
use fleet_sim::proxy::{Fault, Faults, FaultyProxy, ProxyCounts};
use fleet_sim::server::Doors;
use fleet_sim::simulated::SimulatedAgent;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::fleet::{
    DEADLINE, Fleet, compare_all, settle, simulated, spooled_records, start_agent, wait_for_reports,
};

const KILLS: u32 = 20;
const SIMULATED: u64 = 3;
/// Reports stored between two kills of the server: it dies while it works.
const PROGRESS: u64 = 10;
/// Reports the real agent spools between two kills of it.
const SPOOLED: u64 = 4;
/// Responses the proxy has seen before the end: enough for every fault to come often.
const RESPONSES: u64 = 200;
/// Reports a simulated agent adds per turn, and at most has outstanding.
const PRODUCED: u64 = 2;
const MAX_OUTSTANDING: u64 = 50;

/// Every third response is lost after the server committed and answered; connections overtake each other,
/// and one in seven requests is late (so that its repeat overtakes it), cut short, or answered late.
fn faults() -> Faults {
    use Fault::{LateRequest, None, Reset, Stall};
    let late = LateRequest(Duration::from_millis(150));
    let stall = Stall(Duration::from_millis(50));
    let mut requests = vec![None; 21];
    (requests[2], requests[9], requests[16]) = (late, stall, Reset);
    let max_accept_delay = Duration::from_millis(60);
    Faults { drop_every: 3, requests, max_accept_delay, seed: 42 }
}

/// Makes and sends reports until told to stop, then sends the rest.
async fn deliver(
    mut agent: SimulatedAgent,
    stored: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<SimulatedAgent> {
    while !stop.load(Ordering::Relaxed) {
        if agent.last_sequence() - agent.acknowledged_sequence < MAX_OUTSTANDING {
            agent.produce(PRODUCED);
        }
        let before = agent.acknowledged_sequence;
        agent.send(usize::try_from(MAX_OUTSTANDING)?).await?;
        let progress = agent.acknowledged_sequence.saturating_sub(before);
        stored.fetch_add(progress, Ordering::Relaxed);
        if progress == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    agent.drain(DEADLINE).await?;
    Ok(agent)
}

/// Kills the server in the middle of ingest, again and again.
async fn kill_servers(fleet: &mut Fleet, stored: &AtomicU64) -> Result<()> {
    for kill in 0..KILLS {
        let before = stored.load(Ordering::Relaxed);
        eventually(DEADLINE, "the server stores reports", async || {
            fleet.server.check_alive()?;
            let progress = stored.load(Ordering::Relaxed) - before;
            ensure!(progress >= PROGRESS, "{progress} since kill {kill}");
            Ok(())
        })
        .await
        .with_context(|| fleet.server.log())?;
        fleet.server.kill()?;
        fleet.server.restart(&fleet.deployment)?;
    }
    fleet.server.wait_ready().await
}

/// Kills the agent while it samples, spools and sends, again and again.
async fn kill_agents(agent: &mut AgentProcess) -> Result<()> {
    let host_id = agent.host_id()?;
    let spool = agent.state_dir().join("spool");
    let copy = Directory::create("spool-copy")?;
    // One turn more than kills: the agent of the last start spools, too.
    for turn in 0..=KILLS {
        if turn > 0 {
            agent.kill()?;
            agent.run()?;
        }
        let before = spooled(&spool, copy.path(), host_id)?;
        let waited = eventually(DEADLINE, "the agent spools reports", async || {
            agent.check_alive()?;
            let last = spooled(&spool, copy.path(), host_id)?;
            ensure!(last >= before + SPOOLED, "{last} spooled, {before} before turn {turn}");
            Ok(())
        });
        waited.await.with_context(|| agent.log())?;
    }
    Ok(())
}

/// The last whole record in the spool of a running agent, by a copy of it.
fn spooled(spool: &Path, copy: &Path, host_id: Uuid) -> Result<u64> {
    std::fs::remove_dir_all(copy).context("remove the last copy")?;
    copy_directory(spool, copy)?;
    Ok(spooled_records(copy, host_id)?.last().map_or(0, |record| record.head().sequence))
}

/// Files that vanish meanwhile are left out.
fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else if let Err(error) = std::fs::copy(entry.path(), &target)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).context("copy the spool");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_through_kills_and_faults() -> Result<()> {
    let doors = Doors::free()?;
    let listen = free_address()?;
    let proxy = FaultyProxy::start(listen, doors.agent, faults()).await?;
    let mut fleet = Fleet::start_behind("exactly-once", doors, format!("https://{listen}")).await?;
    let mut agent =
        start_agent(&fleet.deployment, "agent", Duration::from_millis(200), false).await?;
    let mut connection = fleet.connect().await?;
    wait_for_reports(&mut connection, &mut agent, 0).await?;

    let simulated = simulated(&fleet.deployment, SIMULATED).await?;
    proxy.set_harmful(true);
    let (stored, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut delivering = JoinSet::new();
    for simulated in simulated {
        delivering.spawn(deliver(simulated, Arc::clone(&stored), Arc::clone(&stop)));
    }
    let killed = tokio::try_join!(kill_servers(&mut fleet, &stored), kill_agents(&mut agent));
    let harmed = eventually(DEADLINE, "the proxy does its harm", async || {
        let counts = proxy.counts();
        ensure!(killed.is_err() || counts.responses >= RESPONSES, "{counts:?}");
        Ok(())
    });
    harmed.await?;
    stop.store(true, Ordering::Relaxed);
    let mut simulated = Vec::new();
    while let Some(done) = delivering.join_next().await {
        simulated.push(done??);
    }
    killed?;
    let counts = proxy.counts();
    proxy.set_harmful(false);
    let real = settle(&mut connection, &mut agent).await?;

    let compared = compare_all(&mut connection, &simulated, &real).await?;
    println!("{counts:?}\n{compared:?}");
    check_harm(&counts, &simulated);
    assert_eq!(compared.gaps, 0, "a killed agent loses nothing that it spooled");
    let least = u64::from(KILLS) * SPOOLED;
    assert!(compared.reports as u64 >= least, "{least} at least: {compared:?}");
    Ok(())
}

/// The test proves nothing unless all of this happened.
fn check_harm(counts: &ProxyCounts, simulated: &[SimulatedAgent]) {
    assert_eq!(counts.dropped_responses, counts.responses / 3, "{counts:?}");
    assert!(counts.late_requests >= 5 && counts.resets >= 5 && counts.stalls >= 2, "{counts:?}");
    assert!(counts.late_answered >= 1, "a request arrived after its repeat: {counts:?}");
    for agent in simulated {
        println!("{} reports, {:?}", agent.records.len(), agent.counts);
        assert!(agent.counts.duplicates > 0, "nothing was repeated: {:?}", agent.counts);
        assert!(agent.counts.lost > 0, "{:?}", agent.counts);
        assert_eq!(agent.counts.rejected, 0, "{:?}", agent.counts);
    }
}
