//! Token buckets by key: how often whoever has a key may do something.
//!
//! Limits: at most [`MAX_KEYS`] buckets. Beyond, those that have been quiet for long enough to be full are
//! forgotten; if none is, new keys share one bucket.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Buckets remembered, the shared one included.
pub const MAX_KEYS: usize = 4096;
/// Longest anybody is told to wait.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Requests.
    pub left: f64,
    at: Instant,
}

/// Requests per second sustained, and at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Sustained.
    pub per_second: f64,
    /// At once.
    pub burst: f64,
}

impl Rate {
    /// A full bucket.
    pub fn full(self, now: Instant) -> Bucket {
        Bucket { left: self.burst, at: now }
    }

    /// Refills `bucket`. How long to wait, if it does not hold one request.
    pub fn refill(self, bucket: &mut Bucket, now: Instant) -> Result<(), Duration> {
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + elapsed * self.per_second).min(self.burst);
        bucket.at = now;
        if bucket.left >= 1.0 {
            return Ok(());
        }
        let seconds = (1.0 - bucket.left) / self.per_second;
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT))
    }
}

/// Buckets by key, full when they are first asked for.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    /// Under `None` the one that is shared.
    of: HashMap<Option<K>, Bucket>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// Of a rate.
    pub fn new(rate: Rate) -> Self {
        Self { rate, of: HashMap::new() }
    }

    /// The bucket of `key`, refilled, or how long to wait until it holds one request.
    pub fn of(&mut self, key: K, now: Instant) -> Result<&mut Bucket, Duration> {
        let (rate, mut key) = (self.rate, Some(key));
        if self.of.len() + 1 >= MAX_KEYS && !self.of.contains_key(&key) {
            self.of
                .retain(|_, bucket| rate.refill(bucket, now).is_err() || bucket.left < rate.burst);
            if self.of.len() + 1 >= MAX_KEYS {
                key = None;
            }
        }
        let bucket = self.of.entry(key).or_insert(rate.full(now));
        rate.refill(bucket, now)?;
        Ok(bucket)
    }

    /// Takes one request of `key`, or says how long to wait.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        self.of(key, now)?.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate { per_second: 1.0, burst: 2.0 });
        for key in 0..2 * MAX_KEYS {
            let _wait = buckets.take(key, now);
        }
        assert_eq!(buckets.of.len(), MAX_KEYS);
        // Those that are full again make room.
        let later = now + Duration::from_secs(2);
        assert_eq!(buckets.take(usize::MAX, later), Ok(()));
        assert_eq!(buckets.of.len(), 1);
    }
}
