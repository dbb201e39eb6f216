//! What a server does next about a rollout: a function of what is known, without a database or a clock.
//!
//! | step | who is told of the release |
//! |---|---|
//! | canary | the few hosts of lowest bucket that the selector means |
//! | 1, 10, 50, 100 % | also those whose bucket is below that share |
//! | done | also those that come later and run an older one |
//!
//! Only hosts that are there, update themselves and are not pinned are told; never more than `max_in_flight` at once
//! without an outcome. The next step begins when everybody of this one was told, nine of ten of them are there and run the
//! release, and the step was looked at for the soak. A host that leaves meanwhile (stops and says so, is decommissioned,
//! switched off or pinned) is no part of it any more, and begins anew when it is back.
//!
//! Three hosts that it did not work on, one of twenty, or one of at most five halt it for good. One that is merely not
//! heard of counts as such after a while, as long as the servers themselves watch: their own outage is nobody's fault.
//! Limits: what was halted is not resumed, another rollout is made; nobody is told to go back.

use sha2::{Digest as _, Sha256};
use shared_model::UpdateState;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::store::rollouts::{
    Decision, Outcome, Rollout, RolloutHost, RolloutState, Settled, Started,
};

/// How long a host is silent before it is lost.
const LOST_AFTER: Duration = Duration::minutes(15);
/// How long a host fails: until then it may try again by itself.
const FAILED_AFTER: Duration = Duration::minutes(15);
/// When a host that says nothing is wrong, and is not there either, is given up: its place is another's.
const OVERDUE_AFTER: Duration = Duration::hours(2);
/// So many hosts it did not work on halt it.
const MAX_BAD: usize = 3;
/// Or more than one of so many, if as many were started.
const BAD_OF: usize = 20;
/// Or one, if no more were started.
const FEW: usize = 5;
/// Buckets of one percent.
const BUCKETS: u32 = 10_000;

/// Where a host stands in the order of a rollout: another one in each.
pub fn bucket(host_id: Uuid, rollout_id: Uuid) -> u32 {
    let digest = Sha256::new().chain_update(host_id).chain_update(rollout_id).finalize();
    digest.first_chunk().map_or(0, |first| u32::from_be_bytes(*first) % BUCKETS)
}

/// What to do. `watched`: the servers know which hosts are silent.
pub fn decide(
    rollout: &Rollout,
    hosts: &[RolloutHost],
    watched: bool,
    now: OffsetDateTime,
) -> Decision {
    let mut decision = Decision {
        start: Vec::new(),
        withdraw: Vec::new(),
        settle: Vec::new(),
        state: rollout.state,
        percent: rollout.percent,
        reason: rollout.reason.clone(),
    };
    let tally = Tally::take(rollout, hosts, (watched, now), &mut decision);
    match rollout.state {
        RolloutState::Halted | RolloutState::Cancelled => return decision,
        RolloutState::Done => decision.reason = None,
        RolloutState::Canary | RolloutState::Rolling | RolloutState::Paused => {
            if let Some(reason) = tally.harm() {
                (decision.state, decision.reason) = (RolloutState::Halted, Some(reason));
                return decision;
            }
            if rollout.state == RolloutState::Paused {
                decision.reason = None;
                return decision;
            }
            if due(rollout, rollout.percent, hosts, &tally, now).is_empty() {
                step(rollout, &tally, (watched, now), &mut decision);
            }
        }
    }
    let mut due = due(rollout, decision.percent, hosts, &tally, now);
    let room = rollout.max_in_flight.saturating_sub(tally.under_way);
    if decision.state != RolloutState::Done && due.len() > room {
        decision.reason = Some(format!(
            "{} hosts are to start, {} are under way, at most {} may be",
            due.len() - room,
            tally.under_way + room,
            rollout.max_in_flight
        ));
    }
    due.truncate(room);
    decision.start = due;
    decision
}

