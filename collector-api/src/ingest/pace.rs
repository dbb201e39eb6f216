//! When hosts come again: the one thing that keeps a fleet with backlogs from coming all at once.
//!
//! A host that only sends what it samples has nothing more to send for many seconds and is not slowed
//! down by the pause; a host with a backlog is, and leaves its place to the others.

use std::time::Duration;

/// Share of what a replica may hold from which hosts are asked to pause.
const BUSY: f64 = 0.25;
/// Pause asked for at that share, milliseconds; grows to [`LONGEST_MS`] when all is taken.
const SHORTEST_MS: f64 = 250.0;
const LONGEST_MS: f64 = 10_000.0;
/// Bounds of `Retry-After` of what is refused, seconds. Whole seconds: that is the header's unit.
const RETRY_SECONDS: (f64, f64) = (2.0, 8.0);

/// Milliseconds until the next request of a host that was served, `load` being the share in use and
/// `unit` random in 0..1.
pub(super) fn next_send_after(load: f64, unit: f64) -> Option<u32> {
    if load < BUSY {
        return None;
    }
    let share = ((load - BUSY) / (1.0 - BUSY)).min(1.0);
    let pause = SHORTEST_MS + share * (LONGEST_MS - SHORTEST_MS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 15,000")]
    Some((pause * (0.5 + unit)) as u32)
}

/// When a refused host comes again: spread, so that they do not come together.
pub(super) fn retry_after(unit: f64) -> Duration {
    Duration::from_secs_f64((RETRY_SECONDS.0 + unit * (RETRY_SECONDS.1 - RETRY_SECONDS.0)).round())
}

/// Random in 0..1. Without randomness, the middle.
pub(super) fn random_unit() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_the_longer() {
        assert_eq!(next_send_after(0.0, 0.5), None);
        assert_eq!(next_send_after(0.24, 1.0), None);
        assert_eq!(next_send_after(0.25, 0.5), Some(250));
        assert_eq!(next_send_after(1.0, 0.5), Some(10_000));
        assert_eq!(next_send_after(7.0, 1.0), Some(15_000));
        assert_eq!(retry_after(0.0), Duration::from_secs(2));
        assert_eq!(retry_after(1.0), Duration::from_secs(8));
    }
}
