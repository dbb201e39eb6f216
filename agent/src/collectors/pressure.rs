//! `/proc/pressure/{cpu,memory,io}`: pressure stall information, since Linux 4.20.
//!
//! No data where the kernel is older, built without it, or booted with `psi=0` (the files may then
//! exist and refuse to be read with `EOPNOTSUPP`, as on RHEL 8).

use super::delta::delta;
use super::{Batch, CollectError, Collector, Setup, Tick, read_if_supported, text};
use crate::procfs::{ParseError, Reader, Root};

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(Pressure { root: setup.root.clone(), reader: Reader::default(), before: None })
}

struct Pressure {
    root: Root,
    reader: Reader,
    before: Option<[Stall; 3]>,
}

/// Stall time since boot of one resource, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Of some task.
    pub some: Option<u64>,
    /// Of all tasks; the CPU's line is absent before 5.13 and means nothing after.
    pub full: Option<u64>,
}

/// Reads one file of `/proc/pressure`. The error says what is missing.
pub fn parse(bytes: &[u8]) -> Result<Stall, ParseError> {
    let text = text(bytes)?;
    let total = |kind: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some(kind)).then_some(())?;
            words.find_map(|word| word.strip_prefix("total="))?.parse().ok()
        })
    };
    let stall = Stall { some: total("some"), full: total("full") };
    if stall.some.is_some() { Ok(stall) } else { Err(ParseError("total of some")) }
}

impl Collector for Pressure {
    fn collect(&mut self, _tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let mut read_one = |resource: &str| -> Result<Stall, CollectError> {
            let path = self.root.proc.join("pressure").join(resource);
            let bytes = read_if_supported(&mut self.reader, &path)?;
            Ok(parse(bytes).map_err(|error| error.of(&path))?)
        };
        let now = [read_one("cpu")?, read_one("memory")?, read_one("io")?];
        if let Some(before) = self.before {
            let some = |resource: usize| delta(before[resource].some, now[resource].some);
            let full = |resource: usize| delta(before[resource].full, now[resource].full);
            batch.host.pressure_cpu_some_us = some(0);
            batch.host.pressure_memory_some_us = some(1);
            batch.host.pressure_memory_full_us = full(1);
            batch.host.pressure_io_some_us = some(2);
            batch.host.pressure_io_full_us = full(2);
        }
        self.before = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_and_one_line() {
        let both = b"some avg10=0.00 avg60=0.12 avg300=0.10 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=789\n";
        assert_eq!(parse(both), Ok(Stall { some: Some(123_456), full: Some(789) }));
        let one = b"some avg10=0.00 avg60=0.12 avg300=0.10 total=5\n";
        assert_eq!(parse(one), Ok(Stall { some: Some(5), full: None }));
    }

    #[test]
    fn what_is_not_a_pressure_file_says_so() {
        for bytes in [&b""[..], b"full total=3\n", b"some total=x\n", b"\xff"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
