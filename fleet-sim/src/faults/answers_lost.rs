//! Requests arrive and are carried out; no answer does.

use super::{Arena, Done, REQUEST_TIMEOUT};

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let time = REQUEST_TIMEOUT + arena.scale.broken;
        let port = arena.listen.port().to_string();
        let network = arena.network()?;
        // Acknowledgements of what the agents send are small, answers are not: so requests do arrive.
        let answers = ["-p", "tcp", "--sport", &port, "-m", "length", "--length", "100:65535"];
        network.drop_where("OUTPUT", &answers)?;
        tokio::time::sleep(time).await;
        network.heal()?;
        let duplicates = arena.fleet.totals.duplicates.get();
        arena.progress(&format!("{} s without answers", time.as_secs())).await?;
        let again = arena.fleet.totals.duplicates.get() - duplicates;
        anyhow::ensure!(again > 0, "what was not answered was not carried out either");
        Ok(())
    })
}
