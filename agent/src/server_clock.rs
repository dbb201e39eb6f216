//! What time it is, by the servers, on a host whose own clock is wrong.
//!
//! Every answer of a server about the stream carries its time. The agent remembers it together with
//! `CLOCK_BOOTTIME`, which nobody can set and which goes on while the host is suspended; so it knows the
//! time from then on, whatever happens to the wall clock. A wall clock that is further from it than
//! [`TOLERANCE`] (and a thousandth of the time since the last answer: clocks drift) is not believed:
//! reports are stamped with the servers' time, and say by how much.
//!
//! Limits: until the first answer after its start an agent has only the wall clock, so a host that
//! starts with a wrong one stamps its first reports with it, and the server refuses those. An answer that took
//! longer than [`MAX_ROUND_TRIP`] says too little about now and is passed over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shared_model::Timestamp;

/// A wall clock this close to the servers' is believed.
pub const TOLERANCE: Duration = Duration::from_mins(1);
/// Answers that took longer are not learned from.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
/// Part of the time since the last answer by which either clock may have drifted meanwhile.
const DRIFT: u32 = 1000;

/// See the module; cheap to clone, shared by whoever asks and whoever is answered.
#[derive(Clone, Debug, Default)]
pub struct ServerClock(Arc<Mutex<Option<Anchor>>>);

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    server: Timestamp,
    since_boot: Duration,
}

/// `CLOCK_BOOTTIME` now.
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

impl ServerClock {
    /// A server's time in the answer to what was `asked` then and `answered` now, both since boot.
    pub fn learn(&self, server: Timestamp, asked: Duration, answered: Duration) {
        if answered.saturating_sub(asked) <= MAX_ROUND_TRIP {
            let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *anchor = Some(Anchor { server, since_boot: answered });
        }
    }

    /// What is to be added to the wall clock that says `wall`, `since_boot` after boot; zero: it is
    /// believed.
    pub fn offset(&self, wall: Timestamp, since_boot: Duration) -> time::Duration {
        let anchor = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(anchor) = anchor else { return time::Duration::ZERO };
        let elapsed = since_boot.saturating_sub(anchor.since_boot);
        let offset = anchor.server + elapsed - wall;
        if offset.unsigned_abs() > TOLERANCE + elapsed / DRIFT {
            offset
        } else {
            time::Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Duration = Duration::from_secs(1_000);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    #[test]
    fn a_clock_that_is_nearly_right_is_believed() {
        let clock = ServerClock::default();
        assert!(clock.offset(at(5), BOOT).is_zero(), "nothing is known");
        clock.learn(at(1_000_000), BOOT, BOOT);
        for wall in [999_940, 1_000_000, 1_000_060] {
            assert!(clock.offset(at(wall), BOOT).is_zero(), "{wall}");
        }
        assert_eq!(clock.offset(at(999_939), BOOT), time::Duration::seconds(61));
        assert_eq!(clock.offset(at(1_000_061), BOOT), time::Duration::seconds(-61));
    }

    #[test]
    fn time_goes_on_while_the_wall_clock_is_set_and_set_right_again() {
        let clock = ServerClock::default();
        clock.learn(at(1_000_000), BOOT, BOOT);
        let later = BOOT + Duration::from_hours(1);
        let ten_years = 315_360_000;
        for jump in [ten_years, -ten_years] {
            let offset = clock.offset(at(1_003_600 + jump), later);
            assert_eq!(offset, time::Duration::seconds(-jump));
        }
        assert!(clock.offset(at(1_003_600), later).is_zero(), "it was set right");
    }

    #[test]
    fn old_knowledge_contradicts_only_what_is_far_off() {
        let clock = ServerClock::default();
        clock.learn(at(0), BOOT, BOOT);
        let month = 30 * 86_400_i64;
        let later = BOOT + Duration::from_secs(month.unsigned_abs());
        assert!(clock.offset(at(month + 2_600), later).is_zero(), "drift, not a wrong clock");
        assert!(!clock.offset(at(month + 2_700), later).is_zero());
    }

    #[test]
    fn an_answer_that_took_long_teaches_nothing() {
        let clock = ServerClock::default();
        clock.learn(at(1_000_000), BOOT, BOOT + Duration::from_secs(11));
        assert!(clock.offset(at(5), BOOT).is_zero());
    }
}
