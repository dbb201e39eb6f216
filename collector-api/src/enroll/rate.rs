//! Token buckets: how many may try to enrol.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Enrollment;

/// Sources remembered. Beyond, those that have been quiet for long enough to be full are forgotten;
/// if none is, new sources share one bucket.
const MAX_SOURCES: usize = 4096;
/// Longest a client is told to wait.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// A network that requests come from. `None`: the bucket shared when too many are remembered.
type Source = Option<IpAddr>;

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

/// Buckets of one replica.
#[derive(Debug)]
pub struct EnrollmentRates {
    source: Rate,
    total: Rate,
    buckets: Mutex<(Bucket, HashMap<Source, Bucket>)>,
}

impl EnrollmentRates {
    /// Full buckets.
    pub fn new(config: &Enrollment) -> Self {
        let total = Rate { per_second: config.total_per_second, burst: config.total_burst };
        let full = Bucket { left: total.burst, at: Instant::now() };
        Self {
            source: Rate { per_second: config.source_per_second, burst: config.source_burst },
            total,
            buckets: Mutex::new((full, HashMap::new())),
        }
    }

    /// Takes one request out of both buckets, or says how long to wait.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, sources) = &mut *buckets;
        self.total.refill(total, now);
        let mut source = Some(network(address));
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, bucket| {
                self.source.refill(bucket, now);
                bucket.left < self.source.burst
            });
            if sources.len() >= MAX_SOURCES {
                source = None;
            }
        }
        let full = Bucket { left: self.source.burst, at: now };
        let bucket = sources.entry(source).or_insert(full);
        self.source.refill(bucket, now);
        if bucket.left < 1.0 {
            return Err(self.source.wait(bucket));
        }
        if total.left < 1.0 {
            return Err(self.total.wait(total));
        }
        bucket.left -= 1.0;
        total.left -= 1.0;
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
        rates.take(ip("192.0.2.1"), now + Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let (rates, now) = (rates(), Instant::now());
        for n in 0..u32::try_from(MAX_SOURCES * 2).unwrap() {
            let _wait = rates.take(IpAddr::from((n << 8).to_be_bytes()), now);
        }
        let remembered = rates.buckets.lock().unwrap().1.len();
        assert!(remembered <= MAX_SOURCES + 1, "{remembered}");
    }
}
