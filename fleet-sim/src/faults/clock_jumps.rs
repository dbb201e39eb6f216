//! The clock of an agent's host jumps an hour ahead and back, and an hour back and ahead, while it runs; as the agent
//! sees it ([`crate::faketime`]). Its reports carry the servers' time all the while: none is refused.

use anyhow::{Context as _, ensure};

use super::real::{Real, options};
use super::{Done, Scale, Verdict};
use crate::agent::AgentOptions;
use crate::faketime::FakeClock;

/// Reports taken by each clock.
const REPORTS: u64 = 4;

pub(super) fn run(scale: Scale) -> Done<'static, Verdict> {
    Box::pin(async move {
        let clock = FakeClock::create()?;
        let environment = clock.environment()?;
        let jumping = AgentOptions { environment, ..options("jumping".into()) };
        let mut real = Real::start("clock-jumps", vec![jumping]).await?;
        for _ in 0..scale.repeats {
            for (offset, what) in [
                (3600, "a jump an hour ahead"),
                (0, "a jump back to the true time"),
                (-3600, "a jump an hour back"),
                (0, "a jump ahead to the true time"),
            ] {
                clock.set(offset)?;
                real.progress(what, REPORTS).await?;
                let said: Option<i64> =
                    sqlx::query_scalar("select clock_offset_ms from heartbeats")
                        .fetch_one(&mut real.connection)
                        .await
                        .context("ask what the agent adds")?;
                let seconds = said.unwrap_or(0) / 1000;
                ensure!((seconds + offset).abs() <= 2, "after {what} it adds {seconds} s");
            }
        }
        let verdict = real.finish().await?;
        ensure!(verdict.checked.rejected == 0, "a clock was believed: {verdict:?}");
        ensure!(verdict.totals["gaps"] == 0, "reports were lost: {verdict:?}");
        Ok(verdict)
    })
}
