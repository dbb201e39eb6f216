//! Each replica is drained and replaced while the other one serves: old and new side by side.

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        for index in 0..arena.servers.len() {
            arena.servers[index].terminate().await?;
            arena.servers[index].restart(&arena.deployment)?;
            arena.servers[index].wait_ready().await?;
            arena.progress(&format!("the replacement of replica {index} under load")).await?;
        }
        Ok(())
    })
}
