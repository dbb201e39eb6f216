//! Faults of replicas, and of what is in front of them.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::Arena;
use crate::haproxy::HaproxyProcess;

/// SIGKILL of each replica in turn, in the middle of ingest; the other one serves.
pub async fn kill(arena: &mut Arena) -> Result<()> {
    for index in 0..arena.servers.len() {
        arena.servers[index].kill()?;
        arena.progress(&format!("SIGKILL of replica {index}")).await?;
        arena.servers[index].restart(&arena.deployment)?;
        arena.servers[index].wait_ready().await?;
    }
    Ok(())
}

/// SIGSTOP of a replica: it holds its connections, its transaction and its locks, and says nothing.
pub async fn stop(arena: &mut Arena, time: Duration) -> Result<()> {
    arena.servers[0].signal(Signal::STOP)?;
    tokio::time::sleep(time).await;
    arena.servers[0].signal(Signal::CONT)?;
    arena.progress(&format!("SIGSTOP of a replica for {} s", time.as_secs())).await?;
    arena.servers[0].wait_ready().await
}

/// SIGKILL of the load balancer, with every connection, and a new one.
pub async fn restart_balancer(arena: &mut Arena) -> Result<()> {
    arena.balancer.kill()?;
    let doors: Vec<_> = arena.servers.iter().map(crate::server::ServerProcess::doors).collect();
    arena.balancer = HaproxyProcess::start(arena.listen, &doors).await?;
    arena.progress("a restart of the load balancer").await
}

/// Each replica is drained and replaced while the other one serves: old and new side by side.
pub async fn upgrade(arena: &mut Arena) -> Result<()> {
    for index in 0..arena.servers.len() {
        arena.servers[index].terminate().await?;
        arena.servers[index].restart(&arena.deployment)?;
        arena.servers[index].wait_ready().await?;
        arena.progress(&format!("the replacement of replica {index} under load")).await?;
    }
    Ok(())
}
