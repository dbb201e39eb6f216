//! `procfleet-agent once`: two looks at this host, one report on standard output, no server.
//!
//! The first thing people try: it needs no configuration, no identity and no privileges, and says
//! what is missing without them.

pub mod table;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use shared_model::limits::MIN_INTERVAL_MS;
use shared_model::{Report, Tier, Timestamp};
use uuid::Uuid;

use crate::agent::{Agent, AgentError, Moment};
use crate::config::Config;
use crate::procfs::Root;
use crate::spool::SpoolStats;

/// However short the interval is, collectors have this long.
const LEAST_TIME: Duration = Duration::from_secs(10);

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people, cut to the width of the terminal.
    Table,
    /// The report as it would travel, one line.
    Json,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The collectors.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// Samples for `interval` and prints.
pub fn once(config: &Config, interval: Duration, format: Format) -> Result<(), OnceError> {
    let report = sample(config, interval.max(Duration::from_millis(MIN_INTERVAL_MS.into())))?;
    let text = match format {
        Format::Table => table::render(&report, width()),
        Format::Json => {
            let json = serde_json::to_string(&report).map_err(|e| OnceError::Output(e.into()))?;
            json + "\n"
        }
    };
    let written = io::stdout().lock().write_all(text.as_bytes());
    match written {
        // `once | head`: who has seen enough has not failed.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OnceError::Output(error)),
        _ => Ok(()),
    }
}

/// One report with everything described, as the first of a stream that does not exist.
pub fn sample(config: &Config, interval: Duration) -> Result<Report, AgentError> {
    let mut agent = Agent::new(Root::system(), config, Uuid::nil())?;
    let started = Instant::now();
    agent.baseline(&moment(started));
    loop {
        thread::sleep(interval.saturating_sub(started.elapsed()).max(Duration::from_millis(1)));
        if let Some(mut report) = agent.tick(&moment(started), &SpoolStats::default()) {
            report.sequence = 1;
            return Ok(report);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the loop of `once` owns the clock: everything below gets the moment passed in"
)]
fn moment(started: Instant) -> Moment {
    Moment {
        clock_offset: time::Duration::ZERO,
        sampled_at: Timestamp::now_utc(),
        monotonic: started.elapsed(),
        at_most: LEAST_TIME,
        describe_all: true,
    }
}

/// What cannot be seen from here, and what helps. `None`: nothing is missing.
pub fn missing(report: &Report) -> Option<&'static str> {
    let unprivileged = report.agent.collectors.iter().any(|run| run.tier == Tier::C);
    unprivileged.then_some(
        "Not running as root: disk I/O and open files of other users' processes are unknown (-). \
         Try: sudo procfleet-agent once",
    )
}

/// Columns to print to; unlimited where standard output is not a terminal.
fn width() -> usize {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return usize::MAX;
    }
    tcgetwinsize(&stdout).map_or(80, |size| usize::from(size.ws_col).max(40))
}

/// Reads `1s`, `500ms`, `2m` or plain seconds.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let milliseconds = match unit {
        "ms" => 1.0,
        "s" | "" => 1000.0,
        "m" => 60_000.0,
        _ => return Err(format!("unknown unit `{unit}`: use ms, s or m")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number".to_owned())?;
    let interval = Duration::try_from_secs_f64(number * milliseconds / 1000.0);
    interval
        .ok()
        .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
        .ok_or_else(|| "must lie between 100ms and 60m".to_owned())
}

const MIN_INTERVAL: Duration = Duration::from_millis(MIN_INTERVAL_MS as u64);
const MAX_INTERVAL: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(parse_interval("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_interval("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "s", "1h", "0s", "-1s", "1e9s", "99999999999999s", "1.1.1s", "é"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
