//! `/proc/diskstats`: one row per whole block device.
//!
//! A device is whole if `/sys/block` has it: partitions are not rows, so rows do not count twice.
//! Stacked devices (device mapper, md) are rows beside those below them; whoever sums a host's
//! rows chooses the layer. Loop and RAM devices are excluded by default.
//!
//! Columns: 14 before Linux 4.18, 18 with discards, 20 with flushes since 5.5; only the first 14
//! are used. Times are printed as 32-bit milliseconds by every kernel and wrap after 49 days of I/O.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared_model::BlockDeviceSample;
use shared_model::limits::MAX_DEVICES;

use super::delta::{delta_32, delta_word};
use super::{Batch, CollectError, Collector, Setup, Tick, read_if_supported, text};
use crate::metrics::{COUNTER_ANOMALIES, DEVICES_SHED};
use crate::procfs::{ParseError, Reader, Root};
use crate::profile::Pattern;

/// `[block_device]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Devices whose name matches one of these are not reported.
    pub exclude: Vec<Pattern>,
}

impl Default for Options {
    fn default() -> Self {
        let exclude = Pattern::try_from("^(loop|ram)[0-9]".to_owned()).into_iter().collect();
        Self { exclude }
    }
}

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(BlockDevice { root: setup.root.clone(), reader: Reader::default(), before: None })
}

struct BlockDevice {
    root: Root,
    reader: Reader,
    before: Option<(Duration, HashMap<String, Counters>)>,
}

/// Counters of one device since it appeared. A sector is 512 bytes whatever the device's is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Field 1.
    pub reads: u64,
    /// Field 3.
    pub sectors_read: u64,
    /// Field 5.
    pub writes: u64,
    /// Field 7.
    pub sectors_written: u64,
    /// Field 10, 32 bits.
    pub busy_ms: u64,
    /// Field 11, 32 bits.
    pub weighted_ms: u64,
}

/// Reads `/proc/diskstats`: partitions included, in the order of the file.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, Counters)>, ParseError> {
    let text = text(bytes)?;
    let mut devices = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // 7 columns: partitions of Linux 2.6.0 to 2.6.24.
        let [_major, _minor, name, fields @ ..] = words.as_slice() else { continue };
        if fields.len() < 11 {
            continue;
        }
        let field = |number: usize| {
            fields[number - 1].parse::<u64>().map_err(|_| ParseError("device fields"))
        };
        devices.push((
            (*name).to_owned(),
            Counters {
                reads: field(1)?,
                sectors_read: field(3)?,
                writes: field(5)?,
                sectors_written: field(7)?,
                busy_ms: field(10)?,
                weighted_ms: field(11)?,
            },
        ));
    }
    Ok(devices)
}

impl Collector for BlockDevice {
    fn collect(&mut self, tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("diskstats");
        let devices =
            parse(read_if_supported(&mut self.reader, &path)?).map_err(|error| error.of(&path))?;
        let mut now: HashMap<String, Counters> = HashMap::new();
        for (device, counters) in devices {
            if tick.settings.block_device.exclude.iter().any(|pattern| pattern.is_match(&device))
                || !self.is_whole(&device)
            {
                continue;
            }
            if now.len() == MAX_DEVICES {
                DEVICES_SHED.add(1);
                continue;
            }
            let before = self.before.as_ref().and_then(|(at, all)| {
                Some((tick.monotonic.saturating_sub(*at), all.get(&device)?))
            });
            batch.block_devices.push(sample(device.clone(), before, &counters));
            now.insert(device, counters);
        }
        if now.is_empty() {
            return Err(CollectError::NoData);
        }
        self.before = Some((tick.monotonic, now));
        Ok(())
    }
}

impl BlockDevice {
    /// A slash in a device's name (`cciss/c0d0`) is a `!` in sysfs.
    fn is_whole(&self, device: &str) -> bool {
        fs::symlink_metadata(self.root.sys.join("block").join(device.replace('/', "!"))).is_ok()
    }
}

