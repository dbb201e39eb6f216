//! A fast shutdown of the database and a start.

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        arena.cluster.stop().await?;
        arena.cluster.start().await?;
        arena.progress("a restart of the database").await
    })
}
