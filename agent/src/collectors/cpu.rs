//! `/proc/stat`: CPU time by kind, CPUs online, context switches, forks, runnable tasks.
//!
//! Guest time (fields 9 and 10) is already in user and nice time and is not added again. The sums
//! on the `cpu` line run over all *possible* CPUs, but the idle and iowait parts of a CPU come from
//! another clock once it is offline: in an interval where CPUs came or went those two are unknown.

use rustix::param::clock_ticks_per_second;

use super::delta::{delta, delta_word};
use super::{Batch, CollectError, Collector, Setup, Tick, text};
use crate::metrics::COUNTER_ANOMALIES;
use crate::procfs::{ParseError, Reader, Root};

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(Cpu {
        root: setup.root.clone(),
        reader: Reader::default(),
        before: None,
        ticks_per_second: clock_ticks_per_second(),
    })
}

struct Cpu {
    root: Root,
    reader: Reader,
    before: Option<Stat>,
    ticks_per_second: u64,
}

/// What is used of `/proc/stat`. Times in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// User, nice, system, idle, iowait, irq, softirq, steal; the last ones are absent before 2.6.11.
    pub times: [Option<u64>; 8],
    /// `cpuN` lines.
    pub cpu_count: u32,
    /// `ctxt`.
    pub context_switches: Option<u64>,
    /// `processes`.
    pub forks: Option<u64>,
    /// `procs_running`.
    pub processes_running: Option<u32>,
}

/// Reads `/proc/stat`. The error says what is missing.
pub fn parse(bytes: &[u8]) -> Result<Stat, ParseError> {
    let text = text(bytes)?;
    let mut stat = Stat::default();
    let mut total_seen = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        let first = words.clone().next();
        match key {
            "cpu" => {
                for (time, word) in stat.times.iter_mut().zip(words) {
                    *time = Some(word.parse().map_err(|_| ParseError("cpu"))?);
                }
                total_seen = stat.times[3].is_some();
            }
            "ctxt" => stat.context_switches = first.and_then(|word| word.parse().ok()),
            "processes" => stat.forks = first.and_then(|word| word.parse().ok()),
            "procs_running" => stat.processes_running = first.and_then(|word| word.parse().ok()),
            _ if key.starts_with("cpu") => stat.cpu_count += 1,
            _ => {}
        }
    }
    if total_seen { Ok(stat) } else { Err(ParseError("cpu")) }
}

impl Collector for Cpu {
    fn collect(&mut self, _tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("stat");
        let now = parse(self.reader.read(&path)?).map_err(|error| error.of(&path))?;
        self.fill(now, batch);
        self.before = Some(now);
        Ok(())
    }
}

impl Cpu {
    fn fill(&self, now: Stat, batch: &mut Batch) {
        let host = &mut batch.host;
        host.cpu_count = Some(now.cpu_count).filter(|count| *count > 0);
        host.processes_running = now.processes_running;
        let Some(before) = self.before else { return };
        let same_cpus = before.cpu_count == now.cpu_count;
        let time = |field: usize| delta(before.times[field], now.times[field]);
        let micros =
            |ticks: Option<u64>| ticks.map(|t| t.saturating_mul(1_000_000) / self.ticks_per_second);
        host.cpu_user_us = micros(sum([time(0), time(1)]));
        host.cpu_system_us = micros(sum([time(2), time(5), time(6)]));
        host.cpu_steal_us = micros(time(7));
        if same_cpus {
            host.cpu_idle_us = micros(time(3));
            host.cpu_iowait_us = micros(iowait(before.times[4], now.times[4]));
        }
        host.context_switches = delta_word(before.context_switches, now.context_switches);
        host.forks = delta_word(before.forks, now.forks);
    }
}

/// Sum of what is known; unknown if any part is.
fn sum<const N: usize>(parts: [Option<u64>; N]) -> Option<u64> {
    parts.into_iter().sum()
}

/// proc(5): iowait is not reliable and may fall. A small fall is 0, but counted.
fn iowait(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    let (before, now) = (before?, now?);
    if now < before {
        COUNTER_ANOMALIES.add(1);
    }
    Some(now.saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(line: &str, cpus: usize) -> Stat {
        let cpus = "cpu0 1 2 3 4\n".repeat(cpus);
        parse(
            format!("cpu  {line}\n{cpus}intr 1 2\nctxt 100\nprocesses 7\nprocs_running 2\n")
                .as_bytes(),
        )
        .unwrap()
    }

    fn difference(before: Stat, now: Stat) -> shared_model::HostSample {
        let cpu = Cpu {
            root: Root::system(),
            reader: Reader::default(),
            before: Some(before),
            ticks_per_second: 100,
        };
        let mut batch = Batch::default();
        cpu.fill(now, &mut batch);
        batch.host
    }

    #[test]
    fn guests_are_counted_once() {
        let host = difference(
            stat("100 10 20 1000 5 1 2 3 40 4", 2),
            stat("150 20 30 1100 6 2 4 4 90 14", 2),
        );
        assert_eq!(
            host.cpu_user_us,
            Some(600_000),
            "user 50 + nice 10, guest 50 and 10 inside them"
        );
        assert_eq!(host.cpu_system_us, Some(130_000), "system 10 + irq 1 + softirq 2");
        assert_eq!(host.cpu_idle_us, Some(1_000_000));
        assert_eq!(host.cpu_iowait_us, Some(10_000));
        assert_eq!(host.cpu_steal_us, Some(10_000));
        assert_eq!((host.context_switches, host.forks), (Some(0), Some(0)));
        assert_eq!((host.cpu_count, host.processes_running), (Some(2), Some(2)));
    }

    #[test]
    fn falling_iowait_is_zero_and_counted() {
        let before = COUNTER_ANOMALIES.get();
        let host = difference(stat("1 1 1 10 9 1 1 0", 1), stat("2 1 1 12 7 1 1 0", 1));
        assert_eq!(host.cpu_iowait_us, Some(0));
        assert_eq!(host.cpu_user_us, Some(10_000));
        assert!(COUNTER_ANOMALIES.get() > before);
    }

    #[test]
    fn hot_plug_makes_idle_unknown() {
        let host = difference(stat("1 1 1 100 9 1 1 0", 4), stat("9 1 1 30 9 1 1 0", 2));
        assert_eq!((host.cpu_idle_us, host.cpu_iowait_us), (None, None));
        assert_eq!(host.cpu_user_us, Some(80_000));
        assert_eq!(host.cpu_count, Some(2));
    }

    #[test]
    fn any_other_fall_is_unknown() {
        let host = difference(stat("50 1 1 100 9 1 1 0", 1), stat("9 1 1 130 9 1 1 0", 1));
        assert_eq!(host.cpu_user_us, None);
        assert_eq!(host.cpu_idle_us, Some(300_000));
    }

    #[test]
    fn what_is_not_a_stat_file_says_so() {
        for bytes in [&b""[..], b"cpu", b"cpu 1 2", b"cpu a b c d", b"\xff\xfe", b"intr 1\n"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
