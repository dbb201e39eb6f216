//! When to ask again, and whom. Pure: time and randomness come in as arguments.

use std::time::{Duration, Instant};

/// Consecutive failures of an endpoint before the next one is tried.
const FAILURES_BEFORE_FAILOVER: u32 = 3;

/// The waits of an uplink. Fields so that tests need not wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bound of the first wait after a failure; it doubles with each.
    pub(super) first: Duration,
    /// Largest bound.
    pub(super) longest: Duration,
    /// Bound of the first wait after a refusal that a person must mend.
    pub(super) first_slow: Duration,
    /// Largest of those.
    pub(super) longest_slow: Duration,
    /// Longest `Retry-After` obeyed.
    pub(super) longest_asked: Duration,
    /// Mean time between two tries of the first endpoint while another is in use.
    pub(super) probe: Duration,
    /// How long delivery may go on after the stop.
    pub(super) drain: Duration,
    /// How long a request may take, its way there included.
    pub(super) request: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_mins(5),
            first_slow: Duration::from_secs(30),
            longest_slow: Duration::from_mins(15),
            longest_asked: Duration::from_mins(10),
            probe: Duration::from_mins(2),
            drain: Duration::from_secs(5),
            request: Duration::from_mins(2),
        }
    }
}

impl Pace {
    /// Wait after the `failures`-th failure in a row: full jitter under a doubling bound, or what
    /// the server asked for and up to half more, so that a fleet does not come back at once.
    pub(super) fn wait(&self, failures: u32, asked: Option<Duration>, unit: f64) -> Duration {
        match asked {
            Some(asked) => asked.min(self.longest_asked).mul_f64(1.0 + unit / 2.0),
            None => doubled(self.first, failures, self.longest).mul_f64(unit),
        }
    }

    /// Wait after the `failures`-th refusal that a person must mend.
    pub(super) fn wait_slowly(&self, failures: u32, unit: f64) -> Duration {
        doubled(self.first_slow, failures, self.longest_slow).mul_f64(0.5 + unit / 2.0)
    }
}

fn doubled(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(30)).min(longest)
}

/// Which endpoint is next.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// Which of them failed too often and did not answer since.
    down: Vec<bool>,
    current: usize,
    failures: u32,
    probe_at: Option<Instant>,
    probing: bool,
}

impl Endpoints {
    /// For `count` endpoints, at least one.
    pub(super) fn new(count: usize) -> Self {
        Self { down: vec![false; count], current: 0, failures: 0, probe_at: None, probing: false }
    }

    /// The endpoint of the next request: the one in use, or now and then the first.
    pub(super) fn choose(&mut self, now: Instant, probe: Duration, unit: f64) -> usize {
        self.probing = false;
        if self.current == 0 {
            self.probe_at = None;
            return 0;
        }
        match self.probe_at {
            Some(at) if now >= at => {
                self.probing = true;
                self.probe_at = Some(now + probe.mul_f64(0.5 + unit));
                0
            }
            Some(_) => self.current,
            None => {
                self.probe_at = Some(now + probe.mul_f64(0.5 + unit));
                self.current
            }
        }
    }

