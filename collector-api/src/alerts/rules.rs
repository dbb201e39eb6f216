//! Rules over samples, on every replica: each round takes hosts that reported since they were judged,
//! judges what they reported, and writes what came of it ([`crate::store::rules::round`]).
//!
//! | what | means |
//! |---|---|
//! | no sample, or an unknown value | nothing: neither good nor bad, nothing begins and nothing ends |
//! | no sample for longer than three intervals and 15 s | what is pending begins anew; an alert stays |
//! | a process that a whole report does not hold | its numbers are 0: who crosses a threshold is kept |
//! | a mount point, device or interface missing for an hour of reports | gone, its alert is over |
//!
//! Time is that of the samples: a host that was away is judged by what it kept, and the dry run over
//! stored samples ([`history`]) says what the live rounds said.

pub mod condition;
pub mod history;
pub mod judge;
pub mod metric;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Chain;
use crate::metrics::{ALERTS_OPENED, ALERTS_RESOLVED, RULE_FAILURES, RULE_SECONDS, RULE_SHED};
use crate::store::rules::round::{Judged, Judgement};
use crate::store::{Store, StoreError};
use judge::Ready;

/// Pause while nobody reported.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let begun = Instant::now();
        match judge_round(&store).await {
            Ok(Some(judged)) => {
                metrics::histogram!(RULE_SECONDS).record(begun.elapsed().as_secs_f64());
                metrics::counter!(ALERTS_OPENED).increment(judged.opened as u64);
                metrics::counter!(ALERTS_RESOLVED).increment(judged.resolved as u64);
                metrics::counter!(RULE_SHED).increment(judged.shed as u64);
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                metrics::counter!(RULE_FAILURES).increment(1);
                tracing::warn!(error = %Chain(&error), "a round of rules failed");
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

/// One round. None: nobody reported since the last one.
pub async fn judge_round(store: &Store) -> Result<Option<Judged>, StoreError> {
    let Some(round) = store.begin_rule_round(metric::sources).await? else { return Ok(None) };
    let ready: Vec<Ready> = round.rules.iter().filter_map(Ready::new).collect();
    let mut judgement = Judgement::default();
    for host in &round.hosts {
        let mut phases = round.phases.get(&host.host_id).cloned().unwrap_or_default();
        let mut lost = host.lost_reports;
        let turns = judge::host(&ready, host, (&mut phases, &mut lost), &round.observed);
        judgement.turns.extend(turns);
        judgement.lost_reports.insert(host.host_id, lost);
        judgement.phases.insert(host.host_id, phases);
    }
    round.commit(judgement).await.map(Some)
}
