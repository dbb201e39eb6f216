//! Token buckets: how many may try to enrol. Strangers are counted by their network and all together;
//! whoever shows the secret of an enrolment token, by the token.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Enrollment;

/// Sources, and tokens, remembered. Beyond, those that have been quiet for long enough to be full are forgotten;
/// if none is, new sources share one bucket.
const MAX_SOURCES: usize = 4096;
/// Longest a client is told to wait.
const MAX_WAIT: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    fn refill(self, bucket: &mut Bucket, now: Instant) {
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + elapsed * self.per_second).min(self.burst);
        bucket.at = now;
    }

    fn wait(self, bucket: &Bucket) -> Duration {
        let seconds = (1.0 - bucket.left) / self.per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT)
    }
}

/// Buckets by key, full when they are first asked for.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    of: HashMap<Option<K>, Bucket>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    fn new(per_second: f64, burst: f64) -> Self {
        Self { rate: Rate { per_second, burst }, of: HashMap::new() }
    }

    /// The bucket of `key`, refilled, or how long to wait until it holds one.
    fn take(&mut self, key: K, now: Instant) -> Result<&mut Bucket, Duration> {
        let mut key = Some(key);
        if self.of.len() >= MAX_SOURCES && !self.of.contains_key(&key) {
            self.of.retain(|_, bucket| {
                self.rate.refill(bucket, now);
                bucket.left < self.rate.burst
            });
            if self.of.len() >= MAX_SOURCES {
                key = None;
            }
        }
        let full = Bucket { left: self.rate.burst, at: now };
        let bucket = self.of.entry(key).or_insert(full);
        self.rate.refill(bucket, now);
        if bucket.left < 1.0 { Err(self.rate.wait(bucket)) } else { Ok(bucket) }
    }
}

#[derive(Debug)]
struct State {
    total: Bucket,
    sources: Buckets<IpAddr>,
    tokens: Buckets<Uuid>,
}

/// Buckets of one replica.
#[derive(Debug)]
pub struct EnrollmentRates {
    total: Rate,
    state: Mutex<State>,
}

impl EnrollmentRates {
    /// Full buckets.
    pub fn new(config: &Enrollment) -> Self {
        let total = Rate { per_second: config.total_per_second, burst: config.total_burst };
        let state = State {
            total: Bucket { left: total.burst, at: Instant::now() },
            sources: Buckets::new(config.source_per_second, config.source_burst),
            tokens: Buckets::new(config.token_per_second, config.token_burst),
        };
        Self { total, state: Mutex::new(state) }
    }

    /// Takes one request of a stranger out of the bucket of its network and out of that of all
    /// strangers, or says how long to wait.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { total, sources, .. } = &mut *state;
        self.total.refill(total, now);
        let bucket = sources.take(network(address), now)?;
        if total.left < 1.0 {
            return Err(self.total.wait(total));
        }
        bucket.left -= 1.0;
        total.left -= 1.0;
        Ok(())
    }

    /// Takes one request with a token's secret out of the bucket of the token, or says how long to wait.
    pub fn take_of_token(&self, token_id: Uuid, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.take(token_id, now)?.left -= 1.0;
        Ok(())
    }
}

/// The IPv4 /24 or IPv6 /64 of an address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> EnrollmentRates {
        EnrollmentRates::new(&Enrollment {
            source_per_second: 1.0,
            source_burst: 2.0,
            total_per_second: 1.0,
            total_burst: 4.0,
            token_per_second: 1.0,
            token_burst: 2.0,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sources_and_all_are_limited_and_refill() {
        let (rates, now) = (rates(), Instant::now());
        rates.take(ip("192.0.2.1"), now).unwrap();
        rates.take(ip("192.0.2.2"), now).unwrap();
        let wait = rates.take(ip("::ffff:192.0.2.3"), now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        rates.take(ip("2001:db8::1"), now).unwrap();
        rates.take(ip("2001:db8::2"), now).unwrap();
        assert!(rates.take(ip("198.51.100.1"), now).is_err(), "all sources together");
        let (token, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..2 {
            rates.take_of_token(token, now).unwrap();
        }
        assert_eq!(rates.take_of_token(token, now), Err(Duration::from_secs(1)));
        rates.take_of_token(other, now).unwrap();
        rates.take(ip("192.0.2.1"), now + Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let (rates, now) = (rates(), Instant::now());
        for n in 0..u32::try_from(MAX_SOURCES * 2).unwrap() {
            let _wait = rates.take(IpAddr::from((n << 8).to_be_bytes()), now);
        }
        let remembered = rates.state.lock().unwrap().sources.of.len();
        assert!(remembered <= MAX_SOURCES + 1, "{remembered}");
    }
}
