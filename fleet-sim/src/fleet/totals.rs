//! What a fleet did so far: counters that every agent's task adds to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::simulated::AnswerCounts;

/// Buckets of answer times; each is a fifth wider than the one before.
const BUCKETS: usize = 64;
/// Upper bound of the first bucket, milliseconds.
const FIRST_MS: f64 = 0.25;
const GROWTH: f64 = 1.2;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// As it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sums over all agents.
#[derive(Debug, Default)]
pub struct Totals {
    /// Reports made.
    pub produced: Counter,
    /// Reports acknowledged for the first time, or again after a rewind.
    pub acknowledged: Counter,
    /// Requests refused with 429 or 503.
    pub shed: Counter,
    /// Other problems: gaps and rejects.
    pub problems: Counter,
    /// Requests without an answer.
    pub lost: Counter,
    /// Records stored before, as the answers say.
    pub duplicates: Counter,
    /// Records acknowledged, lost by the database and sent again.
    pub refilled: Counter,
    /// Answers that asked for a pause.
    pub paced: Counter,
    /// Mishaps by kind.
    pub late: Counter,
    /// See [`super::Mishaps::duplicate`].
    pub repeated: Counter,
    /// See [`super::Mishaps::crash`].
    pub crashes: Counter,
    answered: Latencies,
}

impl Totals {
    /// Adds what one request changed.
    pub fn note(&self, elapsed: Duration, before: &AnswerCounts, after: &AnswerCounts) {
        let problems = |counts: &AnswerCounts| counts.problems.values().sum::<u64>();
        let shed = after.retry_after - before.retry_after;
        self.shed.add(shed);
        self.problems.add((problems(after) - problems(before)).saturating_sub(shed));
        self.lost.add(after.lost - before.lost);
        self.duplicates.add(after.duplicates - before.duplicates);
        self.refilled.add(after.refilled - before.refilled);
        self.paced.add(after.paced - before.paced);
        if after.successes > before.successes {
            self.answered.add(elapsed);
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} made, {} acknowledged, {} shed, {} lost",
            self.produced.get(),
            self.acknowledged.get(),
            self.shed.get(),
            self.lost.get()
        );
        if let Some(p99) = self.answered.quantile(0.99) {
            let p99 = format!(", p99 {p99:.0} ms");
            line.push_str(&p99);
        }
        line
    }

    /// Everything, for programs.
    pub fn summary(&self) -> Value {
        json!({
            "reports_made": self.produced.get(),
            "reports_acknowledged": self.acknowledged.get(),
            "requests_shed": self.shed.get(),
            "other_problems": self.problems.get(),
            "requests_lost": self.lost.get(),
            "duplicates": self.duplicates.get(),
            "refilled": self.refilled.get(),
            "paced": self.paced.get(),
            "mishaps": {
                "late": self.late.get(),
                "repeated": self.repeated.get(),
                "crashes": self.crashes.get(),
            },
            "answer_ms": {
                "p50": self.answered.quantile(0.5),
                "p99": self.answered.quantile(0.99),
                "max": self.answered.quantile(1.0),
            },
        })
    }
}

/// Times of answers, each to the upper bound of its bucket: at most 20 % too long.
#[derive(Debug)]
pub struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latencies {
    /// Adds one.
    pub fn add(&self, elapsed: Duration) {
        let mut bound = FIRST_MS;
        let mut bucket = 0;
        while elapsed.as_secs_f64() * 1000.0 > bound && bucket + 1 < BUCKETS {
            bound *= GROWTH;
            bucket += 1;
        }
        self.0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Milliseconds below which this share lies. `None`: nothing was added.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let counts: Vec<_> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let (mut seen, mut bound) = (0, FIRST_MS);
        for count in counts {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            if all > 0 && seen as f64 >= share * all as f64 {
                return Some(bound);
            }
            bound *= GROWTH;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_what_was_added() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms));
        }
        let half = latencies.quantile(0.5).unwrap();
        assert!((50.0..=60.0).contains(&half), "{half}");
        let all = latencies.quantile(1.0).unwrap();
        assert!((100.0..=120.0).contains(&all), "{all}");
    }
}
