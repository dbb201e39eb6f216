//! Numbers as people read them, in few columns. Unknown is `–`.

/// What stands for a number that is not known.
pub const UNKNOWN: &str = "–";

/// Bytes, at most six columns: `17.2M`.
pub fn bytes(value: Option<u64>) -> String {
    value.map_or(UNKNOWN.to_owned(), |value| size(float(value)))
}

/// Bytes of an interval as a rate per second; nothing moved is a plain `0`.
pub fn rate(value: Option<u64>, interval_ms: u32) -> String {
    value.map_or(UNKNOWN.to_owned(), |value| {
        size(float(value) * 1000.0 / f64::from(interval_ms.max(1)))
    })
}

/// CPU of an interval in percent of one core.
pub fn percent(micros: Option<u64>, interval_ms: u32) -> String {
    micros.map_or(UNKNOWN.to_owned(), |micros| {
        format!("{:.1}", float(micros) / (f64::from(interval_ms.max(1)) * 10.0))
    })
}

/// A time in µs: `412ms`, `3.1s`, `17m`.
pub fn duration(micros: Option<u64>) -> String {
    let Some(micros) = micros else { return UNKNOWN.to_owned() };
    let seconds = float(micros) / 1e6;
    match seconds {
        _ if micros < 1000 => format!("{micros}µs"),
        _ if seconds < 1.0 => format!("{:.0}ms", seconds * 1000.0),
        _ if seconds < 100.0 => format!("{seconds:.1}s"),
        _ if seconds < 6000.0 => format!("{:.0}m", seconds / 60.0),
        _ => format!("{:.1}h", seconds / 3600.0),
    }
}

/// Any number that may be unknown.
pub fn number<T: ToString>(value: Option<T>) -> String {
    value.map_or(UNKNOWN.to_owned(), |value| value.to_string())
}

fn size(mut value: f64) -> String {
    for unit in ["", "K", "M", "G", "T"] {
        if value < 1023.5 {
            let is_whole = unit.is_empty() || value >= 99.95;
            return if is_whole {
                format!("{value:.0}{unit}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.0}P")
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_short_and_unknown_is_no_zero() {
        assert_eq!([bytes(Some(0)), bytes(Some(1536)), bytes(None)], ["0", "1.5K", "–"]);
        assert_eq!(bytes(Some(u64::MAX)), "16384P");
        assert_eq!([rate(Some(4 << 20), 2000), rate(None, 2000)], ["2.0M", "–"]);
        assert_eq!([percent(Some(1_500_000), 1000), percent(None, 1000)], ["150.0", "–"]);
        let shown = [7, 412_000, 3_100_000, 1_000_000_000, 36_000_000_000].map(Some).map(duration);
        assert_eq!(shown, ["7µs", "412ms", "3.1s", "17m", "10.0h"]);
        assert_eq!([number(Some(3)), number::<u32>(None)], ["3", "–"]);
    }
}
