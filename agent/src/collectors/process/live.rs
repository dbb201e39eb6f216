//! What is remembered of each live instance between two ticks, and the differences of its counters.

use std::time::Duration;

use shared_model::{InstanceId, ProcessSample};
use uuid::Uuid;

use super::dictionary::Entry;
use super::ended::Cpu;
use super::files::{Kept, Reading};
use crate::metrics::PROCESS_ANOMALIES;
use crate::procfs::pid::{Io, Stat};

/// The kernel's units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    /// `sysconf(_SC_CLK_TCK)`: start times.
    pub(super) ticks_per_second: u64,
    /// What CPU is counted in: clock ticks where `/proc` says it, else µs.
    pub(super) cpu_per_second: u64,
    /// `sysconf(_SC_PAGESIZE)`.
    pub(super) page_bytes: u64,
}

impl Units {
    /// CPU in µs.
    pub(super) fn microseconds(self, ticks: u64) -> u64 {
        u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(self.cpu_per_second))
            .unwrap_or(u64::MAX)
    }

    /// Clock ticks in ns.
    pub(super) fn nanoseconds(self, ticks: u64) -> u64 {
        ticks.saturating_mul(1_000_000_000 / self.ticks_per_second.max(1))
    }

    /// Whole units of CPU of a time.
    pub(super) fn ticks(self, time: Duration) -> u64 {
        u64::try_from(time.as_micros() * u128::from(self.cpu_per_second) / 1_000_000)
            .unwrap_or(u64::MAX)
    }
}

/// What a source tells that `/proc` does not, or not cheaply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Exact CPU time, in the unit of the reading's CPU; its user and system part are sampled by the timer.
    pub(super) runtime: u64,
    pub(super) swapped_pages: Option<u64>,
    pub(super) run_queue_delay_us: u64,
    pub(super) switches_voluntary: u64,
    pub(super) switches_involuntary: u64,
    pub(super) descriptors: Option<u32>,
    pub(super) user_id: u32,
}

/// Counters since the birth of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    cpu: Cpu,
    /// Of descendants that were waited for.
    reaped: Cpu,
    faults_minor: u64,
    faults_major: u64,
    io: Option<Io>,
    waited: Option<Waited>,
}

/// Counters that `/proc` has no sum of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waited {
    run_queue_delay_us: u64,
    switches_voluntary: u64,
    switches_involuntary: u64,
}

impl Totals {
    /// Those of a process at its birth.
    pub(super) const BIRTH: Self = Self {
        cpu: Cpu { user_ticks: 0, system_ticks: 0 },
        reaped: Cpu { user_ticks: 0, system_ticks: 0 },
        faults_minor: 0,
        faults_major: 0,
        io: Some(Io { read_bytes: 0, write_bytes: 0, cancelled_write_bytes: 0 }),
        waited: Some(Waited {
            run_queue_delay_us: 0,
            switches_voluntary: 0,
            switches_involuntary: 0,
        }),
    };

    fn of(reading: &Reading<'_>, before: Option<&Self>) -> Self {
        let stat = &reading.stat;
        let sampled = Cpu { user_ticks: stat.user_ticks, system_ticks: stat.system_ticks };
        let counted = reading.counted.as_ref();
        let before = before.map_or_else(Cpu::default, |before| before.cpu);
        Self {
            cpu: counted.map_or(sampled, |counted| sampled.scaled(counted.runtime, before)),
            reaped: Cpu {
                user_ticks: stat.children_user_ticks,
                system_ticks: stat.children_system_ticks,
            },
            faults_minor: reading.stat.faults_minor,
            faults_major: reading.stat.faults_major,
            io: reading.io,
            waited: counted.map(|counted| Waited {
                run_queue_delay_us: counted.run_queue_delay_us,
                switches_voluntary: counted.switches_voluntary,
                switches_involuntary: counted.switches_involuntary,
            }),
        }
    }

    /// The higher of each: what fell for a moment is not counted twice when it is back.
    fn at_least(self, before: &Self) -> Self {
        let io = |now: Io, before: Io| Io {
            read_bytes: now.read_bytes.max(before.read_bytes),
            write_bytes: now.write_bytes.max(before.write_bytes),
            cancelled_write_bytes: now.cancelled_write_bytes.max(before.cancelled_write_bytes),
        };
        let waited = |now: Waited, before: Waited| Waited {
            run_queue_delay_us: now.run_queue_delay_us.max(before.run_queue_delay_us),
            switches_voluntary: now.switches_voluntary.max(before.switches_voluntary),
            switches_involuntary: now.switches_involuntary.max(before.switches_involuntary),
        };
        Self {
            cpu: self.cpu.at_least(before.cpu),
            reaped: self.reaped.at_least(before.reaped),
            faults_minor: self.faults_minor.max(before.faults_minor),
            faults_major: self.faults_major.max(before.faults_major),
            io: self.io.map(|now| before.io.map_or(now, |before| io(now, before))),
            waited: self.waited.map(|now| before.waited.map_or(now, |before| waited(now, before))),
        }
    }
}