/// Takes the next step, or says what it waits for.
fn step(
    rollout: &Rollout,
    tally: &Tally,
    (watched, now): (bool, OffsetDateTime),
    decision: &mut Decision,
) {
    decision.reason = tally.waits_for(rollout, watched, now);
    if decision.reason.is_some() {
        return;
    }
    (decision.state, decision.percent) = match rollout.percent {
        0 => (RolloutState::Rolling, 1),
        1 => (RolloutState::Rolling, 10),
        10 => (RolloutState::Rolling, 50),
        50 => (RolloutState::Rolling, 100),
        _ => (RolloutState::Done, 100),
    };
}

/// Hosts to be told at `percent`, the lowest bucket first.
fn due(
    rollout: &Rollout,
    percent: i16,
    hosts: &[RolloutHost],
    tally: &Tally,
    now: OffsetDateTime,
) -> Vec<Uuid> {
    let share = u32::from(percent.unsigned_abs()) * (BUCKETS / 100);
    let mut due: Vec<(u32, Uuid)> = hosts
        .iter()
        .filter(|host| may_start(rollout, host, now))
        .map(|host| (bucket(host.host_id, rollout.rollout_id), host))
        .filter(|(bucket, host)| if percent == 0 { host.is_selected } else { *bucket < share })
        .map(|(bucket, host)| (bucket, host.host_id))
        .collect();
    due.sort_unstable();
    if percent == 0 {
        due.truncate(rollout.canary_count.saturating_sub(tally.canaries));
    }
    due.into_iter().map(|(_, host_id)| host_id).collect()
}

fn may_start(rollout: &Rollout, host: &RolloutHost, now: OffsetDateTime) -> bool {
    let target = rollout.target_seq;
    // An agent never tries again what it went back from.
    let tried = host.state == Some(UpdateState::RolledBack) && host.tried_seq == Some(target);
    // Who runs a newer one than what everybody has was given it by a later decision.
    let wants = if rollout.state == RolloutState::Done {
        host.installed_seq.is_none_or(|installed| installed < target)
    } else {
        host.installed_seq != Some(target)
    };
    host.started.is_none() && wants && !tried && takes_part(host) && is_present(host, now)
}

/// Whether the rollout decides for the host.
fn takes_part(host: &RolloutHost) -> bool {
    let updates = host.state.is_some_and(|state| state != UpdateState::Off);
    updates && !host.is_gone && !host.is_pinned
}

fn is_present(host: &RolloutHost, now: OffsetDateTime) -> bool {
    host.deadline_at.is_some_and(|deadline| deadline > now)
}

fn is_on_target(rollout: &Rollout, host: &RolloutHost) -> bool {
    host.installed_seq == Some(rollout.target_seq)
        && matches!(host.state, Some(UpdateState::Confirmed | UpdateState::Idle))
}

/// What became of it on a host that was started, by what is known now; none: nothing yet.
fn outcome(
    rollout: &Rollout,
    host: &RolloutHost,
    started: Started,
    (watched, now): (bool, OffsetDateTime),
) -> Option<(Outcome, Option<String>)> {
    let tried = host.tried_seq == Some(rollout.target_seq);
    match host.state {
        _ if is_on_target(rollout, host) => return Some((Outcome::Confirmed, None)),
        Some(UpdateState::RolledBack) if tried => {
            return Some((Outcome::RolledBack, host.reason.clone()));
        }
        _ if !takes_part(host) => return None,
        Some(UpdateState::Failed)
            if tried && host.changed_at.is_some_and(|at| at <= now - FAILED_AFTER) =>
        {
            return Some((Outcome::Failed, host.reason.clone()));
        }
        _ => {}
    }
    let silent = host.deadline_at.is_none_or(|deadline| deadline <= now - LOST_AFTER);
    if watched && silent && started.at <= now - LOST_AFTER {
        return Some((Outcome::Lost, None));
    }
    let hours = OVERDUE_AFTER.whole_hours();
    (started.at <= now - OVERDUE_AFTER)
        .then(|| (Outcome::Failed, Some(format!("not installed {hours} h after it was told"))))
}

