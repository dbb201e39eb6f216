//! `/proc/net/dev` and `/sys/class/net/<name>/speed`: one row per interface of the agent's network
//! namespace.
//!
//! Every interface is a row, `lo`, bridges, bonds and veths too: traffic passes several of them, so
//! a host's total is the reader's choice of rows (usually those that have a speed), never their sum.

use std::collections::HashMap;
use std::fs;

use serde::{Deserialize, Serialize};
use shared_model::NetworkInterfaceSample;
use shared_model::limits::{MAX_COUNTER, MAX_DEVICES};

use super::delta::delta_word;
use super::{Batch, CollectError, Collector, Setup, Tick, read_if_supported, text};
use crate::metrics::{COUNTER_ANOMALIES, DEVICES_SHED};
use crate::procfs::{ParseError, Reader, Root};
use crate::profile::Pattern;

/// `[network_interface]` of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Interfaces whose name matches one of these are not reported.
    pub exclude: Vec<Pattern>,
}

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(NetworkInterface {
        root: setup.root.clone(),
        reader: Reader::default(),
        before: HashMap::new(),
    })
}

struct NetworkInterface {
    root: Root,
    reader: Reader,
    before: HashMap<String, Counters>,
}

/// Counters of one interface since it appeared, as the columns of `/proc/net/dev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes, packets, errors, drops received: columns 1 to 4.
    pub receive: [u64; 4],
    /// Bytes, packets, errors, drops transmitted: columns 9 to 12.
    pub transmit: [u64; 4],
}

/// Reads `/proc/net/dev`. The first number may be glued to the colon.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, Counters)>, ParseError> {
    let text = text(bytes)?;
    let mut interfaces = Vec::new();
    // Two lines of headings, which have no colon. An alias (`eth0:1`) has one in its name.
    for (name, columns) in text.lines().filter_map(|line| line.rsplit_once(':')) {
        let mut numbers = [0; 12];
        let mut words = columns.split_ascii_whitespace();
        for number in &mut numbers {
            let word = words.next().ok_or(ParseError("interface columns"))?;
            *number = word.parse().map_err(|_| ParseError("interface columns"))?;
        }
        let [r0, r1, r2, r3, _, _, _, _, t0, t1, t2, t3] = numbers;
        let counters = Counters { receive: [r0, r1, r2, r3], transmit: [t0, t1, t2, t3] };
        interfaces.push((name.trim().to_owned(), counters));
    }
    Ok(interfaces)
}

/// Reads `/sys/class/net/<name>/speed`, bits per second. Unknown is `-1`, or its unsigned form.
pub fn parse_speed(bytes: &[u8]) -> Option<u64> {
    let megabits: i64 = str::from_utf8(bytes).ok()?.trim().parse().ok()?;
    let known = megabits > 0 && megabits < i64::from(i32::MAX);
    known.then(|| megabits.unsigned_abs() * 1_000_000)
}

impl Collector for NetworkInterface {
    fn collect(&mut self, tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("net/dev");
        let interfaces =
            parse(read_if_supported(&mut self.reader, &path)?).map_err(|error| error.of(&path))?;
        let mut now = HashMap::new();
        for (interface, counters) in interfaces {
            if tick
                .settings
                .network_interface
                .exclude
                .iter()
                .any(|pattern| pattern.is_match(&interface))
            {
                continue;
            }
            if now.len() == MAX_DEVICES {
                DEVICES_SHED.add(1);
                continue;
            }
            let mut row = sample(interface.clone(), self.before.get(&interface), &counters);
            row.speed_bits_per_second = self.read_speed(&interface);
            batch.network_interfaces.push(row);
            now.insert(interface, counters);
        }
        self.sum_outward(&now, batch);
        self.before = now;
        if self.before.is_empty() { Err(CollectError::NoData) } else { Ok(()) }
    }
}