/// One live instance.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: InstanceId,
    pub(super) start_ticks: u64,
    pub(super) parent_pid: u32,
    pub(super) comm: Box<[u8]>,
    pub(super) is_kernel_thread: bool,
    /// See [`Stat::image`].
    image: (u64, u64),
    /// `None` before the first reading that later ones are measured against.
    totals: Option<Totals>,
    /// By how much what it waited for grew at the last reading; nothing while unknown.
    pub(super) reaped: Cpu,
    pub(super) files: Option<Kept>,
    /// `VmSwap`, and when it was read.
    pub(super) swap: Option<(u64, Duration)>,
    /// The walk that saw it last.
    pub(super) seen: u64,
    /// Its exit was told already.
    pub(super) has_ended: bool,
    pub(super) entry: Entry,
}

impl Live {
    /// First seen now. `totals` is what its next sample is measured against: [`Totals::BIRTH`] if it was
    /// born after the walk before, `None` if it was there and its past is unknown.
    pub(super) fn new(boot_id: Uuid, pid: u32, stat: &Stat<'_>, totals: Option<Totals>) -> Self {
        Self {
            id: InstanceId::of(boot_id, pid, stat.start_ticks),
            start_ticks: stat.start_ticks,
            parent_pid: stat.parent_pid,
            comm: stat.comm.into(),
            is_kernel_thread: stat.is_kernel_thread,
            image: stat.image,
            totals,
            reaped: Cpu::default(),
            files: None,
            swap: None,
            seen: 0,
            has_ended: false,
            entry: Entry::default(),
        }
    }

    /// Takes over a reading and makes its sample. A changed image or name means that it runs another
    /// program, or may: it is described again. (What a kernel worker works on is no name.)
    pub(super) fn update(&mut self, reading: &Reading<'_>, units: Units) -> ProcessSample {
        let stat = &reading.stat;
        // Zombies lose their image and their arguments; what they were is still true.
        let executed = !stat.is_dead() && self.image != stat.image;
        let renamed = !stat.is_dead() && !self.is_kernel_thread && *self.comm != *stat.comm;
        if executed || renamed {
            self.image = stat.image;
            self.comm = stat.comm.into();
        }
        match (executed, renamed) {
            (true, _) => self.entry.outdate(),
            (false, true) => self.entry.rename(),
            (false, false) => {}
        }
        self.parent_pid = stat.parent_pid;
        let mut totals = Totals::of(reading, self.totals.as_ref());
        // `/proc` instead of the iterator for once counts in clock ticks, and may be behind.
        if reading.counted.is_none()
            && let Some(before) = self.totals.as_ref().filter(|before| before.waited.is_some())
        {
            totals = totals.at_least(before);
        }
        let sample = sample(self.id, reading, &totals, self.totals.as_ref(), units);
        self.reaped = self.totals.as_ref().map_or_else(Cpu::default, |before| Cpu {
            user_ticks: growth(before.reaped.user_ticks, totals.reaped.user_ticks),
            system_ticks: growth(before.reaped.system_ticks, totals.reaped.system_ticks),
        });
        // What cannot be read for once leaves the interval unknown, and the next one too.
        self.totals = Some(self.totals.as_ref().map_or(totals, |before| totals.at_least(before)));
        sample
    }

    /// What it had read and written when it was seen last; `None`: unknown.
    pub(super) fn io(&self) -> Option<Io> {
        self.totals.as_ref()?.io
    }

    /// What it had used when it was seen last.
    pub(super) fn cpu(&self) -> Cpu {
        self.totals.as_ref().map_or_else(Cpu::default, |totals| totals.cpu)
    }

    /// What it and all it waited for had used when it was seen last.
    pub(super) fn used(&self) -> Cpu {
        self.totals.as_ref().map_or_else(Cpu::default, |totals| totals.cpu.plus(totals.reaped))
    }
}

