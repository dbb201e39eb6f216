//! One tick, one report.
//!
//! [`Agent::tick`] runs the collectors, adds what the agent knows of itself, and returns a report that
//! lacks only its position in the stream. It reads no clock: `run` (the loop with spool and
//! uplink) and `once` (one tick, no server) pass the moment in.

pub mod delivered;
mod ending;
pub mod pace;
pub mod run;
pub mod runner;
mod sampler;
pub mod start;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};
use shared_model::limits::{MAX_COLLECTORS, MAX_INTERVAL_MS, MIN_INTERVAL_MS};
use shared_model::{AgentSample, HostFacts, PROTOCOL_VERSION, Report, Timestamp, UpdateStatus};
use tokio::sync::watch;
use uuid::Uuid;

use self::runner::Runner;
use crate::bpf::{Bpf, OBJECTS};
use crate::collectors::settings::Settings;
use crate::collectors::{REGISTRY, Setup, Tick};
use crate::config::{CollectTier, Config};
use crate::procfs::{ParseError, ProcfsError, Reader, Root, fields, parse_u64};
use crate::spool::SpoolStats;
use crate::{facts, metrics};

/// Why there can be no agent on this host.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// procfs is not what it should be.
    #[error("this host has no usable /proc")]
    Procfs(#[from] ProcfsError),
    /// No thread for a collector.
    #[error("cannot start the collectors")]
    Threads(#[source] io::Error),
}

/// Samples this host.
pub struct Agent {
    facts_root: Root,
    runner: Runner,
    settings: Arc<Settings>,
    host_id: Uuid,
    boot_id: Uuid,
    facts: Option<HostFacts>,
    before: Option<Baseline>,
    update: Option<watch::Receiver<Option<UpdateStatus>>>,
}

/// What the agent itself needs of the tick before.
struct Baseline {
    monotonic: Duration,
    cpu: Duration,
}

/// When a tick is, and what the loop knows that the tick does not.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The time: by the wall clock, or by the servers where they contradict it.
    pub sampled_at: Timestamp,
    /// What of `sampled_at` is not the wall clock's; zero: nothing.
    pub clock_offset: time::Duration,
    /// Monotonic clock, from any origin.
    pub monotonic: Duration,
    /// The longest that any collector may take, whatever its own deadline.
    pub at_most: Duration,
    /// Describe everything again: the server may have missed it.
    pub describe_all: bool,
}

impl Agent {
    /// An agent of the host `root` with collectors that read nothing yet.
    pub fn new(root: Root, config: &Config, host_id: Uuid) -> Result<Self, AgentError> {
        let boot_id = read_boot_id(&root)?;
        let setup = Setup {
            root: root.clone(),
            boot_id,
            bpf: Arc::new(load_bpf(config.collect.tier)),
            titles: config.titles.clone(),
        };
        let runner = Runner::start(REGISTRY, &setup).map_err(AgentError::Threads)?;
        let settings = Arc::new(config.settings());
        // A fixture is all of its host.
        let elsewhere = config.facts_root != std::path::Path::new("/");
        let facts_root = if elsewhere { Root::at(&config.facts_root) } else { root };
        Ok(Self {
            facts_root,
            runner,
            settings,
            host_id,
            boot_id,
            facts: None,
            before: None,
            update: None,
        })
    }

    /// Says in its reports what `updates` says of the agent's own release.
    pub fn tell_updates(&mut self, updates: watch::Receiver<Option<UpdateStatus>>) {
        self.update = Some(updates);
    }

    /// Works by `settings` from the next tick on.
    pub fn use_settings(&mut self, settings: Settings) {
        self.settings = Arc::new(settings);
    }

    /// Runs every collector so that the next report has deltas.
    pub fn baseline(&mut self, moment: &Moment) {
        self.runner.run(&self.tick_of(moment), moment.at_most);
        self.before = Some(Baseline { monotonic: moment.monotonic, cpu: own_cpu() });
    }

