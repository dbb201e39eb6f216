//! Which agents of a fleet say that no server answers: about [`MESSENGERS`] of them, whatever its size.
//!
//! Nobody is left to coordinate them, so each decides for itself, by a hash of its own id, the day and the window: it speaks
//! with probability min(1, 3/N), N the hosts of the fleet as a server last said. Windows open 0, 1 h, 4 h and 24 h after
//! the outage was long enough, then every day, [`MAX_WINDOWS`] in all. That nobody speaks in a window has a probability of
//! (1 − 3/N)^N ≤ e⁻³ ≈ 5 %; in all of the first four, 6 · 10⁻⁶. What 1,000 outages of the test below gave:
//!
//! | hosts | messages in the first window: mean | most | outages without one | after four windows: without one |
//! |---|---|---|---|---|
//! | 1 to 3 | all | all | 0 | 0 |
//! | 10 | 3.1 | 8 | 2.7 % | 0 |
//! | 100 | 3.0 | 10 | 6.3 % | 0 |
//! | 1,000 | 3.0 | 10 | 4.8 % | 0 |
//! | 10,000 | 3.0 | 10 | 4.0 % | 0 |

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// How many of the fleet speak in a window, on average.
const MESSENGERS: f64 = 3.0;
/// Windows of one outage: the most messages that one agent sends before it is over.
pub(super) const MAX_WINDOWS: u32 = 12;
/// The size of a fleet that no server told.
pub(super) const UNKNOWN_FLEET: u32 = 100;

/// When a window opens, counted from the moment at which the outage was long enough.
pub(super) fn opens_after(window: u32) -> Duration {
    match window {
        0 => Duration::ZERO,
        1 => Duration::from_hours(1),
        2 => Duration::from_hours(4),
        days => Duration::from_hours(24) * (days - 2),
    }
}

/// Whether this host speaks in a window of an outage that began on `day` (since 1970).
pub(super) fn speaks(host_id: Uuid, day: u64, window: u32, hosts: u32) -> bool {
    let mut hash = Sha256::new();
    hash.update(host_id);
    hash.update(day.to_be_bytes());
    hash.update(window.to_be_bytes());
    let hash = hash.finalize();
    // 32 bits are an f64 exactly.
    let lot = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    f64::from(lot) / 2_f64.powi(32) < MESSENGERS / f64::from(hosts.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a fleet's hosts, in 1,000 outages: mean and most messages of the first window, and the shares of outages in which
    /// nobody spoke in it, and in none of the first four.
    fn tried(hosts: u32) -> (f64, usize, f64, f64) {
        const OUTAGES: u64 = 1000;
        let (mut sum, mut most, mut silent, mut mute) = (0, 0, 0_u32, 0_u32);
        let ids: Vec<Uuid> = (0..hosts).map(|n| Uuid::from_u128(u128::from(n) << 64 | 7)).collect();
        for day in 0..OUTAGES {
            let count = |window| ids.iter().filter(|id| speaks(**id, day, window, hosts)).count();
            let first = count(0);
            sum += first;
            most = most.max(first);
            silent += u32::from(first == 0);
            mute += u32::from(first == 0 && (1..4).all(|window| count(window) == 0));
        }
        let share = |count: u32| f64::from(count) / 1000.0;
        (f64::from(u32::try_from(sum).unwrap()) / 1000.0, most, share(silent), share(mute))
    }

    #[test]
    fn a_fleet_of_any_size_sends_about_three_messages() {
        for hosts in 1..=3 {
            assert_eq!(tried(hosts), (f64::from(hosts), hosts as usize, 0.0, 0.0));
        }
        for hosts in [10, 100, 1000, 10_000] {
            let (mean, most, silent, mute) = tried(hosts);
            println!("{hosts}: mean {mean}, most {most}, silent {silent}, mute {mute}");
            assert!((2.8..3.2).contains(&mean), "{hosts}: {mean}");
            assert!(most <= 14, "{hosts}: {most}");
            // (1 - 3/N)^N, and three standard deviations of 1,000 tries.
            assert!(silent <= 0.071, "{hosts}: {silent}");
            assert!(mute <= 0.001, "{hosts}: {mute}");
        }
    }

    #[test]
    fn windows_open_further_and_further_apart() {
        let hours = [0, 1, 4, 24, 48, 72].map(Duration::from_hours);
        assert_eq!([0, 1, 2, 3, 4, 5].map(opens_after), hours);
    }
}
