//! What a simulated host looks like, and when it samples.

use std::time::Duration;

use shared_model::Timestamp;

use crate::random::Random;

/// Reports of [`Plan::past`] lie in the past, so that none is ahead of the server's clock.
const AGE: Duration = Duration::from_hours(1);

/// All that decides what a host reports. The same plan makes the same reports, whenever it is asked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of everything random.
    pub seed: u64,
    /// True time of sequence 0.
    pub started_at: Timestamp,
    /// What the host looks like.
    pub shape: Shape,
    /// How far its clock is off, milliseconds.
    pub clock_offset_ms: i64,
    /// Its clock is off by this much more for a while.
    pub clock_jump: Option<ClockJump>,
}

/// A clock set wrongly, and later set right.
#[derive(Clone, Copy, Debug)]
pub struct ClockJump {
    /// First sequence sampled by the wrong clock.
    pub first_sequence: u64,
    /// Last one.
    pub sequence: u64,
    /// How wrong.
    pub offset_ms: i64,
}

/// What a host looks like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Processes kept per report, the residual not counted.
    pub processes: u32,
    /// Processes the host runs.
    pub processes_total: u32,
    /// Between two reports.
    pub interval_ms: u32,
    /// A process is replaced by a new one this often, in reports.
    pub churn: u64,
    /// The host restarts this often, in reports; 0: never.
    pub restart_every: u64,
    /// Distinct command lines of the fleet; 0: seven short ones per slot.
    pub command_lines: u64,
}

impl Shape {
    /// A dozen processes once a second, with much churn: quick to make and to compare.
    pub const SMALL: Self = Self {
        processes: 12,
        processes_total: 40,
        interval_ms: 1000,
        churn: 5,
        restart_every: 0,
        command_lines: 0,
    };
    /// An ordinary server: 40 kept of 300 processes, every 30 s.
    pub const HOST: Self = Self {
        processes: 40,
        processes_total: 300,
        interval_ms: 30_000,
        churn: 240,
        restart_every: 20_000,
        command_lines: 100_000,
    };
}

impl Plan {
    /// Small reports, one second apart, from an hour before `now` on.
    pub fn past(seed: u64, now: Timestamp) -> Self {
        Self::from(seed, now - AGE, Shape::SMALL)
    }

    /// Reports from `started_at` on.
    pub fn from(seed: u64, started_at: Timestamp, shape: Shape) -> Self {
        let started_at = started_at.replace_nanosecond(0).unwrap_or(started_at);
        Self { seed, started_at, shape, clock_offset_ms: 0, clock_jump: None }
    }

    pub(super) fn sampled_at(&self, sequence: u64, random: &mut Random) -> Timestamp {
        let interval = u64::from(self.shape.interval_ms);
        let jump = self.clock_jump.filter(|jump| jump.holds(sequence));
        let offset = self.clock_offset_ms + jump.map_or(0, |jump| jump.offset_ms);
        // Microseconds in the time show what a database that rounds them would do.
        let jitter = Duration::from_micros(random.below(interval.min(1000) * 900));
        self.started_at
            + Duration::from_millis(interval * sequence)
            + jitter
            + time::Duration::milliseconds(offset)
    }
}

impl ClockJump {
    /// Whether this report is sampled by the wrong clock.
    pub fn holds(&self, sequence: u64) -> bool {
        (self.first_sequence..=self.sequence).contains(&sequence)
    }
}

/// Per cent of full load: quiet at four in the morning, busy at four in the afternoon.
pub(super) fn daily_load(at: Timestamp) -> u64 {
    let hours = at.hour().abs_diff(4);
    10 + u64::from(hours.min(24 - hours)) * 7
}

/// 50 to 2,000 bytes, the longer the rarer, like classpaths among daemons.
pub(super) fn command_line(number: u64) -> String {
    let mut random = Random::new(number);
    let share = random.below(1000);
    let length = 50 + 1950 * share * share * share / 1_000_000_000;
    let mut line = format!("/usr/lib/service-{number}/bin/run --instance={number}");
    while (line.len() as u64) < length {
        let option = random.below(1000);
        let argument = format!(" --option-{option}=/srv/data/{number}/{option}");
        line.push_str(&argument);
    }
    line.truncate(usize::try_from(length).unwrap_or(50));
    line
}
