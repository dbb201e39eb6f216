//! When the next tick is: the interval, the host's place in it, and the budget.
//!
//! Ticks fall on points of the wall clock that differ from host to host, so that a fleet started at
//! once does not report at once. The agent's own CPU and memory are averaged over some ticks; above the
//! budget the interval doubles, up to [`MAX_FACTOR`], and halves again when half of the load would fit.

use std::time::Duration;

use shared_model::Timestamp;
use uuid::Uuid;

use crate::config::BudgetConfig;

/// How much longer than configured the interval may become.
pub const MAX_FACTOR: u32 = 4;
/// Weight of the newest tick in the average: one expensive tick alone changes nothing.
const WEIGHT: f64 = 0.2;
/// Ticks between two changes: time for the average to follow the last one.
const SETTLE_TICKS: u32 = 8;

/// See the module.
#[derive(Clone, Debug)]
pub struct Pace {
    configured: Duration,
    budget: BudgetConfig,
    place: u128,
    factor: u32,
    average: Option<(f64, f64)>,
    ticks: u32,
}

/// The interval became another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The new interval.
    pub interval: Duration,
    /// Whether it became longer.
    pub longer: bool,
    /// The agent's own average at the change, in cores.
    pub cores: f64,
    /// The same, resident bytes.
    pub memory_bytes: f64,
}

impl Pace {
    /// A pace at the configured interval.
    pub fn new(configured: Duration, budget: BudgetConfig, host_id: Uuid) -> Self {
        // Host ids are random enough in every part.
        let place = host_id.as_u128();
        Self { configured, budget, place, factor: 1, average: None, ticks: 0 }
    }

    /// Another interval or budget: what was averaged under the old ones says nothing about them.
    pub fn configure(&mut self, configured: Duration, budget: &BudgetConfig) {
        if (self.configured, &self.budget) != (configured, budget) {
            (self.configured, self.budget) = (configured, budget.clone());
            (self.factor, self.average, self.ticks) = (1, None, 0);
        }
    }

    /// The interval now.
    pub fn interval(&self) -> Duration {
        self.configured * self.factor
    }

    /// Takes in what the agent used over one interval, and what it holds at its end.
    pub fn account(&mut self, cpu: Duration, memory: u64, interval: Duration) -> Option<Change> {
        if interval.is_zero() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an average of bytes need not be exact")]
        let (now, budget_bytes) =
            ((cpu.div_duration_f64(interval), memory as f64), self.budget.memory_bytes as f64);
        let mix = |average: f64, now: f64| average + WEIGHT * (now - average);
        let (cores, bytes) =
            self.average.map_or(now, |(cores, bytes)| (mix(cores, now.0), mix(bytes, now.1)));
        self.average = Some((cores, bytes));
        self.ticks += 1;
        if self.ticks < SETTLE_TICKS {
            return None;
        }
        let is_over = cores > self.budget.cpu_cores || bytes > budget_bytes;
        // Memory hardly shrinks with the interval, so it need only be within the budget again.
        let is_well_within = cores * 2.5 < self.budget.cpu_cores && bytes < budget_bytes;
        let factor = match self.factor {
            factor if is_over && factor < MAX_FACTOR => factor * 2,
            factor if factor > 1 && is_well_within => factor / 2,
            _ => return None,
        };
        let longer = factor > self.factor;
        self.factor = factor;
        self.ticks = 0;
        Some(Change { interval: self.interval(), longer, cores, memory_bytes: bytes })
    }

    /// Time from `now` to the next tick: to the host's next place on the wall clock, between a
    /// quarter and five quarters of the interval. Whatever the clock does, never longer.
    pub fn wait(&self, now: Timestamp) -> Duration {
        let interval = self.interval().as_nanos().max(1);
        let now = now.unix_timestamp_nanos().unsigned_abs();
        let since = (now + interval - self.place % interval) % interval;
        let wait = interval - since;
        let wait = if wait < interval / 4 { wait + interval } else { wait };
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Ticks that should have been in `elapsed`, the one at its end not counted.
    pub fn skipped(&self, elapsed: Duration) -> u64 {
        // Up to five quarters of an interval is what `wait` may ask for.
        let ticks = (elapsed.div_duration_f64(self.interval()) - 0.25).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a float too large for u64 saturates"
        )]
        let ticks = ticks.ceil() as u64;
        ticks.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(host: u128) -> Pace {
        let budget = BudgetConfig { cpu_cores: 0.01, memory_bytes: 64 << 20 };
        Pace::new(30 * SECOND, budget, Uuid::from_u128(host))
    }

