//! A bad line: every tenth packet is lost in each direction, the others wait for each other.

use super::{Arena, Done};

/// For each agent: slow enough to queue, fast enough for what it sends, twice, because the database is at the other end too.
const KBIT_PER_SECOND: u64 = 200;
/// Most that a packet waits.
const LONGEST_MS: u32 = 300;

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let network = arena.network()?;
        let rate = u32::try_from(KBIT_PER_SECOND * arena.scale.agents)?;
        network.slow_down(rate, LONGEST_MS)?;
        let port = arena.listen.port().to_string();
        let lost = ["-m", "statistic", "--mode", "random", "--probability", "0.1"];
        for (chain, side) in [("INPUT", "--dport"), ("OUTPUT", "--sport")] {
            let matching = [&["-p", "tcp", side, &port][..], &lost].concat();
            network.drop_where(chain, &matching)?;
        }
        arena.progress("while every tenth packet is lost").await?;
        tokio::time::sleep(arena.scale.broken).await;
        arena.network()?.heal()?;
        arena.progress("a bad line").await
    })
}
