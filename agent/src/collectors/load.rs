//! `/proc/loadavg` and `/proc/uptime`.

use super::{Batch, CollectError, Collector, Setup, Tick, text};
use crate::procfs::{ParseError, Reader, Root};

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(Load { root: setup.root.clone(), reader: Reader::default() })
}

struct Load {
    root: Root,
    reader: Reader,
}

/// Reads `/proc/loadavg`: the averages over 1, 5 and 15 minutes.
pub fn parse_loadavg(bytes: &[u8]) -> Result<[f64; 3], ParseError> {
    let text = text(bytes)?;
    let mut words = text.split_ascii_whitespace();
    let mut next = || {
        let load: f64 = words.next()?.parse().ok()?;
        (load.is_finite() && load >= 0.0).then_some(load)
    };
    match (next(), next(), next()) {
        (Some(one), Some(five), Some(fifteen)) => Ok([one, five, fifteen]),
        _ => Err(ParseError("load average")),
    }
}

/// Reads `/proc/uptime`: whole seconds since boot.
pub fn parse_uptime(bytes: &[u8]) -> Result<u64, ParseError> {
    let text = text(bytes)?;
    let seconds = text.split(['.', ' ', '\n']).next().unwrap_or_default();
    seconds.parse().map_err(|_| ParseError("uptime"))
}

impl Collector for Load {
    fn collect(&mut self, _tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("loadavg");
        let [one, five, fifteen] =
            parse_loadavg(self.reader.read(&path)?).map_err(|error| error.of(&path))?;
        batch.host.load_1m = Some(one);
        batch.host.load_5m = Some(five);
        batch.host.load_15m = Some(fifteen);
        let path = self.root.proc.join("uptime");
        batch.host.uptime_s =
            Some(parse_uptime(self.reader.read(&path)?).map_err(|error| error.of(&path))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_uptime() {
        assert_eq!(parse_loadavg(b"0.20 1.18 12.12 1/80 11206\n"), Ok([0.20, 1.18, 12.12]));
        assert_eq!(parse_uptime(b"350735.47 234388.90\n"), Ok(350_735));
        assert_eq!(parse_uptime(b"7.01 3.20\n"), Ok(7));
    }

    #[test]
    fn what_is_neither_says_so() {
        for bytes in [&b""[..], b"1 2", b"a b c", b"NaN 1 1", b"-1 1 1", b"\xff"] {
            assert!(parse_loadavg(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&b""[..], b"x", b"-3.1 2", b"\xff"] {
            assert!(parse_uptime(bytes).is_err(), "{bytes:?}");
        }
    }
}
