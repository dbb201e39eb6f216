//! SIGKILL of the database's first process, and crash recovery.

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        arena.cluster.kill()?;
        arena.cluster.revive().await?;
        arena.progress("SIGKILL of the database").await
    })
}
