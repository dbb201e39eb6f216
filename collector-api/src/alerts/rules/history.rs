//! The dry run: what a rule would have found in the samples that are stored, by the same steps.
//!
//! Bounded by time, rows and answers; what was left out is said.

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::{self, Ready};
use super::metric;
use crate::store::rules::Rule;
use crate::store::rules::observations::Span;
use crate::store::rules::round::{JudgedHost, Phases, Turn};
use crate::store::{Store, StoreError};

/// Longest it may take.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Most rows read.
const MAX_ROWS: usize = 3_000_000;
/// Samples of one host that are read at once.
const PIECE: time::Duration = time::Duration::hours(6);
/// Most reports in a piece: one a second.
const MAX_TICKS: usize = 21_600;

/// What a dry run found.
#[derive(Debug, Default)]
pub struct History {
    /// Hosts that the rule means.
    pub hosts: usize,
    /// Those that were judged from begin to end.
    pub judged: usize,
    /// Reports judged.
    pub reports: usize,
    /// Alerts that would have begun or ended, host by host, in the order of time.
    pub turns: Vec<Turn>,
}

/// Judges `hosts` by `rule` from `from` (not itself) to `to`.
pub async fn judge(
    store: &Store,
    rule: &Rule,
    hosts: &[JudgedHost],
    (from, to): (OffsetDateTime, OffsetDateTime),
) -> Result<History, StoreError> {
    let begun = Instant::now();
    let mut history = History::default();
    let Some(ready) = Ready::new(rule) else { return Ok(history) };
    let rules = [ready];
    let sources = metric::sources(std::slice::from_ref(rule));
    let hosts: Vec<&JudgedHost> =
        hosts.iter().filter(|host| rules[0].means_host(&host.labels)).collect();
    history.hosts = hosts.len();
    let mut rows = 0;
    for host in hosts {
        let (mut phases, mut lost, mut after) = (Phases::new(), None, from);
        while after < to {
            if begun.elapsed() > MAX_TIME || rows > MAX_ROWS {
                return Ok(history);
            }
            let end = (after + PIECE).min(to);
            let span = Span { host_id: host.host_id, after, to: end };
            let observed = store.observe(span, &sources, MAX_TICKS).await?;
            rows += observed.count;
            let ticks = observed.ticks.get(&host.host_id).map_or(0, Vec::len);
            history.reports += ticks;
            let turns = judge::host(&rules, host, (&mut phases, &mut lost), &observed);
            history.turns.extend(turns);
            after = match observed.ticks.get(&host.host_id).and_then(|ticks| ticks.last()) {
                Some(last) if ticks >= MAX_TICKS => last.sampled_at,
                _ => end,
            };
        }
        history.judged += 1;
    }
    Ok(history)
}

/// Alerts as an operator reads them: each begin with its end.
pub fn alerts(turns: &[Turn]) -> Vec<(&Turn, Option<&Turn>)> {
    let mut alerts: Vec<(&Turn, Option<&Turn>)> = Vec::new();
    let mut open: HashMap<(Uuid, &str), usize> = HashMap::new();
    for turn in turns {
        let key = (turn.host_id, turn.object.as_str());
        if turn.fires {
            open.insert(key, alerts.len());
            alerts.push((turn, None));
        } else if let Some(alert) = open.remove(&key).and_then(|at| alerts.get_mut(at)) {
            alert.1 = Some(turn);
        }
    }
    alerts
}
