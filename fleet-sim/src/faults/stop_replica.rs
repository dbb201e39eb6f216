//! SIGSTOP of a replica: it holds its connections, its transaction and its locks, and says nothing.

use rustix::process::Signal;

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let time = arena.scale.stopped;
        arena.servers[0].signal(Signal::STOP)?;
        tokio::time::sleep(time).await;
        arena.servers[0].signal(Signal::CONT)?;
        arena.progress(&format!("SIGSTOP of a replica for {} s", time.as_secs())).await?;
        arena.servers[0].wait_ready().await
    })
}