/// The hosts that were started, counted.
#[derive(Debug, Default)]
struct Tally {
    started: usize,
    canaries: usize,
    under_way: usize,
    bad: [usize; 3],
    /// Of those that are still a part of it.
    part: usize,
    present: usize,
    on_target: usize,
}

impl Tally {
    /// Counts, and puts down what is settled.
    fn take(
        rollout: &Rollout,
        hosts: &[RolloutHost],
        at: (bool, OffsetDateTime),
        decision: &mut Decision,
    ) -> Self {
        let mut tally = Self::default();
        for host in hosts {
            let Some(started) = host.started else { continue };
            let is = match (started.outcome, outcome(rollout, host, started, at)) {
                // What only seemed so, because nothing better was known, turns out to be otherwise.
                (None, Some(new)) => Some(new),
                (Some(Outcome::Lost | Outcome::Failed), Some((new, reason)))
                    if matches!(new, Outcome::Confirmed | Outcome::RolledBack) =>
                {
                    Some((new, reason))
                }
                (None, None) if !takes_part(host) => {
                    decision.withdraw.push(host.host_id);
                    continue;
                }
                _ => None,
            };
            let known = is.as_ref().map(|(outcome, _)| *outcome).or(started.outcome);
            if let Some((outcome, reason)) = is {
                decision.settle.push(Settled { host_id: host.host_id, outcome, reason });
            }
            tally.add(rollout, host, known, at.1);
        }
        tally
    }

    fn add(
        &mut self,
        rollout: &Rollout,
        host: &RolloutHost,
        outcome: Option<Outcome>,
        now: OffsetDateTime,
    ) {
        self.started += 1;
        self.canaries += usize::from(host.started.is_some_and(|started| started.is_canary));
        match outcome {
            None => self.under_way += 1,
            Some(Outcome::Confirmed) => {}
            Some(Outcome::RolledBack) => self.bad[0] += 1,
            Some(Outcome::Failed) => self.bad[1] += 1,
            Some(Outcome::Lost) => self.bad[2] += 1,
        }
        if takes_part(host) {
            self.part += 1;
            self.present += usize::from(is_present(host, now));
            self.on_target += usize::from(is_on_target(rollout, host));
        }
    }

    /// Why it must not go on.
    fn harm(&self) -> Option<String> {
        let [rolled_back, failed, lost] = self.bad;
        let bad = rolled_back + failed + lost;
        let too_many = bad >= MAX_BAD
            || self.started >= BAD_OF && bad * BAD_OF > self.started
            || self.started <= FEW && bad > 0;
        too_many.then(|| {
            format!(
                "of {} hosts that were started {rolled_back} were rolled back, {failed} failed, {lost} are lost",
                self.started
            )
        })
    }

    /// What the next step waits for.
    fn waits_for(&self, rollout: &Rollout, watched: bool, now: OffsetDateTime) -> Option<String> {
        let Self { part, present, on_target, under_way, .. } = self;
        if rollout.percent == 100 {
            return (*under_way > 0).then(|| format!("{under_way} hosts are under way"));
        }
        if *part == 0 {
            let nobody = if self.started == 0 {
                "no host is there that may be the first: one that updates itself and runs another release"
            } else {
                "none of the hosts that were started is a part of it any more"
            };
            return Some(nobody.into());
        }
        if !watched {
            return Some("no server knows at present which hosts are silent".into());
        }
        if present * 10 < part * 9 {
            return Some(format!("{present} of {part} hosts are there; nine of ten must be"));
        }
        if on_target * 10 < part * 9 {
            return Some(format!("{on_target} of {part} hosts run it; nine of ten must"));
        }
        let until = rollout.step_entered_at + rollout.soak;
        (now < until && !rollout.advance).then(|| match until.format(&Rfc3339) {
            Ok(until) => format!("it is looked at until {until}"),
            Err(_) => "it is looked at".into(),
        })
    }
}

#[cfg(test)]
#[path = "decision/tests.rs"]
mod tests;
