//! SIGKILL of each replica in turn, in the middle of ingest; the other one serves.

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        for index in 0..arena.servers.len() {
            arena.servers[index].kill()?;
            arena.progress(&format!("SIGKILL of replica {index}")).await?;
            arena.servers[index].restart(&arena.deployment)?;
            arena.servers[index].wait_ready().await?;
        }
        Ok(())
    })
}
