//! Describes processes and instances that the server may not know.
//!
//! An instance is described in the first report that holds a row of it, again when it executes another
//! program, every [`DESCRIBE_EVERY`], and when [`crate::collectors::Tick::describe_all`] says that the server may have missed
//! something. Instances that never had a row are never described, and (without always-keep patterns)
//! their command lines are never read. A process is described together with an instance unless a live instance
//! of it was described before.
//!
//! **The server can name every row it gets.** If the details of an instance are late (see [`super::details`]),
//! or it ended before they were read, it is described at once as `[comm]`; the true command line follows in a later
//! report, and the newest description wins. The one exception: descriptions beyond
//! [`MAX_BYTES`] in one report come in the next ones, at a mass start with `keep_all`.

use std::collections::HashMap;
use std::time::Duration;

use shared_model::limits::{MAX_DICTIONARY, MAX_SERVICE_PORTS};
use shared_model::{InstanceDefinition, ProcessDefinition, ProcessId, Timestamp};

use super::command_line::{bracketed, executable_name, render};
use super::details::{DetailReader, Details, Question, Seen};
use super::live::Live;
use super::owners::Owners;
use super::redaction::Redactor;
use super::titles;
use crate::collectors::{Batch, Setup};
use crate::procfs::Reader;
use crate::procfs::cgroup::systemd_unit;
use crate::profile::Pattern;

/// When the details of an instance are read a second time: by then a worker that was forked has given
/// itself its title.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// Changes of its name that make an instance described again; those beyond wait for their turn by age.
const MAX_RENAMES: u8 = 8;
/// How often a live instance is described again: titles that processes give themselves change.
const DESCRIBE_EVERY: Duration = Duration::from_hours(6);
/// Instances whose details are read again in one tick because of their age.
const REFRESH_PER_TICK: usize = 64;
/// Bytes of descriptions in one report, roughly.
const MAX_BYTES: usize = 8 << 20;
/// What an instance's description takes beside its texts, bytes of JSON.
const OVERHEAD_BYTES: usize = 400;

/// What the dictionary remembers of one live instance.
#[derive(Debug, Default)]
pub(super) struct Entry {
    definition: Option<Box<Definition>>,
    /// Details were read since the instance began to run what it runs.
    is_detailed: bool,
    /// It had a row in a report.
    is_wanted: bool,
    /// When it was described last; `None`: due.
    described_at: Option<Duration>,
    /// The process that was described with it.
    process_id: Option<ProcessId>,
    /// Whether it matches the always-keep patterns.
    matches: Option<bool>,
    /// Its details were read a second time, see [`LOOK_AGAIN`].
    was_looked_at: bool,
    /// How often its name changed.
    renames: u8,
    /// What it listens on; `None`: unknown.
    service_ports: Option<Vec<u16>>,
}

impl Entry {
    /// It runs another program.
    pub(super) fn outdate(&mut self) {
        *self = Self {
            is_wanted: self.is_wanted,
            process_id: self.process_id,
            renames: self.renames,
            service_ports: self.service_ports.take(),
            ..Self::default()
        };
    }

    /// It has another name: it may run another program, or tells what it does, without end.
    pub(super) fn rename(&mut self) {
        if self.renames < MAX_RENAMES {
            self.renames += 1;
            self.outdate();
        }
    }
}

#[derive(Debug, PartialEq)]
struct Definition {
    process: ProcessDefinition,
    /// `comm`, of this run.
    executable_name: String,
    details: Details,
}

/// Live instances by process id.
pub(super) type Table = HashMap<u32, Live>;

/// See the module.
#[derive(Debug)]
pub(super) struct Dictionary {
    details: DetailReader,
    titles: titles::Options,
    redactor: Redactor,
    owners: Owners,
    /// Live instances that each process was described with.
    described: HashMap<ProcessId, u32>,
    /// The patterns that the entries' `matches` are of.
    patterns: Vec<Pattern>,
}

