//! SIGSTOP of the backends that write: connections are open and nothing comes back.

use rustix::process::{Signal, kill_process};

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let (time, writers) = (arena.scale.stopped, arena.writers().await?);
        for writer in &writers {
            kill_process(*writer, Signal::STOP)?;
        }
        tokio::time::sleep(time).await;
        for writer in &writers {
            kill_process(*writer, Signal::CONT)?;
        }
        arena.progress(&format!("SIGSTOP of the writers' backends for {} s", time.as_secs())).await
    })
}
