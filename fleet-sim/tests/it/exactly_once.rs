//! Whatever is killed, cut, repeated or late: every report is in the database once, byte for byte.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::address::free_address;
use fleet_sim::agent::AgentProcess;
use fleet_sim::eventually::eventually;
use fleet_sim::proxy::{Fault, FaultyProxy};
use fleet_sim::server::Doors;
use fleet_sim::simulated::SimulatedAgent;
use tokio::task::JoinSet;

use crate::fleet::{
    DEADLINE, Fleet, compare_all, settle, simulated, start_agent, wait_for_reports,
};

const KILLS: u32 = 20;
const SIMULATED: u64 = 3;
/// Reports stored between two kills of the server: it dies while it works.
const PROGRESS: u64 = 6;
/// Reports a simulated agent adds per turn, and at most has outstanding.
const PRODUCED: u64 = 2;
const MAX_OUTSTANDING: u64 = 50;

/// Every third response is lost after the server answered; requests arrive late or not at all.
fn plan() -> Vec<Fault> {
    use Fault::{DropResponse, LateRequest, None, Reset, Stall};
    let late = LateRequest(Duration::from_millis(150));
    let stall = Stall(Duration::from_millis(50));
    vec![
        None,
        late,
        DropResponse,
        None,
        None,
        DropResponse,
        stall,
        None,
        DropResponse,
        None,
        Reset,
        DropResponse,
    ]
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

/// Kills the agent as soon as it has spooled something, again and again.
async fn kill_agents(agent: &mut AgentProcess) -> Result<()> {
    let spool = agent.state_dir().join("spool");
    for kill in 0..KILLS {
        let before = bytes_in(&spool);
        let spooled = eventually(DEADLINE, "the agent spools a report", async || {
            agent.check_alive()?;
            let bytes = bytes_in(&spool);
            ensure!(bytes > before, "{bytes} bytes after kill {kill}");
            Ok(())
        });
        spooled.await.with_context(|| agent.log())?;
        agent.kill()?;
        agent.run()?;
    }
    Ok(())
}

/// Bytes of all files in a directory and the directories in it.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let sizes = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_through_kills_and_faults() -> Result<()> {
    let doors = Doors::free()?;
    let listen = free_address()?;
    let delay = Duration::from_millis(60);
    let proxy = FaultyProxy::start(listen, doors.agent, plan(), delay, 42).await?;
    let mut fleet = Fleet::start_behind("exactly-once", doors, format!("https://{listen}")).await?;
    let mut agent =
        start_agent(&fleet.deployment, "agent", Duration::from_millis(200), false).await?;
    let mut connection = fleet.connect().await?;
    wait_for_reports(&mut connection, &mut agent, 0).await?;

    let (stored, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut delivering = JoinSet::new();
    for simulated in simulated(&fleet.deployment, SIMULATED).await? {
        delivering.spawn(deliver(simulated, Arc::clone(&stored), Arc::clone(&stop)));
    }
    let killed = tokio::try_join!(kill_servers(&mut fleet, &stored), kill_agents(&mut agent));
    stop.store(true, Ordering::Relaxed);
    let mut simulated = Vec::new();
    while let Some(done) = delivering.join_next().await {
        simulated.push(done??);
    }
    killed?;
    proxy.set_harmful(false);
    let real = settle(&mut connection, &mut agent).await?;

    let compared = compare_all(&mut connection, &simulated, &real).await?;
    println!("{:?}\n{compared:?}", proxy.counts());
    let counts = proxy.counts();
    assert!(counts.dropped_responses >= 10, "{counts:?}");
    assert!(counts.late_requests >= 2 && counts.resets >= 1, "{counts:?}");
    let duplicates: u64 = simulated.iter().map(|agent| agent.counts.duplicates).sum();
    assert!(duplicates > 0, "no request was ever repeated after it was carried out");
    assert!(simulated.iter().all(|agent| agent.counts.rejected == 0));
    assert_eq!(compared.gaps, 0, "a killed agent loses nothing that it spooled");
    assert!(compared.reports >= usize::try_from(KILLS / 2)?, "{compared:?}");
    Ok(())
}
