//! The agent of this host, ticking when told to, on one tier.

use std::time::{Duration, Instant};

use agent::agent::{Agent, Moment};
use agent::config::{CollectTier, Config};
use agent::procfs::Root;
use agent::profile::Profile;
use agent::spool::SpoolStats;
use shared_model::limits::MIN_INTERVAL_MS;
use shared_model::{ConnectionSample, InstanceId, Report, Timestamp};
use uuid::Uuid;

use crate::support::wait_for;

/// Both tiers.
pub(crate) const TIERS: [CollectTier; 2] = [CollectTier::Auto, CollectTier::Proc];

pub(crate) struct Host {
    agent: Agent,
    started: Instant,
    /// The moment of the last tick or of the baseline, as the agent was told it.
    ticked: Duration,
}

impl Host {
    /// With its baseline taken; every process is a row.
    pub(crate) fn start(tier: CollectTier) -> Self {
        Self::start_with(tier, |profile| profile.keep_all = true)
    }

    /// With its baseline taken.
    pub(crate) fn start_with(tier: CollectTier, edit: impl FnOnce(&mut Profile)) -> Self {
        let mut config = Config::default();
        config.collect.tier = tier;
        edit(&mut config.profile);
        let agent = Agent::new(Root::system(), &config, Uuid::from_u128(1)).unwrap();
        let mut host = Self { agent, started: Instant::now(), ticked: Duration::ZERO };
        let moment = host.moment();
        host.ticked = moment.monotonic;
        host.agent.baseline(&moment);
        host
    }

    fn moment(&self) -> Moment {
        Moment {
            clock_offset: time::Duration::ZERO,
            sampled_at: Timestamp::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50),
            monotonic: self.started.elapsed() + Duration::from_secs(1),
            at_most: Duration::from_mins(1),
            describe_all: false,
        }
    }

    pub(crate) fn tick(&mut self) -> Report {
        let next = self.ticked + Duration::from_millis(MIN_INTERVAL_MS.into());
        let moment = loop {
            let moment = self.moment();
            if moment.monotonic >= next {
                break moment;
            }
            std::thread::park_timeout(next.saturating_sub(moment.monotonic));
        };
        self.ticked = moment.monotonic;
        let mut report = self.agent.tick(&moment, &SpoolStats::default()).unwrap();
        report.sequence = 1;
        let process = report.agent.collectors.iter().find(|run| run.collector == "process");
        assert_eq!(process.unwrap().outcome, shared_model::CollectorOutcome::Ok, "{process:?}");
        shared_model::Record::Report(Box::new(report.clone())).validate().unwrap();
        report
    }
}

/// The first report in which `is_it` finds what it looks for, now or in one of the next ticks: the kernel tells
/// the ends of sockets and of processes a little after them.
pub(crate) fn report_with(
    host: &mut Host,
    reports: &mut Vec<Report>,
    is_it: impl Fn(&Report) -> bool,
) -> Report {
    wait_for("a report", || {
        let found = reports.iter().find(|report| is_it(report)).cloned();
        if found.is_none() {
            reports.push(host.tick());
        }
        found
    })
}

/// The rows of one instance.
pub(crate) fn connections_of(report: &Report, instance: InstanceId) -> Vec<&ConnectionSample> {
    report.connections.iter().filter(|row| row.instance_id == Some(instance)).collect()
}

/// (received, transmitted) of one instance, as its row of `processes[]` says.
pub(crate) fn traffic_of(report: &Report, instance: InstanceId) -> (Option<u64>, Option<u64>) {
    let row = report.processes.iter().find(|row| row.instance_id == instance).unwrap();
    (row.network_receive_bytes, row.network_transmit_bytes)
}