/// One row. `before`: the baseline and the time since it.
fn sample(
    device: String,
    before: Option<(Duration, &Counters)>,
    now: &Counters,
) -> BlockDeviceSample {
    let mut row = BlockDeviceSample { device, ..BlockDeviceSample::default() };
    let Some((interval, before)) = before else { return row };
    if now.reads < before.reads || now.writes < before.writes {
        // Another device under the same name: nothing since the baseline is known.
        COUNTER_ANOMALIES.add(1);
        return row;
    }
    let sectors = |before, now| delta_word(Some(before), Some(now)).map(|n| n.saturating_mul(512));
    let share = |before, now| {
        let milliseconds = delta_32(Some(before), Some(now)).map(Duration::from_millis)?;
        (interval > Duration::ZERO).then(|| milliseconds.div_duration_f64(interval))
    };
    row.read_bytes = sectors(before.sectors_read, now.sectors_read);
    row.write_bytes = sectors(before.sectors_written, now.sectors_written);
    row.read_operations = delta_word(Some(before.reads), Some(now.reads));
    row.write_operations = delta_word(Some(before.writes), Some(now.writes));
    row.queue_length = share(before.weighted_ms, now.weighted_ms);
    // The kernel adds busy time in whole ticks: it may overshoot the interval a little.
    row.utilization_ratio = share(before.busy_ms, now.busy_ms).map(|ratio| ratio.min(1.0));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(reads: u64, sectors_read: u64, busy_ms: u64, weighted_ms: u64) -> Counters {
        Counters { reads, sectors_read, busy_ms, weighted_ms, ..Counters::default() }
    }

    #[test]
    fn every_width_of_the_file() {
        let check = |line: &str| {
            let expected = Counters {
                reads: 10,
                sectors_read: 300,
                writes: 40,
                sectors_written: 600,
                busy_ms: 90,
                weighted_ms: 100,
            };
            assert_eq!(parse(line.as_bytes()), Ok(vec![("vda".to_owned(), expected)]), "{line}");
        };
        check("   8       0 vda 10 20 300 400 40 50 600 700 0 90 100\n");
        check(" 254       0 vda 10 20 300 400 40 50 600 700 0 90 100 1 2 3 4\n");
        check(" 254       0 vda 10 20 300 400 40 50 600 700 0 90 100 1 2 3 4 5 6\n");
    }

    #[test]
    fn short_and_wrong_lines() {
        assert_eq!(parse(b"8 1 sda1 1 2 3 4\n"), Ok(vec![]));
        assert_eq!(parse(b""), Ok(vec![]));
        assert!(parse(b"8 0 sda a b c d e f g h i j k\n").is_err());
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn deltas_over_the_interval() {
        let row = sample(
            "vda".to_owned(),
            Some((Duration::from_secs(2), &counters(5, 100, 500, 1000))),
            &counters(9, 108, 1500, 7000),
        );
        assert_eq!((row.read_operations, row.read_bytes), (Some(4), Some(4096)));
        assert_eq!((row.queue_length, row.utilization_ratio), (Some(3.0), Some(0.5)));
        assert_eq!(row.write_bytes, Some(0));
    }

    #[test]
    fn times_wrap_at_32_bits_and_utilisation_stays_a_ratio() {
        let top = u64::from(u32::MAX);
        let row = sample(
            "vda".to_owned(),
            Some((Duration::from_secs(1), &counters(0, 0, top - 499, top - 99))),
            &counters(0, 0, 510, 400),
        );
        assert_eq!((row.queue_length, row.utilization_ratio), (Some(0.5), Some(1.0)));
    }

    #[test]
    fn another_device_of_the_same_name_has_no_deltas() {
        let row = sample(
            "sdb".to_owned(),
            Some((Duration::from_secs(1), &counters(900, 9000, 10, 10))),
            &counters(3, 9999, 20, 20),
        );
        assert_eq!(
            row,
            BlockDeviceSample { device: "sdb".to_owned(), ..BlockDeviceSample::default() }
        );
    }

    #[test]
    fn loops_and_ram_disks_are_excluded_by_default() {
        let exclude = Options::default().exclude;
        let excluded = |name: &str| exclude.iter().any(|pattern| pattern.is_match(name));
        assert!(excluded("loop0") && excluded("ram15"));
        assert!(!excluded("sda") && !excluded("dm-0") && !excluded("zram0"));
    }
}
