//! SIGKILL of the load balancer, with every connection, and a new one.

use super::{Arena, Done};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        arena.restart_balancer()?;
        arena.progress("a restart of the load balancer").await
    })
}
