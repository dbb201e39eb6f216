//! Exits as the report tells them, with what the server may not know of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shared_model::{
    ExitFold, InstanceDefinition, InstanceId, ProcessDefinition, ProcessExit, ProcessId,
    ProcessSample,
};

use super::super::command_line::{executable_name, without_cut_url};
use super::super::dictionary::{Dictionary, Table};
use super::super::ended::Cpu;
use super::super::from_ticks;
use super::log::{Ended, Fold, Group, Kind, Line, Totals};
use super::{Clock, Exits, cpu_of};
use crate::bpf::records::Comm;
use crate::collectors::Batch;
use crate::procfs::cgroup::{parse_cgroup, systemd_unit};

/// Arguments that the kernel's event holds, bytes: one that is as long was cut.
const CUT_LINE_BYTES: usize = 4096;

/// What a process runs that only forked: what its parent does, if it has its name.
fn inherited(table: &Table, parent_pid: Option<u32>, comm: Comm) -> Option<ProcessDefinition> {
    let parent = table.get(&parent_pid?).filter(|parent| *parent.comm == *comm.bytes())?;
    Dictionary::known(parent).0.cloned()
}

/// One report's descriptions.
pub(super) struct Describing<'a> {
    /// What was defined from a line and a name already.
    defined: HashMap<(Option<Line>, Comm), ProcessId>,
    in_batch: HashSet<ProcessId>,
    dictionary: &'a Dictionary,
    exits: &'a mut Exits,
    clock: &'a Clock,
    batch: &'a mut Batch,
}

impl<'a> Describing<'a> {
    pub(super) fn new(
        dictionary: &'a mut Dictionary,
        exits: &'a mut Exits,
        clock: &'a Clock,
        batch: &'a mut Batch,
    ) -> Self {
        let in_batch = batch.process_definitions.iter().map(|it| it.process_id).collect();
        Self { defined: HashMap::new(), in_batch, dictionary, exits, clock, batch }
    }

    pub(super) fn exit(&mut self, ended: &Ended, table: &Table) {
        let exit = &ended.exit;
        let key = self.exits.units.key(ended);
        let instance_id = InstanceId::of(self.exits.boot_id, key.0, key.1);
        let live = table.get(&key.0).filter(|live| live.start_ticks == key.1);
        let live = live.or_else(|| self.exits.waiting.get(&key).map(|(live, ..)| live));
        let (known, is_described) = live.map_or((None, false), Dictionary::known);
        let known = match (known, &ended.line) {
            (None, None) => inherited(table, exit.of.parent_pid, exit.of.comm),
            (known, _) => known.cloned(),
        };
        let process_id = match known {
            Some(definition) => self.define(definition),
            None => self.process(ended.line.as_ref(), exit.of.comm, exit.is_kernel_thread),
        };
        if !is_described {
            let definition = self.instance(ended, instance_id, process_id);
            self.batch.instance_definitions.push(definition);
        }
        let signal = exit.status.map(|status| status & 0x7f);
        let code = exit.status.map(|status| status >> 8 & 0xff);
        let age = self.clock.uptime.saturating_sub(Duration::from_nanos(exit.of.at_ns));
        self.batch.exits.push(ProcessExit {
            instance_id,
            process_id,
            exit_time: self.clock.sampled_at - age,
            lifetime_us: exit.lifetime_ns().map(|ns| ns / 1000),
            exit_code: code.filter(|_| signal == Some(0)),
            exit_signal: signal.filter(|signal| *signal != 0),
            totals: ProcessSample {
                instance_id,
                process_count: 1,
                ..self.totals(exit.totals.as_ref())
            },
        });
    }

    pub(super) fn fold(&mut self, kind: Option<&Kind>, fold: &Fold, table: &Table) {
        let process_id = kind.map(|kind| {
            let known = match kind.line {
                None => inherited(table, kind.parent_pid, kind.comm),
                Some(_) => None,
            };
            match known {
                Some(definition) => self.define(definition),
                None => self.process(kind.line.as_ref(), kind.comm, false),
            }
        });
        self.batch.exit_folds.push(ExitFold {
            process_id,
            parent_pid: kind.and_then(|kind| kind.parent_pid),
            user_id: kind.and(fold.user_id),
            cgroup: kind.and_then(|kind| self.path(&kind.group)).map(str::to_owned),
            failed_count: fold.failed,
            lifetime_us: fold.lifetime_ns.map(|ns| ns / 1000),
            totals: ProcessSample {
                process_count: fold.count,
                ..self.totals(fold.totals.as_ref())
            },
        });
    }

