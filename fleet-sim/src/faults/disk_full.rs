//! The database's volume runs full, stays so for a while, and is given room again.

use anyhow::{Result, ensure};

use super::{Arena, Done, Scale, Verdict};
use crate::eventually::eventually;
use crate::postgres::PostgresCluster;
use crate::volume::SmallVolume;

/// Holds a new cluster, its WAL and what a fleet stores in a few minutes.
const VOLUME_BYTES: u64 = 1 << 30;
/// How long agents may take to be refused.
const DEADLINE: std::time::Duration = std::time::Duration::from_mins(2);

pub(super) fn run(scale: Scale) -> Done<'static, Verdict> {
    Box::pin(full(scale))
}

/// Fills the volume until reports are refused, frees it, and starts the database if that had ended.
async fn full(scale: Scale) -> Result<Verdict> {
    // Dropped last: the cluster's files lie on it.
    let volume = SmallVolume::mount(VOLUME_BYTES)?;
    let cluster = PostgresCluster::start_on(volume.path()).await?;
    let mut arena = Arena::start("disk-full", cluster, None, None, scale).await?;
    for _ in 0..scale.repeats {
        volume.fill()?;
        let before = arena.fleet.totals.shed.get();
        eventually(DEADLINE, "reports are refused", async || {
            let shed = arena.fleet.totals.shed.get() - before;
            ensure!(shed >= scale.agents, "{shed} refused");
            Ok(())
        })
        .await?;
        tokio::time::sleep(scale.broken).await;
        for server in &mut arena.servers {
            server.check_alive()?;
        }
        volume.free()?;
        if !arena.cluster.is_alive() {
            arena.cluster.revive().await?;
        }
        arena.progress("a full disk of the database").await?;
    }
    arena.finish().await
}