    /// The report of the interval since the last tick or baseline, at position 0 of no stream.
    /// `None`: the interval is shorter than the protocol allows, nothing was read.
    pub fn tick(&mut self, moment: &Moment, spool: &SpoolStats) -> Option<Report> {
        let interval_ms = self.interval_ms(moment)?;
        let (batch, collectors) = self.runner.run(&self.tick_of(moment), moment.at_most);
        let cpu = own_cpu();
        let agent = AgentSample {
            cpu_us: self.before.as_ref().map(|before| micros(cpu.saturating_sub(before.cpu))),
            memory_usage_bytes: own_memory(),
            spool_reports: spool.reports,
            spool_bytes: spool.bytes,
            losses: losses(spool),
            collectors,
            sources: batch.sources,
            update: self.update.as_ref().and_then(|update| update.borrow().clone()),
        };
        self.before = Some(Baseline { monotonic: moment.monotonic, cpu });
        Some(Report {
            version: PROTOCOL_VERSION,
            host_id: self.host_id,
            stream_id: Uuid::nil(),
            sequence: 0,
            boot_id: self.boot_id,
            sampled_at: to_microseconds(moment.sampled_at),
            clock_offset_ms: clock_offset_ms(moment.clock_offset),
            interval_ms,
            facts: self.changed_facts(moment.describe_all),
            host: batch.host,
            filesystems: batch.filesystems,
            block_devices: batch.block_devices,
            network_interfaces: batch.network_interfaces,
            processes: batch.processes,
            connections: batch.connections,
            exits: batch.exits,
            exit_folds: batch.exit_folds,
            process_definitions: batch.process_definitions,
            instance_definitions: batch.instance_definitions,
            agent,
        })
    }

    fn tick_of(&self, moment: &Moment) -> Tick {
        Tick {
            sampled_at: to_microseconds(moment.sampled_at),
            clock_offset: moment.clock_offset,
            monotonic: moment.monotonic,
            describe_all: moment.describe_all,
            settings: Arc::clone(&self.settings),
        }
    }

    fn interval_ms(&self, moment: &Moment) -> Option<u32> {
        let before = self.before.as_ref()?;
        let interval = moment.monotonic.saturating_sub(before.monotonic).as_millis();
        let interval = u32::try_from(interval).unwrap_or(MAX_INTERVAL_MS).min(MAX_INTERVAL_MS);
        (interval >= MIN_INTERVAL_MS).then_some(interval)
    }

    fn changed_facts(&mut self, describe_all: bool) -> Option<HostFacts> {
        let now = facts::read(&self.facts_root);
        let send = describe_all || self.facts.as_ref() != Some(&now);
        self.facts = Some(now);
        if send { self.facts.clone() } else { None }
    }
}

fn clock_offset_ms(offset: time::Duration) -> Option<i64> {
    // Longer than the years that a timestamp can have it is not.
    (!offset.is_zero()).then(|| i64::try_from(offset.whole_milliseconds()).unwrap_or(i64::MAX))
}

fn load_bpf(tier: CollectTier) -> Bpf {
    match tier {
        CollectTier::Auto => Bpf::load(OBJECTS),
        CollectTier::Proc => Bpf::none(OBJECTS, "collect.tier is proc"),
    }
}

fn read_boot_id(root: &Root) -> Result<Uuid, ProcfsError> {
    let path = root.proc.join("sys/kernel/random/boot_id");
    let mut reader = Reader::default();
    let bytes = reader.read(&path)?;
    Uuid::try_parse_ascii(bytes.trim_ascii()).map_err(|_| ParseError("boot_id").of(path))
}

/// CPU time of the agent, all threads, user and system.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Resident set of the agent, bytes: `/proc/self/statm` field 2.
fn own_memory() -> Option<u64> {
    let mut reader = Reader::default();
    let bytes = reader.read(&Root::system().proc.join("self/statm")).ok()?;
    let pages = parse_u64(fields(bytes).nth(1)?)?;
    pages.checked_mul(u64::try_from(page_size()).ok()?)
}

/// What was lost anywhere in the agent; at most what a report may hold.
fn losses(spool: &SpoolStats) -> std::collections::BTreeMap<String, u64> {
    let mut losses = metrics::losses();
    for (&reason, &count) in spool.lost.iter().filter(|(_, count)| **count > 0) {
        losses.insert(format!("spool_{}", reason.trim_start_matches("spool_")), count);
    }
    while losses.len() > MAX_COLLECTORS {
        losses.pop_last();
    }
    losses
}

/// What the wire and the tables hold.
fn to_microseconds(at: Timestamp) -> Timestamp {
    at.replace_nanosecond(at.nanosecond() / 1000 * 1000).unwrap_or(at)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
