//! SIGKILL of agents while they sample, spool and send, and SIGSTOP. (A simulated agent dies with a request on its way
//! in every arena: [`crate::fleet::Mishaps`].)

use rustix::process::Signal;

use super::real::{Real, options};
use super::{Done, Scale, Verdict};

/// Real agents.
const AGENTS: u64 = 2;
/// Kills of each per repeat.
const KILLS: u32 = 5;

pub(super) fn run(scale: Scale) -> Done<'static, Verdict> {
    Box::pin(async move {
        let all = (0..AGENTS).map(|number| options(format!("killed-{number}"))).collect();
        let mut real = Real::start("kill-agents", all).await?;
        for _ in 0..scale.repeats {
            for _ in 0..KILLS {
                for agent in &mut real.agents {
                    agent.kill()?;
                    agent.run()?;
                }
                real.progress("SIGKILL of agents", 2).await?;
            }
            for agent in &mut real.agents {
                agent.signal(Signal::STOP)?;
            }
            tokio::time::sleep(scale.stopped).await;
            for agent in &mut real.agents {
                agent.signal(Signal::CONT)?;
            }
            let what = format!("SIGSTOP of agents for {} s", scale.stopped.as_secs());
            real.progress(&what, 2).await?;
        }
        let verdict = real.finish().await?;
        anyhow::ensure!(verdict.totals["gaps"] == 0, "an agent lost what it spooled: {verdict:?}");
        Ok(verdict)
    })
}