impl NetworkInterface {
    /// What left and entered the host: see [`shared_model::HostSample::interface_receive_bytes`].
    fn sum_outward(&self, now: &HashMap<String, Counters>, batch: &mut Batch) {
        let class = self.root.sys.join("class/net");
        let has_device = |name: &str| class.join(name).join("device").exists();
        let any_device = now.keys().any(|name| has_device(name));
        let is_outward = |name: &str| if any_device { has_device(name) } else { name != "lo" };
        let rows = batch.network_interfaces.iter().filter(|row| is_outward(&row.interface));
        let (mut receive, mut transmit) = (None, None);
        for row in rows {
            for (sum, bytes) in
                [(&mut receive, row.receive_bytes), (&mut transmit, row.transmit_bytes)]
            {
                if let Some(bytes) = bytes {
                    *sum = Some(sum.unwrap_or(0_u64).saturating_add(bytes).min(MAX_COUNTER));
                }
            }
        }
        batch.host.interface_receive_bytes = receive;
        batch.host.interface_transmit_bytes = transmit;
    }

    /// Null where the driver knows none: no file, `EINVAL` on reading, or not a speed.
    fn read_speed(&self, interface: &str) -> Option<u64> {
        let path = self.root.sys.join("class/net").join(interface).join("speed");
        parse_speed(&fs::read(path).ok()?)
    }
}

/// One row, speed not included.
fn sample(interface: String, before: Option<&Counters>, now: &Counters) -> NetworkInterfaceSample {
    let mut row = NetworkInterfaceSample { interface, ..NetworkInterfaceSample::default() };
    let Some(before) = before else { return row };
    let traffic = |counters: &Counters| {
        [counters.receive[0], counters.receive[1], counters.transmit[0], counters.transmit[1]]
    };
    let fell = traffic(before).into_iter().zip(traffic(now)).any(|(before, now)| now < before);
    if fell && cfg!(target_pointer_width = "64") {
        // Its driver was reset or it is another interface of that name: nothing is known.
        COUNTER_ANOMALIES.add(1);
        return row;
    }
    let receive =
        |column: usize| delta_word(Some(before.receive[column]), Some(now.receive[column]));
    let transmit =
        |column: usize| delta_word(Some(before.transmit[column]), Some(now.transmit[column]));
    row.receive_bytes = receive(0);
    row.receive_packets = receive(1);
    row.receive_errors = receive(2);
    row.receive_drops = receive(3);
    row.transmit_bytes = transmit(0);
    row.transmit_packets = transmit(1);
    row.transmit_errors = transmit(2);
    row.transmit_drops = transmit(3);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";

    fn read(lines: &str) -> Vec<(String, Counters)> {
        parse(format!("{HEADINGS}{lines}").as_bytes()).unwrap()
    }

    #[test]
    fn columns_glued_or_not() {
        let expected = Counters { receive: [1, 2, 3, 4], transmit: [9, 10, 11, 12] };
        let check = |line: &str, name: &str| assert_eq!(read(line), [(name.to_owned(), expected)]);
        check("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "eth0");
        check("  eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "eth0");
        check("eth0:1:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "eth0:1");
        assert_eq!(read(""), []);
    }

    #[test]
    fn what_is_not_the_file_says_so() {
        for bytes in [&b"eth0: 1 2 3\n"[..], b"eth0: a b c d e f g h i j k l\n", b"\xff:"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn unknown_speeds() {
        let check = |bytes: &[u8], expected| assert_eq!(parse_speed(bytes), expected, "{bytes:?}");
        check(b"10000\n", Some(10_000_000_000));
        check(b"-1\n", None);
        check(b"4294967295\n", None);
        check(b"0\n", None);
        check(b"", None);
    }

    #[test]
    fn a_reset_interface_has_no_deltas() {
        let before = Counters { receive: [1000, 10, 0, 0], transmit: [1000, 10, 0, 0] };
        let grown = Counters { receive: [1500, 12, 1, 2], transmit: [1001, 11, 3, 4] };
        let row = sample("eth0".to_owned(), Some(&before), &grown);
        assert_eq!(
            (row.receive_bytes, row.transmit_bytes, row.transmit_drops),
            (Some(500), Some(1), Some(4))
        );
        let reset = Counters { receive: [5, 20, 0, 0], transmit: [5, 20, 0, 0] };
        let row = sample("eth0".to_owned(), Some(&before), &reset);
        assert_eq!((row.receive_bytes, row.receive_packets), (None, None));
    }
}