impl Dictionary {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            details: DetailReader::new(&setup.root.proc),
            titles: setup.titles.clone(),
            redactor: Redactor::new(Vec::new(), setup.titles.clone()),
            owners: Owners::new(&setup.root.etc),
            described: HashMap::new(),
            patterns: Vec::new(),
        }
    }

    /// Begins a tick: marks what is due again.
    pub(super) fn begin(&mut self, table: &mut Table, describe_all: bool, now: Duration) {
        if describe_all {
            self.described.clear();
        }
        let mut refreshed = 0;
        for live in table.values_mut() {
            let entry = &mut live.entry;
            if describe_all {
                (entry.described_at, entry.process_id) = (None, None);
            }
            let Some(at) = entry.described_at else { continue };
            let age = now.saturating_sub(at);
            let is_old = age >= DESCRIBE_EVERY;
            let is_young = !entry.was_looked_at && age >= LOOK_AGAIN;
            if (is_old || is_young) && refreshed < REFRESH_PER_TICK {
                refreshed += 1;
                (entry.is_detailed, entry.was_looked_at) = (false, true);
                if is_old {
                    entry.described_at = None;
                }
            }
        }
    }

    /// What `live` was found to run, where that is known, and whether the server may know the instance.
    pub(super) fn known(live: &Live) -> (Option<&ProcessDefinition>, bool) {
        let definition = live.entry.definition.as_ref().map(|definition| &definition.process);
        (definition, live.entry.described_at.is_some())
    }

    /// What a process runs whose arguments are `raw`, NUL-terminated; empty: unknown.
    pub(super) fn define(
        &self,
        raw: &[u8],
        comm: &[u8],
        is_kernel_thread: bool,
    ) -> ProcessDefinition {
        let line = render(raw, &self.redactor);
        let command_line =
            line.unwrap_or_else(|| bracketed(&executable_name(comm, is_kernel_thread)));
        ProcessDefinition { process_id: ProcessId::of(&command_line), command_line }
    }

    /// The name of a user, as of the last description.
    pub(super) fn owner(&self, user_id: u32) -> Option<&str> {
        self.owners.name(user_id)
    }

    /// Looks whether the names of users changed.
    pub(super) fn refresh_owners(&mut self) {
        self.owners.refresh(&mut Reader::default());
    }

    /// Whether a live instance was described with `process`.
    pub(super) fn is_described(&self, process: ProcessId) -> bool {
        self.described.contains_key(&process)
    }

    /// Hides what `patterns` match from here on. If they are others than before, nothing is left of what the
    /// instances were found to run: their arguments are read again, and everything is described anew.
    pub(super) fn hide<'a>(
        &mut self,
        patterns: &[Pattern],
        entries: impl Iterator<Item = &'a mut Entry>,
    ) {
        if self.redactor.patterns() == patterns {
            return;
        }
        self.redactor = Redactor::new(patterns.to_vec(), self.titles.clone());
        self.described.clear();
        for entry in entries {
            entry.outdate();
            entry.process_id = None;
        }
    }

    /// Forgets an instance that ended.
    pub(super) fn forget(&mut self, entry: &Entry) {
        release(&mut self.described, entry.process_id);
    }

    /// Reads the details of those of `pids` whose are not known.
    pub(super) fn read_details(&mut self, table: &mut Table, pids: impl Iterator<Item = u32>) {
        let questions: Vec<_> = pids
            .filter_map(|pid| table.get(&pid).map(|live| (pid, live)))
            .filter(|(_, live)| !live.entry.is_detailed)
            .map(|(pid, live)| Question { id: live.id, pid, start_ticks: Some(live.start_ticks) })
            .collect();
        let redactor = &self.redactor;
        self.details.read(&questions, |question, details| {
            if let Some(live) = table.get_mut(&question.pid).filter(|live| live.id == question.id) {
                take_details(live, details, redactor);
            }
        });
    }

    /// Takes over who listens where, by process id; whose ports changed is described again.
    pub(super) fn listen(table: &mut Table, listening: &HashMap<u32, Vec<u16>>) {
        for (pid, live) in table.iter_mut().filter(|(_, live)| !live.is_kernel_thread) {
            let ports = listening.get(pid).map_or(&[][..], Vec::as_slice);
            let ports = &ports[..ports.len().min(MAX_SERVICE_PORTS)];
            let entry = &mut live.entry;
            if entry.service_ports.as_deref() != Some(ports) {
                let is_news = entry.service_ports.is_some() || !ports.is_empty();
                entry.service_ports = Some(ports.to_vec());
                if is_news {
                    entry.described_at = None;
                }
            }
        }
    }

    /// Whether `live` matches one of `patterns`.
    pub(super) fn matches(live: &mut Live, patterns: &[Pattern]) -> bool {
        if let Some(matches) = live.entry.matches {
            return matches;
        }
        let any = |text: &str| patterns.iter().any(|pattern| pattern.is_match(text));
        match &live.entry.definition {
            Some(definition) => {
                let process = &definition.process;
                let matches = any(&process.command_line) || any(&definition.executable_name);
                live.entry.matches = Some(matches);
                matches
            }
            None => any(&executable_name(&live.comm, live.is_kernel_thread)),
        }
    }

    /// Forgets which instances match where the patterns are no longer the same.
    pub(super) fn set_patterns(&mut self, table: &mut Table, patterns: &[Pattern]) {
        if self.patterns != patterns {
            self.patterns = patterns.to_vec();
            for live in table.values_mut() {
                live.entry.matches = None;
            }
        }
    }

    /// At most `limit` instances older than `start_ticks` without a row whose details were never read.
    pub(super) fn unread(table: &Table, start_ticks: u64, limit: u64) -> Vec<u32> {
        let is_unread = |live: &Live| {
            let (entry, is_old) = (&live.entry, live.start_ticks <= start_ticks);
            is_old && !entry.is_wanted && !entry.is_detailed && !live.is_kernel_thread
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        table.iter().filter(|(_, live)| is_unread(live)).map(|(pid, _)| *pid).take(limit).collect()
    }

    /// Every instance that had a row.
    pub(super) fn wanted(table: &Table) -> Vec<u32> {
        table.iter().filter(|(_, live)| live.entry.is_wanted).map(|(pid, _)| *pid).collect()
    }

    /// Marks instances that have a row in this report.
    pub(super) fn want(table: &mut Table, pids: impl Iterator<Item = u32>) {
        for pid in pids {
            if let Some(live) = table.get_mut(&pid) {
                live.entry.is_wanted = true;
            }
        }
    }

    /// Whether [`Self::describe`] has something to do.
    pub(super) fn is_due(table: &Table) -> bool {
        table.values().any(|live| live.entry.is_wanted && live.entry.described_at.is_none())
    }

    /// Describes what is due. `started_at` turns start ticks into wall-clock time.
    pub(super) fn describe(
        &mut self,
        table: &mut Table,
        batch: &mut Batch,
        now: Duration,
        started_at: impl Fn(u64) -> Timestamp,
    ) {
        self.owners.refresh(&mut Reader::default());
        let mut bytes = 0;
        for (&pid, live) in table.iter_mut() {
            if !live.entry.is_wanted || live.entry.described_at.is_some() {
                continue;
            }
            if live.entry.definition.is_none() {
                set_definition(live, Details::default(), &self.redactor);
            }
            let Some(definition) = &live.entry.definition else { continue };
            bytes += definition.process.command_line.len() + OVERHEAD_BYTES;
            if bytes > MAX_BYTES || batch.instance_definitions.len() >= MAX_DICTIONARY {
                return;
            }
            let process_id = definition.process.process_id;
            if live.entry.process_id != Some(process_id) {
                release(&mut self.described, live.entry.process_id);
                let instances = self.described.entry(process_id).or_insert(0);
                if *instances == 0 {
                    batch.process_definitions.push(definition.process.clone());
                }
                *instances += 1;
                live.entry.process_id = Some(process_id);
            }
            let details = &definition.details;
            let owner = details.user_id.and_then(|user| self.owners.name(user));
            batch.instance_definitions.push(InstanceDefinition {
                instance_id: live.id,
                process_id,
                pid,
                parent_pid: Some(live.parent_pid),
                start_ticks: live.start_ticks,
                creation_time: started_at(live.start_ticks),
                user_id: details.user_id,
                owner: owner.map(str::to_owned),
                executable_name: Some(definition.executable_name.clone()),
                executable_path: details.executable_path.clone(),
                cgroup: details.cgroup.clone(),
                systemd_unit: details.cgroup.as_deref().and_then(systemd_unit).map(str::to_owned),
                container_id: details.container_id.clone(),
                pod_uid: details.pod_uid.clone(),
                service_ports: live.entry.service_ports.clone(),
            });
            live.entry.described_at = Some(now);
        }
    }
}

