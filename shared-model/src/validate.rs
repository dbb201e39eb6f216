//! Validation that names the field.
//!
//! Decoding already proved types; this proves ranges: what passes here fits the tables. It needs no
//! clock and no database, so the agent can hold itself to the same rules in its tests.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;

use crate::limits::{
    MAX_COLLECTORS, MAX_COMMAND_LINE_BYTES, MAX_CONNECTIONS, MAX_COUNT, MAX_COUNTER, MAX_DEVICES,
    MAX_DICTIONARY, MAX_EXITS, MAX_INTERVAL_MS, MAX_PROCESSES, MAX_SERVICE_PORTS, MAX_TEXT_BYTES,
    MIN_INTERVAL_MS,
};
use crate::{
    AgentSample, FieldError, Gap, HostFacts, HostSample, InstanceId, ProcessId, ProcessSample,
    Record, Report,
};

/// Most field errors reported for one document; checking stops there.
pub const MAX_FIELD_ERRORS: usize = 16;

/// A document with values outside their documented ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0[0].field, .0[0].detail)]
pub struct Invalid(
    /// At least one, at most [`MAX_FIELD_ERRORS`].
    pub Vec<FieldError>,
);

impl Record {
    /// Checks everything that needs no clock: lengths, counts, ranges, NUL bytes, one row per
    /// instance, dictionary keys that match their content.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Checker::default();
        match self {
            Self::Report(report) => check.report(report),
            Self::Gap(gap) => check.gap(gap),
        }
        check.finish()
    }
}

impl HostFacts {
    /// Checks lengths and NUL bytes, as for a report's `facts`.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Checker::default();
        check.facts(self);
        check.finish()
    }
}

