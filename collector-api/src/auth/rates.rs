//! How often an API key may ask, and change something: token buckets of one replica.
//!
//! They keep a script that runs wild from taking the reader pool and filling the audit; a page and its
//! dashboards stay far below. A session counts as its key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Most keys with a bucket; beyond, those that are full again are forgotten, then all.
const MAX_KEYS: usize = 4096;

/// Requests per second sustained, and at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Sustained.
    pub per_second: f64,
    /// At once.
    pub burst: f64,
}

/// What asks.
pub const QUESTIONS: Rate = Rate { per_second: 200.0, burst: 2000.0 };
/// What changes something.
pub const CHANGES: Rate = Rate { per_second: 20.0, burst: 1000.0 };

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The buckets.
#[derive(Debug, Default)]
pub struct OperatorRates {
    buckets: Mutex<HashMap<(Uuid, bool), Bucket>>,
}

impl OperatorRates {
    /// Takes one request of a key, or says how long to wait.
    pub fn take(&self, api_key_id: Uuid, changes: bool, now: Instant) -> Result<(), Duration> {
        let rate = if changes { CHANGES } else { QUESTIONS };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(&(api_key_id, changes)) {
            let longest = CHANGES.burst / CHANGES.per_second;
            buckets.retain(|_, bucket| (now - bucket.at).as_secs_f64() < longest);
            if buckets.len() >= MAX_KEYS {
                buckets.clear();
            }
        }
        let full = Bucket { left: rate.burst, at: now };
        let bucket = buckets.entry((api_key_id, changes)).or_insert(full);
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + elapsed * rate.per_second).min(rate.burst);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate.per_second));
        }
        bucket.left -= 1.0;
        Ok(())
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

    #[test]
    fn what_is_remembered_is_bounded() {
        let (rates, now) = (OperatorRates::default(), Instant::now());
        for number in 0..10_000 {
            assert_eq!(rates.take(Uuid::from_u128(number), false, now), Ok(()));
        }
        assert!(rates.buckets.lock().unwrap().len() <= MAX_KEYS);
    }
}
