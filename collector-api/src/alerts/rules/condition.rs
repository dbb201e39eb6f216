//! When a condition becomes an alert, and when that is over: one object, sample by sample.

use time::{Duration, OffsetDateTime};

use crate::store::rules::Rule;
use crate::store::rules::round::Phase;

/// An object that is missing for longer while its host reports is gone.
const GONE_AFTER: Duration = Duration::HOUR;

/// Of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Holds below the threshold, not above it.
    pub below: bool,
    /// Beyond it.
    pub threshold: f64,
    /// Gone at it or on its other side.
    pub recover_threshold: f64,
    /// Before the alert.
    pub holds_for: Duration,
    /// Before its end.
    pub calm_for: Duration,
}

/// What a sample changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The alert begins.
    Fires,
    /// The alert is over.
    Ends,
}

/// Samples further apart than this have something unknown between them.
pub fn longest_gap(interval_ms: Option<i32>) -> Duration {
    Duration::milliseconds(3 * i64::from(interval_ms.unwrap_or(30_000))) + Duration::seconds(15)
}

impl Condition {
    /// Of a stored rule.
    pub fn of(rule: &Rule) -> Self {
        Self {
            below: rule.below,
            threshold: rule.threshold,
            recover_threshold: rule.recover_threshold,
            holds_for: Duration::seconds(rule.for_s.into()),
            calm_for: Duration::seconds(rule.recover_for_s.into()),
        }
    }

    /// Whether the value is beyond the threshold.
    pub fn holds(&self, value: f64) -> bool {
        if self.below { value < self.threshold } else { value > self.threshold }
    }

    fn is_calm(&self, value: f64) -> bool {
        if self.below { value >= self.recover_threshold } else { value <= self.recover_threshold }
    }

    /// What is known after one more sample of the object, `at` the host's time; none: all is well.
    /// A sample that is not newer than the last one changes nothing.
    pub fn step(
        &self,
        phase: Option<Phase>,
        (at, interval_ms): (OffsetDateTime, Option<i32>),
        value: f64,
    ) -> (Option<Phase>, Option<Change>) {
        let fresh = Phase { began_at: at, last_at: at, firing: false, calm_since: None };
        let mut phase = match phase {
            Some(phase) if at <= phase.last_at => return (Some(phase), None),
            Some(phase) => phase,
            None if self.holds(value) => fresh,
            None => return (None, None),
        };
        let is_seamless = at - phase.last_at <= longest_gap(interval_ms);
        phase.last_at = at;
        if phase.firing {
            return self.step_firing(phase, is_seamless, value);
        }
        if !self.holds(value) {
            return (None, None);
        }
        if !is_seamless {
            phase.began_at = at;
        }
        phase.firing = at - phase.began_at >= self.holds_for;
        (Some(phase), phase.firing.then_some(Change::Fires))
    }

    fn step_firing(
        &self,
        mut phase: Phase,
        is_seamless: bool,
        value: f64,
    ) -> (Option<Phase>, Option<Change>) {
        if !self.is_calm(value) {
            phase.calm_since = None;
            return (Some(phase), None);
        }
        let since = phase.calm_since.filter(|_| is_seamless).unwrap_or(phase.last_at);
        if phase.last_at - since >= self.calm_for {
            return (None, Some(Change::Ends));
        }
        phase.calm_since = Some(since);
        (Some(phase), None)
    }
}

/// What is known of an object that a report `at` did not hold.
pub fn missing(
    phase: Phase,
    (at, interval_ms): (OffsetDateTime, Option<i32>),
) -> (Option<Phase>, Option<Change>) {
    let away = at - phase.last_at;
    match phase.firing {
        true if away > GONE_AFTER => (None, Some(Change::Ends)),
        false if away > longest_gap(interval_ms) => (None, None),
        _ => (Some(phase), None),
    }
}

#[cfg(test)]
#[path = "condition/tests.rs"]
mod tests;
