//! Connections that only one side believes in: while nothing goes through, the load balancer dies and a new one takes
//! its place, and the agents hear of it when they speak again; then the same with the database and its servers.

use super::{Arena, Done, REQUEST_TIMEOUT};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        arena.network()?.cut()?;
        tokio::time::sleep(arena.scale.broken).await;
        arena.restart_balancer()?;
        arena.network()?.heal()?;
        arena.progress("half-open connections of agents").await?;

        let port = arena.cluster.address().port().to_string();
        let network = arena.network()?;
        network.drop_where("OUTPUT", &["-p", "tcp", "--dport", &port])?;
        network.drop_where("INPUT", &["-p", "tcp", "--sport", &port])?;
        tokio::time::sleep(REQUEST_TIMEOUT).await;
        arena.cluster.stop().await?;
        arena.cluster.start().await?;
        arena.network()?.heal()?;
        arena.progress("half-open connections to the database").await
    })
}
