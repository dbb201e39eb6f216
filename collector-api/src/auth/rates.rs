//! How often an API key may ask, and change something, of one replica.
//!
//! The rates keep a script that runs wild from taking the reader pool and filling the audit; a page and
//! its dashboards stay far below. A session counts as its key.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::buckets::{Buckets, Rate};

/// What asks.
pub const QUESTIONS: Rate = Rate { per_second: 200.0, burst: 2000.0 };
/// What changes something.
pub const CHANGES: Rate = Rate { per_second: 20.0, burst: 1000.0 };

/// The buckets.
#[derive(Debug)]
pub struct OperatorRates {
    questions: Mutex<Buckets<Uuid>>,
    changes: Mutex<Buckets<Uuid>>,
}

impl Default for OperatorRates {
    fn default() -> Self {
        let of = |rate| Mutex::new(Buckets::new(rate));
        Self { questions: of(QUESTIONS), changes: of(CHANGES) }
    }
}

impl OperatorRates {
    /// Takes one request of a key, or says how long to wait.
    pub fn take(&self, api_key_id: Uuid, changes: bool, now: Instant) -> Result<(), Duration> {
        let buckets = if changes { &self.changes } else { &self.questions };
        buckets.lock().unwrap_or_else(PoisonError::into_inner).take(api_key_id, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_asks_too_often_waits_and_others_do_not() {
        let (rates, now) = (OperatorRates::default(), Instant::now());
        let (wild, calm) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let taken = (0..5000).take_while(|_| rates.take(wild, true, now).is_ok()).count();
        assert_eq!(taken, 1000);
        let wait = rates.take(wild, true, now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(50));
        assert_eq!(rates.take(wild, true, now + wait), Ok(()));
        assert_eq!(rates.take(wild, false, now), Ok(()));
        assert_eq!(rates.take(calm, true, now), Ok(()));
    }
}
