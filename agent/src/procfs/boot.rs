//! When the host was booted, and how long ago: `/proc/uptime` and `btime` of `/proc/stat` (proc(5)).

use std::time::Duration;

use shared_model::Timestamp;

use super::{ParseError, fields, lines, parse_u64};

/// Time since boot, first number of `/proc/uptime`: seconds with two decimals, exact in the result.
pub fn parse_uptime(bytes: &[u8]) -> Result<Duration, ParseError> {
    let parse = || {
        let text = fields(bytes).next()?;
        let point = text.iter().position(|&byte| byte == b'.')?;
        let (seconds, hundredths) = (&text[..point], &text[point + 1..]);
        let hundredths = if hundredths.len() == 2 { parse_u64(hundredths)? } else { return None };
        Some(Duration::from_secs(parse_u64(seconds)?) + Duration::from_millis(hundredths * 10))
    };
    parse().ok_or(ParseError("uptime"))
}

/// Wall-clock time of the boot: `btime` of `/proc/stat`, whole seconds.
pub fn parse_btime(bytes: &[u8]) -> Result<Timestamp, ParseError> {
    lines(bytes)
        .find_map(|line| parse_u64(line.strip_prefix(b"btime ")?))
        .and_then(|seconds| Timestamp::from_unix_timestamp(seconds.try_into().ok()?).ok())
        .ok_or(ParseError("btime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_and_boot_time() {
        assert_eq!(parse_uptime(b"12345.67 9.00\n"), Ok(Duration::from_millis(12_345_670)));
        assert_eq!(parse_uptime(b"7.01 3.20\n"), Ok(Duration::from_millis(7_010)));
        for bad in [&b""[..], b"12345", b"1.2 3.4", b".00", b"x.00 1", b"-3.10 2", b"\xff"] {
            assert_eq!(parse_uptime(bad), Err(ParseError("uptime")));
        }
        // The largest number of seconds is no reason to stop.
        assert!(parse_uptime(b"18446744073709551615.99 1").is_ok());
        assert_eq!(parse_btime(b"cpu 1\nbtime 60\n").unwrap().unix_timestamp(), 60);
        assert_eq!(parse_btime(b"cpu 1\n"), Err(ParseError("btime")));
    }
}
