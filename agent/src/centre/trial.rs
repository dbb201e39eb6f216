//! Whether what the centre told works: counted in reports that were made by it.
//!
//! Reports are delivered in the order in which they were made, so the first that was made by a candidate
//! separates what it is judged by from the backlog before it. In a new stream the count begins again.

use std::ops::RangeInclusive;

use shared_model::ProblemCode as Code;
use uuid::Uuid;

use super::Made;
use crate::uplink::news::{Delivered, MAX_REJECTS};

/// Reports that decide: so many accepted, or so many rejected and none accepted.
pub const TRIAL_REPORTS: u64 = 2;

/// One candidate's.
#[derive(Debug)]
pub struct Trial {
    /// Of the order that reports are made by.
    number: u64,
    /// The first report that was.
    first: Option<(Uuid, u64)>,
    /// The report before it was not rejected.
    was_well: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Good,
    /// The server rejects what is made by it. Why.
    Bad(String),
}

impl Trial {
    /// Of what is made by the order `number`.
    pub fn new(number: u64) -> Self {
        Self { number, first: None, was_well: true }
    }

    /// The verdict, once there is one.
    pub fn judge(&mut self, made: Option<&Made>, delivered: &Delivered) -> Option<Verdict> {
        let made = made.filter(|made| made.number == self.number)?;
        let rejected = |range: RangeInclusive<u64>| {
            let all = delivered.rejected.iter();
            all.filter(move |it| it.stream_id == made.stream_id && range.contains(&it.sequence))
        };
        let first = match self.first {
            Some((stream_id, sequence)) if stream_id == made.stream_id => sequence,
            _ => {
                let before = made.sequence.saturating_sub(1);
                self.first = Some((made.stream_id, made.sequence));
                self.was_well = rejected(before..=before).next().is_none();
                made.sequence
            }
        };
        let passed = if delivered.stream_id == made.stream_id {
            (delivered.sequence + 1).saturating_sub(first)
        } else {
            0
        };
        let rejects = rejected(first..=u64::MAX).count();
        // More than are remembered: how many were accepted is not known.
        let is_known = rejects < MAX_REJECTS;
        let accepted = if is_known { passed.saturating_sub(rejects as u64) } else { 0 };
        if accepted >= TRIAL_REPORTS {
            return Some(Verdict::Good);
        }
        // What a wrong clock does is not its fault.
        let mut blamed = rejected(first..=u64::MAX)
            .filter(|it| !matches!(it.code, Code::TimestampInFuture | Code::TimestampTooOld));
        let newest = blamed.next_back()?;
        let is_bad = blamed.count() as u64 + 1 >= TRIAL_REPORTS && accepted == 0 && self.was_well;
        is_bad.then(|| Verdict::Bad(format!("{}: {}", newest.code.as_str(), newest.detail)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::news::Reject;

    const STREAM: Uuid = Uuid::from_u128(1);

    fn made(number: u64, sequence: u64) -> Made {
        Made { number, stream_id: STREAM, sequence }
    }

    fn delivered(sequence: u64, rejected: &[u64]) -> Delivered {
        refused(sequence, rejected, Code::InvalidReport)
    }

    fn refused(sequence: u64, rejected: &[u64], code: Code) -> Delivered {
        let detail = "no".to_owned();
        let reject =
            |&at: &u64| Reject { stream_id: STREAM, sequence: at, code, detail: detail.clone() };
        Delivered { stream_id: STREAM, sequence, rejected: rejected.iter().map(reject).collect() }
    }

    #[test]
    fn a_wrong_clock_is_not_its_fault() {
        let mut trial = Trial::new(1);
        for at in 51..=53 {
            let rejected: Vec<_> = (51..=at).collect();
            let delivered = refused(at, &rejected, Code::TimestampInFuture);
            assert_eq!(trial.judge(Some(&made(1, at)), &delivered), None);
        }
    }

    #[test]
    fn two_accepted_reports_prove_it_and_the_backlog_does_not() {
        let mut trial = Trial::new(1);
        assert_eq!(trial.judge(None, &delivered(50, &[])), None);
        assert_eq!(trial.judge(Some(&made(0, 50)), &delivered(50, &[])), None);
        assert_eq!(trial.judge(Some(&made(1, 51)), &delivered(50, &[])), None);
        assert_eq!(trial.judge(Some(&made(1, 52)), &delivered(51, &[])), None);
        assert_eq!(trial.judge(Some(&made(1, 53)), &delivered(52, &[])), Some(Verdict::Good));
    }

    #[test]
    fn two_rejected_and_none_accepted_condemn_it() {
        let mut trial = Trial::new(1);
        assert_eq!(trial.judge(Some(&made(1, 51)), &delivered(51, &[51])), None);
        let verdict = trial.judge(Some(&made(1, 52)), &delivered(52, &[51, 52]));
        assert_eq!(verdict, Some(Verdict::Bad("invalid_report: no".to_owned())));
    }

    #[test]
    fn one_poisoned_report_among_others_is_not_its_fault() {
        let mut trial = Trial::new(1);
        assert_eq!(trial.judge(Some(&made(1, 51)), &delivered(51, &[])), None);
        assert_eq!(trial.judge(Some(&made(1, 53)), &delivered(52, &[52])), None);
        assert_eq!(trial.judge(Some(&made(1, 54)), &delivered(53, &[52])), Some(Verdict::Good));
    }

    #[test]
    fn a_server_that_rejected_already_before_says_nothing_of_it() {
        let mut trial = Trial::new(1);
        for at in 51..100 {
            let all: Vec<_> = (50..=at).collect();
            let rejected = &all[all.len().saturating_sub(MAX_REJECTS)..];
            assert_eq!(trial.judge(Some(&made(1, at)), &delivered(at, rejected)), None, "{at}");
        }
    }

    #[test]
    fn another_stream_begins_again() {
        let mut trial = Trial::new(1);
        assert_eq!(trial.judge(Some(&made(1, 51)), &delivered(51, &[])), None);
        let moved = Made { number: 1, stream_id: Uuid::from_u128(2), sequence: 9 };
        let of_new = |sequence| Delivered {
            stream_id: Uuid::from_u128(2),
            sequence,
            ..Delivered::default()
        };
        assert_eq!(trial.judge(Some(&moved), &delivered(52, &[])), None);
        assert_eq!(trial.judge(Some(&moved), &of_new(9)), None);
        assert_eq!(trial.judge(Some(&moved), &of_new(10)), Some(Verdict::Good));
    }
}
