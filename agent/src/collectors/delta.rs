//! Differences of counters: what is a number, what is a wrap, and what is unknown.

use crate::metrics::COUNTER_ANOMALIES;

/// `now − before`; `None` without a baseline, or if the counter fell (counted as an anomaly): it
/// was reset, and what came before the reset is unknown.
pub fn delta(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    let (before, now) = (before?, now?);
    let difference = now.checked_sub(before);
    if difference.is_none() {
        COUNTER_ANOMALIES.add(1);
    }
    difference
}

/// The same for a counter that the kernel may keep in 32 bits. A fall from the upper half to the
/// lower half of 32 bits is a wrap; any other fall is a reset.
pub fn delta_32(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    const HALF: u64 = 1 << 31;
    const WHOLE: u64 = 1 << 32;
    match (before, now) {
        (Some(before), Some(now))
            if now < before && (HALF..WHOLE).contains(&before) && now < HALF =>
        {
            Some(now + WHOLE - before)
        }
        _ => delta(before, now),
    }
}

/// The same for a counter that the kernel keeps in an `unsigned long`.
pub fn delta_word(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    if cfg!(target_pointer_width = "32") { delta_32(before, now) } else { delta(before, now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_stays_unknown() {
        assert_eq!(delta(None, Some(5)), None);
        assert_eq!(delta(Some(5), None), None);
        assert_eq!(delta(Some(5), Some(5)), Some(0));
    }

    #[test]
    fn a_fall_is_unknown_and_counted() {
        let before = COUNTER_ANOMALIES.get();
        assert_eq!(delta(Some(7), Some(5)), None);
        assert!(COUNTER_ANOMALIES.get() > before);
    }

    #[test]
    fn a_32_bit_counter_wraps() {
        let top = u64::from(u32::MAX);
        assert_eq!(delta_32(Some(top), Some(0)), Some(1));
        assert_eq!(delta_32(Some(top - 9), Some(10)), Some(20));
        assert_eq!(delta_32(Some(1000), Some(10)), None, "a reset, not a wrap");
        assert_eq!(delta_32(Some(top + 5), Some(10)), None, "a 64-bit counter does not wrap at 32");
        assert_eq!(delta_32(Some(10), Some(1 << 40)), Some((1 << 40) - 10));
    }
}