/// One instance less that `process_id` was described with.
fn release(described: &mut HashMap<ProcessId, u32>, process_id: Option<ProcessId>) {
    let Some(process_id) = process_id else { return };
    if let Some(instances) = described.get_mut(&process_id) {
        *instances -= 1;
        if *instances == 0 {
            described.remove(&process_id);
        }
    }
}

/// Takes over what the helper found; `None`: the instance ended, and there is no more to find.
fn take_details(live: &mut Live, details: Option<Details>, redactor: &Redactor) {
    live.entry.is_detailed = true;
    match details {
        // A zombie has lost its arguments, its cgroup and its user: what was known stays.
        Some(details)
            if details.executable_path.is_none()
                && details.command_line.is_empty()
                && !live.is_kernel_thread
                && live.entry.definition.is_some() => {}
        Some(details) => set_definition(live, details, redactor),
        None => {}
    }
}

fn set_definition(live: &mut Live, mut details: Details, redactor: &Redactor) {
    let executable_name = executable_name(&live.comm, live.is_kernel_thread);
    let raw = std::mem::take(&mut details.command_line);
    // Not what it is described by.
    details.seen = Seen::default();
    let command_line = render(&raw, redactor).unwrap_or_else(|| bracketed(&executable_name));
    let process = ProcessDefinition { process_id: ProcessId::of(&command_line), command_line };
    let definition = Definition { process, executable_name, details };
    if live.entry.definition.as_deref() != Some(&definition) {
        live.entry.definition = Some(Box::new(definition));
        (live.entry.described_at, live.entry.matches) = (None, None);
    }
}