    /// The chosen endpoint answered.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        if self.probing {
            self.current = 0;
        }
        if self.are_all_down() {
            // What failed all of them was nearer than they: nothing is known of the others.
            self.down.fill(false);
        }
        self.down[self.current] = false;
    }

    fn are_all_down(&self) -> bool {
        self.down.iter().all(|is_down| *is_down)
    }

    /// Those that failed while another one answered, and did not answer since; without the one that is asked.
    pub(super) fn down(&self) -> impl Iterator<Item = usize> {
        let asked = if self.probing { 0 } else { self.current };
        let some = !self.are_all_down();
        let down = self.down.iter().enumerate();
        down.filter_map(move |(index, is_down)| {
            (some && *is_down && index != asked).then_some(index)
        })
    }

    /// It did not, or refused. A failed try of the first says nothing of the one in use.
    pub(super) fn failed(&mut self) {
        if self.probing {
            self.down[0] = true;
            return;
        }
        self.failures += 1;
        if self.failures >= FAILURES_BEFORE_FAILOVER {
            self.failures = 0;
            self.down[self.current] = true;
            self.current = (self.current + 1) % self.down.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_under_their_bound_and_obey_the_server() {
        let pace = Pace::default();
        let seconds = |failures| pace.wait(failures, None, 1.0).as_secs();
        assert_eq!([1, 2, 3, 9, 10, 4_000_000_000].map(seconds), [1, 2, 4, 256, 300, 300]);
        assert_eq!(pace.wait(7, None, 0.0), Duration::ZERO);
        let asked = |seconds, unit| pace.wait(9, Some(Duration::from_secs(seconds)), unit);
        assert_eq!(asked(20, 0.0), Duration::from_secs(20));
        assert_eq!(asked(20, 1.0), Duration::from_secs(30));
        assert_eq!(asked(86_400, 0.0), Duration::from_mins(10));
        assert_eq!(pace.wait_slowly(1, 1.0), Duration::from_secs(30));
        assert_eq!(pace.wait_slowly(99, 0.0), Duration::from_secs(450));
    }

    #[test]
    fn fails_over_after_three_and_probes_its_way_back() {
        let start = Instant::now();
        let minute = |n| start + Duration::from_mins(n);
        let probe = Duration::from_mins(10);
        let mut endpoints = Endpoints::new(2);
        for _ in 0..2 {
            assert_eq!(endpoints.choose(start, probe, 0.5), 0);
            endpoints.failed();
        }
        assert_eq!(endpoints.choose(start, probe, 0.5), 0);
        endpoints.succeeded();
        for _ in 0..3 {
            assert_eq!(endpoints.choose(start, probe, 0.5), 0);
            endpoints.failed();
        }
        assert_eq!(endpoints.choose(start, probe, 0.5), 1);
        endpoints.succeeded();
        assert_eq!(endpoints.down().collect::<Vec<_>>(), [0]);
        assert_eq!(endpoints.choose(minute(9), probe, 0.5), 1);
        assert_eq!(endpoints.choose(minute(10), probe, 0.5), 0, "a try of the first");
        endpoints.failed();
        assert_eq!(endpoints.choose(minute(11), probe, 0.5), 1, "back at once");
        assert_eq!(endpoints.choose(minute(20), probe, 0.5), 0);
        assert_eq!(endpoints.down().count(), 0, "of the one that is asked nothing is said");
        endpoints.succeeded();
        assert_eq!(endpoints.down().count(), 0, "it answered");
        assert_eq!(endpoints.choose(minute(20), probe, 0.5), 0);
    }
    #[test]
    fn an_outage_of_all_says_nothing_of_one() {
        let (now, probe) = (Instant::now(), Duration::from_mins(10));
        for count in [1, 2, 3] {
            let mut endpoints = Endpoints::new(count);
            for _ in 0..3 * count {
                endpoints.choose(now, probe, 0.5);
                endpoints.failed();
            }
            endpoints.choose(now, probe, 0.5);
            assert_eq!(endpoints.down().count(), 0, "{count}: nobody answered");
            endpoints.succeeded();
            assert_eq!(endpoints.down().count(), 0, "{count}: the others were not asked since");
        }
        // Found dead later, by a try of the first.
        let mut endpoints = Endpoints::new(2);
        for _ in 0..9 {
            endpoints.choose(now, probe, 0.5);
            endpoints.failed();
        }
        assert_eq!(endpoints.choose(now, probe, 0.5), 1);
        endpoints.succeeded();
        assert_eq!(endpoints.choose(now + Duration::from_mins(20), probe, 0.5), 0);
        endpoints.failed();
        assert_eq!(endpoints.choose(now + Duration::from_mins(21), probe, 0.5), 1);
        assert_eq!(endpoints.down().collect::<Vec<_>>(), [0]);
    }
}
