//! SIGKILL of the database's first process, and crash recovery. Meanwhile every replica says that it is ready: a balancer
//! that took out all of them would answer in their place, and not know when agents should come again.

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        arena.cluster.kill()?;
        for server in &mut arena.servers {
            server.wait_ready().await?;
        }
        arena.cluster.revive().await?;
        arena.progress("SIGKILL of the database").await
    })
}