    fn settle(pace: &mut Pace, cpu: Duration) -> Option<Change> {
        let interval = pace.interval();
        (0..SETTLE_TICKS).find_map(|_| pace.account(cpu, 1 << 20, interval))
    }

    #[test]
    fn ticks_fall_on_the_hosts_place() {
        let pace = pace(7 * 1_000_000_000);
        let at = |seconds: i64| Timestamp::from_unix_timestamp(seconds).unwrap();
        assert_eq!(pace.wait(at(20)), 17 * SECOND);
        assert_eq!(pace.wait(at(30)), 37 * SECOND, "too near: the one after");
        assert_eq!(pace.wait(at(37)), 30 * SECOND);
        assert_eq!(pace.wait(at(38)), 29 * SECOND);
    }

    #[test]
    fn no_clock_makes_it_wait_long() {
        let pace = pace(u128::MAX);
        for seconds in [i64::from(i32::MIN), -1, 0, 1, 253_402_300_799] {
            let wait = pace.wait(Timestamp::from_unix_timestamp(seconds).unwrap());
            assert!(wait >= 7 * SECOND && wait <= 38 * SECOND, "{wait:?}");
        }
    }

    #[test]
    fn another_budget_or_interval_begins_anew_and_the_same_does_not() {
        let mut pace = pace(1);
        let budget = pace.budget.clone();
        settle(&mut pace, SECOND).unwrap();
        pace.configure(30 * SECOND, &budget);
        assert_eq!(pace.interval(), 60 * SECOND, "nothing changed: it was over budget");
        pace.configure(10 * SECOND, &budget);
        assert_eq!(pace.interval(), 10 * SECOND);
        settle(&mut pace, SECOND).unwrap();
        pace.configure(10 * SECOND, &BudgetConfig { cpu_cores: 1.0, ..budget });
        assert_eq!(pace.interval(), 10 * SECOND);
        assert_eq!(settle(&mut pace, SECOND), None, "within the new budget");
    }

    #[test]
    fn the_budget_lengthens_and_shortens() {
        let mut pace = pace(1);
        assert_eq!(settle(&mut pace, SECOND / 10), None, "0.3 % is within 1 %");
        let change = settle(&mut pace, SECOND).unwrap();
        assert!(change.longer && change.interval == 60 * SECOND);
        let change = settle(&mut pace, 2 * SECOND).unwrap();
        assert!(change.longer && change.interval == 120 * SECOND);
        assert_eq!(settle(&mut pace, 4 * SECOND), None, "no longer than four times");
        let mut shorter = Vec::new();
        for _ in 0..10 {
            shorter.extend(settle(&mut pace, SECOND / 100));
        }
        assert_eq!(shorter.iter().map(|change| change.longer).collect::<Vec<_>>(), [false, false]);
        assert_eq!(pace.interval(), 30 * SECOND);
    }

    #[test]
    fn memory_has_a_budget_too() {
        let mut pace = pace(1);
        let mut hold = |bytes| {
            let interval = pace.interval();
            (0..20).find_map(|_| pace.account(SECOND / 100, bytes, interval))
        };
        assert_eq!(hold(63 << 20), None);
        let change = hold(80 << 20).unwrap();
        assert!(change.longer && change.interval == 60 * SECOND && change.cores < 0.01);
        assert!(change.memory_bytes > f64::from(64 << 20));
        assert!(!hold(20 << 20).unwrap().longer);
    }

    #[test]
    fn one_expensive_tick_changes_nothing() {
        let mut pace = pace(1);
        assert_eq!(settle(&mut pace, SECOND / 10), None);
        assert_eq!(pace.account(SECOND, 1 << 20, 30 * SECOND), None);
    }

    #[test]
    fn skipped_ticks_are_those_between() {
        let pace = pace(1);
        for (seconds, skipped) in [(2, 0), (30, 0), (37, 0), (45, 1), (60, 1), (90, 2), (300, 9)] {
            assert_eq!(pace.skipped(seconds * SECOND), skipped, "{seconds} s");
        }
    }
}
