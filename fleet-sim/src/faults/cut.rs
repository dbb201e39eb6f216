//! The network between agents and servers, and servers and database, swallows everything for longer than
//! an agent waits for an answer; nobody is told.

use super::{Arena, Done, REQUEST_TIMEOUT};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let time = REQUEST_TIMEOUT + arena.scale.broken;
        let network = arena.network()?;
        network.cut()?;
        tokio::time::sleep(time).await;
        network.heal()?;
        arena.progress(&format!("{} s without a network", time.as_secs())).await
    })
}
