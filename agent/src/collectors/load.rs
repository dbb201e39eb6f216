//! `/proc/loadavg` and `/proc/uptime`.

use super::{Batch, CollectError, Collector, Setup, Tick, text};
use crate::procfs::boot::parse_uptime;
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

impl Collector for Load {
    fn collect(&mut self, _tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("loadavg");
        let [one, five, fifteen] =
            parse_loadavg(self.reader.read(&path)?).map_err(|error| error.of(&path))?;
        batch.host.load_1m = Some(one);
        batch.host.load_5m = Some(five);
        batch.host.load_15m = Some(fifteen);
        let path = self.root.proc.join("uptime");
        let uptime = parse_uptime(self.reader.read(&path)?).map_err(|error| error.of(&path))?;
        batch.host.uptime_s = Some(uptime.as_secs());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads() {
        assert_eq!(parse_loadavg(b"0.20 1.18 12.12 1/80 11206\n"), Ok([0.20, 1.18, 12.12]));
    }

    #[test]
    fn what_is_neither_says_so() {
        for bytes in [&b""[..], b"1 2", b"a b c", b"NaN 1 1", b"-1 1 1", b"\xff"] {
            assert!(parse_loadavg(bytes).is_err(), "{bytes:?}");
        }
    }
}