    fn totals(&self, totals: Option<&Totals>) -> ProcessSample {
        let Some(totals) = totals else { return ProcessSample::default() };
        let used = &totals.used;
        let cpu = cpu_of(used, Cpu::default());
        let written = used.write_bytes.saturating_sub(used.cancelled_write_bytes);
        let counted = |count: u64| totals.has_counts.then_some(count);
        let page_bytes = self.exits.units.page_bytes;
        ProcessSample {
            cpu_user_us: Some(cpu.user_ticks),
            cpu_system_us: Some(cpu.system_ticks),
            memory_usage_bytes: totals.peak_pages.map(|pages| pages.saturating_mul(page_bytes)),
            disk_read_bytes: totals.has_io.then_some(used.read_bytes),
            disk_write_bytes: totals.has_io.then_some(written),
            run_queue_delay_us: totals.has_delay.then_some(used.run_delay_ns / 1000),
            paging_faults_minor: counted(used.faults_minor),
            paging_faults_major: counted(used.faults_major),
            context_switches_voluntary: counted(used.switches_voluntary),
            context_switches_involuntary: counted(used.switches_involuntary),
            ..ProcessSample::default()
        }
    }

    fn path<'b>(&'b self, group: &'b Group) -> Option<&'b str> {
        match group {
            Group::Unknown => None,
            Group::Number(number) => self.exits.cgroups.path(*number),
            Group::Path(path) => Some(path),
        }
    }

    /// What runs the arguments `line` under the name `comm`.
    fn process(&mut self, line: Option<&Line>, comm: Comm, is_kernel_thread: bool) -> ProcessId {
        let key = (line.cloned(), comm);
        if let Some(&known) = self.defined.get(&key) {
            return known;
        }
        let raw = line.map_or(&[][..], |line| {
            if line.len() == CUT_LINE_BYTES { without_cut_url(line) } else { line }
        });
        let name = if comm == Comm::default() { b"?" } else { comm.bytes() };
        let definition = self.dictionary.define(raw, name, is_kernel_thread);
        let process_id = self.define(definition);
        self.defined.insert(key, process_id);
        process_id
    }

    /// Puts `definition` into the report unless the server was told before.
    fn define(&mut self, definition: ProcessDefinition) -> ProcessId {
        let process_id = definition.process_id;
        let is_known = self.dictionary.is_described(process_id)
            || self.exits.described.contains(&process_id)
            || self.in_batch.contains(&process_id);
        if !is_known {
            self.in_batch.insert(process_id);
            self.exits.described.insert(process_id);
            self.batch.process_definitions.push(definition);
        }
        process_id
    }

    fn instance(
        &self,
        ended: &Ended,
        instance_id: InstanceId,
        process_id: ProcessId,
    ) -> InstanceDefinition {
        let of = &ended.exit.of;
        let start = self.exits.units.key(ended).1;
        let path = self.path(&of.group);
        let entry = path.map(|path| format!("0::{path}\n"));
        let cgroup = entry.as_deref().and_then(|entry| parse_cgroup(entry.as_bytes()));
        InstanceDefinition {
            instance_id,
            process_id,
            pid: of.pid,
            parent_pid: of.parent_pid,
            start_ticks: start,
            creation_time: self.clock.booted_at
                + from_ticks(start, self.exits.units.ticks_per_second),
            user_id: of.user_id,
            owner: of.user_id.and_then(|user| self.dictionary.owner(user)).map(str::to_owned),
            executable_name: (of.comm != Comm::default())
                .then(|| executable_name(of.comm.bytes(), ended.exit.is_kernel_thread)),
            executable_path: None,
            cgroup: path.map(str::to_owned),
            systemd_unit: path.and_then(systemd_unit).map(str::to_owned),
            container_id: cgroup.as_ref().and_then(|it| it.container_id).map(str::to_owned),
            pod_uid: cgroup.as_ref().and_then(|it| it.pod_uid.clone()),
            service_ports: None,
        }
    }
}