fn sample(
    instance_id: InstanceId,
    reading: &Reading<'_>,
    now: &Totals,
    before: Option<&Totals>,
    units: Units,
) -> ProcessSample {
    let microseconds = |ticks| units.microseconds(ticks);
    let counter = |of: fn(&Totals) -> u64| before.map(|before| growth(of(before), of(now)));
    let io = |of: fn(&Io) -> u64| {
        let (before, now) = (before?.io?, now.io?);
        Some(growth(of(&before), of(&now)))
    };
    let waited = |of: fn(&Waited) -> u64| {
        let (before, now) = (before?.waited?, now.waited?);
        Some(growth(of(&before), of(&now)))
    };
    let counted = reading.counted.as_ref();
    let written = io(|io| io.write_bytes);
    let cancelled = io(|io| io.cancelled_write_bytes);
    ProcessSample {
        instance_id,
        process_count: 1,
        cpu_user_us: counter(|totals| totals.cpu.user_ticks).map(microseconds),
        cpu_system_us: counter(|totals| totals.cpu.system_ticks).map(microseconds),
        memory_usage_bytes: reading
            .resident_pages
            .map(|pages| pages.saturating_mul(units.page_bytes)),
        memory_swap_bytes: counted
            .and_then(|counted| counted.swapped_pages)
            .map(|pages| pages.saturating_mul(units.page_bytes)),
        disk_read_bytes: io(|io| io.read_bytes),
        disk_write_bytes: written
            .zip(cancelled)
            .map(|(written, cancelled)| written.saturating_sub(cancelled)),
        run_queue_delay_us: waited(|waited| waited.run_queue_delay_us),
        thread_count: Some(reading.stat.thread_count),
        file_descriptor_count: counted.and_then(|counted| counted.descriptors),
        context_switches_voluntary: waited(|waited| waited.switches_voluntary),
        context_switches_involuntary: waited(|waited| waited.switches_involuntary),
        paging_faults_minor: counter(|totals| totals.faults_minor),
        paging_faults_major: counter(|totals| totals.faults_major),
        ..ProcessSample::default()
    }
}

/// `now − before`. The kernel promises that these never fall; where one does, 0, and the fall is counted.
fn growth(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or_else(|| {
        PROCESS_ANOMALIES.add(1);
        0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::pid::parse_stat;

    const UNITS: Units = Units { ticks_per_second: 100, cpu_per_second: 100, page_bytes: 4096 };

    fn stat(comm: &str, state: char, times: (u64, u64), image: u64) -> String {
        let (user, system) = times;
        format!(
            "7 ({comm}) {state} 1 7 7 0 -1 0 5 0 1 0 {user} {system} 0 0 20 0 2 0 90 0 0 0 {image} 0 9\n"
        )
    }

    fn reading(stat: &str, io: Option<Io>) -> Reading<'_> {
        let stat = parse_stat(stat.as_bytes()).unwrap();
        Reading { stat, resident_pages: Some(3), io, counted: None }
    }

    fn live(stat: &str, totals: Option<Totals>) -> Live {
        Live::new(Uuid::nil(), 7, &parse_stat(stat.as_bytes()).unwrap(), totals)
    }

    #[test]
    fn a_baseline_knows_gauges_only() {
        let text = stat("a", 'S', (100, 50), 1);
        let io = Some(Io { read_bytes: 1, write_bytes: 2, cancelled_write_bytes: 0 });
        let mut live = live(&text, None);
        let sample = live.update(&reading(&text, io), UNITS);
        assert_eq!((sample.memory_usage_bytes, sample.thread_count), (Some(3 * 4096), Some(2)));
        assert_eq!((sample.cpu_user_us, sample.disk_read_bytes), (None, None));

        let text = stat("a", 'S', (150, 51), 1);
        let io = Some(Io { read_bytes: 11, write_bytes: 102, cancelled_write_bytes: 40 });
        let sample = live.update(&reading(&text, io), UNITS);
        assert_eq!((sample.cpu_user_us, sample.cpu_system_us), (Some(500_000), Some(10_000)));
        assert_eq!((sample.disk_read_bytes, sample.disk_write_bytes), (Some(10), Some(60)));
        assert_eq!((sample.paging_faults_minor, sample.paging_faults_major), (Some(0), Some(0)));
    }

    #[test]
    fn one_born_in_the_interval_counts_from_its_birth() {
        let text = stat("a", 'S', (100, 50), 1);
        let sample = live(&text, Some(Totals::BIRTH)).update(&reading(&text, None), UNITS);
        assert_eq!((sample.cpu_user_us, sample.paging_faults_minor), (Some(1_000_000), Some(5)));
        assert_eq!(sample.disk_read_bytes, None, "unreadable is unknown, not 0");
    }

    #[test]
    fn a_fall_is_zero_and_counted() {
        let (high, low) = (stat("a", 'S', (100, 50), 1), stat("a", 'S', (99, 51), 1));
        let mut live = live(&high, Some(Totals::BIRTH));
        live.update(&reading(&high, None), UNITS);
        let anomalies = PROCESS_ANOMALIES.get();
        let sample = live.update(&reading(&low, None), UNITS);
        assert_eq!((sample.cpu_user_us, sample.cpu_system_us), (Some(0), Some(10_000)));
        assert!(PROCESS_ANOMALIES.get() > anomalies);
        let gone = Some(Io { write_bytes: 5, cancelled_write_bytes: 9, ..Io::default() });
        live.update(&reading(&low, Some(Io::default())), UNITS);
        let sample = live.update(&reading(&low, gone), UNITS);
        assert_eq!(sample.disk_write_bytes, Some(0), "more cancelled than written");
    }
}
