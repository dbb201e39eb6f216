//! Brings releases of the agent to the fleet, on every replica: whom to tell next, and when to stop ([`decision`]).
//!
//! A round is one transaction under the lock of the rollout's row, so no replica is special and two that come at once
//! start nobody twice. What hosts are told is kept with each host (`host_releases`) and read by whoever answers them.

pub mod decision;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Chain;
use crate::metrics::{ROLLOUT_FAILURES, ROLLOUT_HOSTS};
use crate::store::rollouts::{Decision, Outcome, Rollout, RolloutState};
use crate::store::{Store, StoreError};

/// Between two rounds of one replica.
const PAUSE: Duration = Duration::from_secs(10);
/// What another replica looked at within this time is left alone, s.
const FRESH_S: f64 = 8.0;

/// Works until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    loop {
        if let Err(error) = round(&store, FRESH_S).await {
            metrics::counter!(ROLLOUT_FAILURES).increment(1);
            tracing::warn!(error = %Chain(&error), "a round of the rollouts failed");
        }
        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

/// Looks once at every rollout that nobody looked at for `pause_s`. How many were looked at.
pub async fn round(store: &Store, pause_s: f64) -> Result<usize, StoreError> {
    let Some(mut round) = store.begin_rollout_round(pause_s).await? else { return Ok(0) };
    let mut decided = Vec::new();
    for rollout in std::mem::take(&mut round.rollouts) {
        let hosts = round.hosts(&rollout).await?;
        let decision = decision::decide(&rollout, &hosts, round.watched, round.now);
        round.apply(&rollout, &decision).await?;
        decided.push((rollout, decision));
    }
    round.commit().await?;
    for (rollout, decision) in &decided {
        tell(rollout, decision);
    }
    Ok(decided.len())
}

/// Says what happened, after it did.
fn tell(rollout: &Rollout, decision: &Decision) {
    metrics::counter!(ROLLOUT_HOSTS, "outcome" => "started").increment(decision.start.len() as u64);
    for outcome in Outcome::ALL {
        let settled = decision.settle.iter().filter(|settled| settled.outcome == outcome).count();
        metrics::counter!(ROLLOUT_HOSTS, "outcome" => outcome.as_str()).increment(settled as u64);
    }
    let (id, release) = (rollout.rollout_id, rollout.target_seq);
    let reason = decision.reason.as_deref().unwrap_or_default();
    if (decision.state, decision.percent) == (rollout.state, rollout.percent) {
        return;
    }
    if decision.state == RolloutState::Halted {
        tracing::error!(
            rollout = %id,
            release,
            reason,
            "a rollout was halted: hosts that do not run the release keep what they have; mend it and roll out a newer one"
        );
    } else {
        let (state, percent) = (decision.state.as_str(), decision.percent);
        tracing::info!(rollout = %id, release, state, percent, "a rollout took a step");
    }
}
