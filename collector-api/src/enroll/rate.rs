//! Token buckets: how many may try to enrol. Strangers are counted by their network and all together;
//! whoever shows the secret of an enrolment token, by the token.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::buckets::{Bucket, Buckets, Rate};
use crate::config::Enrollment;

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
        let rate = |per_second, burst| Rate { per_second, burst };
        let total = rate(config.total_per_second, config.total_burst);
        let state = State {
            total: total.full(Instant::now()),
            sources: Buckets::new(rate(config.source_per_second, config.source_burst)),
            tokens: Buckets::new(rate(config.token_per_second, config.token_burst)),
        };
        Self { total, state: Mutex::new(state) }
    }

    /// Takes one request of a stranger out of the bucket of its network and out of that of all
    /// strangers, or says how long to wait.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { total, sources, .. } = &mut *state;
        let bucket = sources.of(network(address), now)?;
        self.total.refill(total, now)?;
        bucket.left -= 1.0;
        total.left -= 1.0;
        Ok(())
    }

    /// Takes one request with a token's secret out of the bucket of the token, or says how long to wait.
    pub fn take_of_token(&self, token_id: Uuid, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.take(token_id, now)
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
            machine_per_hour: 3,
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
}