/// Where a field is: formatted only when it is wrong.
#[derive(Clone, Copy)]
enum At {
    Root,
    Part(&'static str),
    Row(&'static str, usize),
}

impl At {
    fn field(self, name: &str) -> String {
        match self {
            Self::Root => name.into(),
            Self::Part(part) => format!("{part}.{name}"),
            Self::Row(part, index) => format!("{part}[{index}].{name}"),
        }
    }
}

/// Checks the named `Option<u64>` fields of a struct against [`MAX_COUNTER`].
macro_rules! counters {
    ($check:expr, $at:expr, $of:expr, $($field:ident),+ $(,)?) => {
        $($check.at_most($at, stringify!($field), $of.$field, MAX_COUNTER);)+
    };
}

/// Checks the named `Option<u32>` fields of a struct against [`MAX_COUNT`].
macro_rules! counts {
    ($check:expr, $at:expr, $of:expr, $($field:ident),+ $(,)?) => {
        $($check.at_most($at, stringify!($field), $of.$field, MAX_COUNT);)+
    };
}

/// Checks the named `Option<f64>` fields of a struct: finite and not negative.
macro_rules! gauges {
    ($check:expr, $at:expr, $of:expr, $($field:ident),+ $(,)?) => {
        $(if $of.$field.is_some_and(|value| !value.is_finite() || value < 0.0) {
            $check.error($at, stringify!($field), "must be a finite number, 0 or more");
        })+
    };
}

#[derive(Default)]
struct Checker {
    errors: Vec<FieldError>,
}

impl Checker {
    fn finish(self) -> Result<(), Invalid> {
        if self.errors.is_empty() { Ok(()) } else { Err(Invalid(self.errors)) }
    }

    #[cold]
    fn error(&mut self, at: At, field: &str, detail: impl Into<String>) {
        if self.errors.len() < MAX_FIELD_ERRORS {
            self.errors.push(FieldError { field: at.field(field), detail: detail.into() });
        }
    }

    fn at_most<T: PartialOrd + Display + Copy>(
        &mut self,
        at: At,
        field: &str,
        value: Option<T>,
        max: T,
    ) {
        if let Some(value) = value
            && value > max
        {
            self.error(at, field, format!("{value} is above the limit of {max}"));
        }
    }

    fn length(&mut self, field: &'static str, length: usize, max: usize) {
        if length > max {
            self.error(At::Root, field, format!("{length} entries, the limit is {max}"));
        }
    }

    fn text(&mut self, at: At, field: &str, text: &str, max: usize) {
        if text.len() > max {
            self.error(at, field, format!("{} bytes, the limit is {max}", text.len()));
        } else if text.contains('\0') {
            self.error(at, field, "holds a NUL character, which PostgreSQL cannot store");
        }
    }

    fn optional_text(&mut self, at: At, field: &str, text: Option<&String>) {
        if let Some(text) = text {
            self.text(at, field, text, MAX_TEXT_BYTES);
        }
    }

    fn name(&mut self, at: At, field: &str, text: &str) {
        if text.is_empty() {
            self.error(at, field, "must not be empty");
        }
        self.text(at, field, text, MAX_TEXT_BYTES);
    }

    fn unique<K: Hash + Eq>(
        &mut self,
        part: &'static str,
        field: &str,
        keys: impl Iterator<Item = K>,
    ) {
        let mut seen = HashSet::with_capacity(keys.size_hint().0);
        for (index, key) in keys.enumerate() {
            if !seen.insert(key) {
                self.error(At::Row(part, index), field, "appears more than once in the report");
            }
        }
    }

    fn gap(&mut self, gap: &Gap) {
        if gap.first_sequence < 1 || gap.first_sequence > gap.sequence {
            self.error(At::Root, "first_sequence", "must lie between 1 and sequence");
        }
        self.at_most(At::Root, "sequence", Some(gap.sequence), MAX_COUNTER);
    }

    fn report(&mut self, report: &Report) {
        if report.version < 1 {
            self.error(At::Root, "version", "must be 1 or more");
        }
        if report.sequence < 1 || report.sequence > MAX_COUNTER {
            self.error(At::Root, "sequence", format!("must lie between 1 and {MAX_COUNTER}"));
        }
        if !(MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&report.interval_ms) {
            let detail = format!("must lie between {MIN_INTERVAL_MS} and {MAX_INTERVAL_MS}");
            self.error(At::Root, "interval_ms", detail);
        }
        if let Some(facts) = &report.facts {
            self.facts(facts);
        }
        self.host(&report.host);
        self.devices(report);
        self.processes(report);
        self.dictionary(report);
        self.connections_and_exits(report);
        self.agent(&report.agent);
    }

    fn facts(&mut self, facts: &HostFacts) {
        let at = At::Part("facts");
        self.name(at, "host_name", &facts.host_name);
        self.optional_text(at, "machine_id_hash", facts.machine_id_hash.as_ref());
        self.optional_text(at, "product_uuid_hash", facts.product_uuid_hash.as_ref());
        self.optional_text(at, "os_description", facts.os_description.as_ref());
        self.text(at, "kernel_release", &facts.kernel_release, MAX_TEXT_BYTES);
        self.text(at, "host_arch", &facts.host_arch, MAX_TEXT_BYTES);
        self.text(at, "agent_version", &facts.agent_version, MAX_TEXT_BYTES);
    }

    fn host(&mut self, host: &HostSample) {
        let at = At::Part("host");
        counters!(
            self,
            at,
            host,
            cpu_user_us,
            cpu_system_us,
            cpu_iowait_us,
            cpu_steal_us,
            cpu_idle_us,
            memory_total_bytes,
            memory_used_bytes,
            memory_available_bytes,
            memory_free_bytes,
            swap_total_bytes,
            swap_used_bytes,
            pressure_cpu_some_us,
            pressure_memory_some_us,
            pressure_memory_full_us,
            pressure_io_some_us,
            pressure_io_full_us,
            uptime_s,
            context_switches,
            forks,
            interface_receive_bytes,
            interface_transmit_bytes,
            socket_receive_bytes,
            socket_transmit_bytes,
        );
        counts!(self, at, host, cpu_count, processes_running, processes_total);
        gauges!(self, at, host, load_1m, load_5m, load_15m);
    }

    fn devices(&mut self, report: &Report) {
        self.length("filesystems", report.filesystems.len(), MAX_DEVICES);
        for (index, row) in report.filesystems.iter().enumerate() {
            let at = At::Row("filesystems", index);
            self.name(at, "mount_point", &row.mount_point);
            self.text(at, "device", &row.device, MAX_TEXT_BYTES);
            self.text(at, "filesystem_type", &row.filesystem_type, MAX_TEXT_BYTES);
            counters!(
                self,
                at,
                row,
                total_bytes,
                used_bytes,
                available_bytes,
                inodes_total,
                inodes_used
            );
        }
        self.length("block_devices", report.block_devices.len(), MAX_DEVICES);
        for (index, row) in report.block_devices.iter().enumerate() {
            let at = At::Row("block_devices", index);
            self.name(at, "device", &row.device);
            counters!(self, at, row, read_bytes, write_bytes, read_operations, write_operations);
            gauges!(self, at, row, queue_length, utilization_ratio);
        }
        self.length("network_interfaces", report.network_interfaces.len(), MAX_DEVICES);
        for (index, row) in report.network_interfaces.iter().enumerate() {
            let at = At::Row("network_interfaces", index);
            self.name(at, "interface", &row.interface);
            counters!(
                self,
                at,
                row,
                speed_bits_per_second,
                receive_bytes,
                transmit_bytes,
                receive_packets,
                transmit_packets,
                receive_errors,
                transmit_errors,
                receive_drops,
                transmit_drops,
            );
        }
    }

    fn processes(&mut self, report: &Report) {
        self.length("processes", report.processes.len(), MAX_PROCESSES);
        for (index, row) in report.processes.iter().enumerate() {
            self.process_sample(At::Row("processes", index), row);
        }
        self.unique("processes", "instance_id", report.processes.iter().map(|p| p.instance_id));
    }

    fn process_sample(&mut self, at: At, row: &ProcessSample) {
        if row.instance_id.0 < 0 {
            self.error(at, "instance_id", "must be 0 or more");
        }
        if row.process_count < 1 && row.instance_id != InstanceId::RESIDUAL {
            self.error(at, "process_count", "must be 1 or more");
        }
        self.at_most(at, "process_count", Some(row.process_count), MAX_COUNT);
        counters!(
            self,
            at,
            row,
            cpu_user_us,
            cpu_system_us,
            memory_usage_bytes,
            memory_swap_bytes,
            disk_read_bytes,
            disk_write_bytes,
            network_receive_bytes,
            network_transmit_bytes,
            run_queue_delay_us,
            paging_faults_minor,
            paging_faults_major,
            context_switches_voluntary,
            context_switches_involuntary,
        );
        counts!(self, at, row, thread_count, file_descriptor_count);
    }

    fn dictionary(&mut self, report: &Report) {
        let (processes, instances) = (&report.process_definitions, &report.instance_definitions);
        self.length("process_definitions", processes.len(), MAX_DICTIONARY);
        for (index, row) in processes.iter().enumerate() {
            let at = At::Row("process_definitions", index);
            self.text(at, "command_line", &row.command_line, MAX_COMMAND_LINE_BYTES);
            if row.process_id != ProcessId::of(&row.command_line) {
                self.error(at, "process_id", "is not the md5 of command_line");
            }
        }
        self.unique("process_definitions", "process_id", processes.iter().map(|p| p.process_id));

        self.length("instance_definitions", instances.len(), MAX_DICTIONARY);
        for (index, row) in instances.iter().enumerate() {
            let at = At::Row("instance_definitions", index);
            if row.instance_id != InstanceId::of(report.boot_id, row.pid, row.start_ticks) {
                let detail = "is not the hash of boot_id, pid and start_ticks";
                self.error(at, "instance_id", detail);
            }
            self.at_most(at, "pid", Some(row.pid), MAX_COUNT);
            self.at_most(at, "parent_pid", row.parent_pid, MAX_COUNT);
            self.at_most(at, "start_ticks", Some(row.start_ticks), MAX_COUNTER);
            self.optional_text(at, "owner", row.owner.as_ref());
            self.optional_text(at, "executable_name", row.executable_name.as_ref());
            self.optional_text(at, "executable_path", row.executable_path.as_ref());
            self.optional_text(at, "cgroup", row.cgroup.as_ref());
            self.optional_text(at, "systemd_unit", row.systemd_unit.as_ref());
            self.optional_text(at, "container_id", row.container_id.as_ref());
            self.optional_text(at, "pod_uid", row.pod_uid.as_ref());
            if row.service_ports.as_ref().is_some_and(|ports| ports.len() > MAX_SERVICE_PORTS) {
                self.error(at, "service_ports", format!("the limit is {MAX_SERVICE_PORTS} ports"));
            }
        }
        self.unique("instance_definitions", "instance_id", instances.iter().map(|i| i.instance_id));
    }

    fn connections_and_exits(&mut self, report: &Report) {
        self.length("connections", report.connections.len(), MAX_CONNECTIONS);
        for (index, row) in report.connections.iter().enumerate() {
            let at = At::Row("connections", index);
            self.at_most(at, "connection_count", Some(row.connection_count), MAX_COUNT);
            if row.instance_id.is_some_and(|id| id.0 < 0) {
                self.error(at, "instance_id", "must be 0 or more");
            }
            counters!(self, at, row, receive_bytes, transmit_bytes, retransmits);
        }
        self.length("exits", report.exits.len(), MAX_EXITS);
        for (index, row) in report.exits.iter().enumerate() {
            let at = At::Row("exits", index);
            counts!(self, at, row, exit_code, exit_signal);
            counters!(self, at, row, lifetime_us);
            self.process_sample(at, &row.totals);
        }
        self.length("exit_folds", report.exit_folds.len(), MAX_EXITS);
        for (index, row) in report.exit_folds.iter().enumerate() {
            let at = At::Row("exit_folds", index);
            counts!(self, at, row, parent_pid, failed_count);
            counters!(self, at, row, lifetime_us);
            self.optional_text(at, "cgroup", row.cgroup.as_ref());
            if row.totals.instance_id != InstanceId::RESIDUAL {
                self.error(at, "instance_id", "must be 0");
            }
            self.process_sample(at, &row.totals);
        }
    }

    fn agent(&mut self, agent: &AgentSample) {
        let at = At::Part("agent");
        counters!(self, at, agent, cpu_us, memory_usage_bytes);
        self.at_most(at, "spool_reports", Some(agent.spool_reports), MAX_COUNTER);
        self.at_most(at, "spool_bytes", Some(agent.spool_bytes), MAX_COUNTER);
        self.length("agent.losses", agent.losses.len(), MAX_COLLECTORS);
        for (place, count) in &agent.losses {
            self.name(at, "losses", place);
            self.at_most(at, place, Some(*count), MAX_COUNTER);
        }
        self.length("agent.collectors", agent.collectors.len(), MAX_COLLECTORS);
        for (index, row) in agent.collectors.iter().enumerate() {
            let at = At::Row("agent.collectors", index);
            self.name(at, "collector", &row.collector);
            self.optional_text(at, "error", row.error.as_ref());
            self.at_most(at, "duration_us", Some(row.duration_us), MAX_COUNTER);
        }
        self.length("agent.sources", agent.sources.len(), MAX_COLLECTORS);
        for (index, row) in agent.sources.iter().enumerate() {
            let at = At::Row("agent.sources", index);
            self.name(at, "fields", &row.fields);
            self.optional_text(at, "reason", row.reason.as_ref());
        }
        if let Some(update) = &agent.update {
            let at = At::Part("agent.update");
            counters!(self, at, update, installed_seq, target_seq);
            self.optional_text(at, "reason", update.reason.as_ref());
        }
    }
}
