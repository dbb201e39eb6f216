//! Every rule of validation: one broken value, one named field.

use shared_model::limits::{MAX_COUNT, MAX_COUNTER, MAX_DEVICES};
use shared_model::validate::MAX_FIELD_ERRORS;
use shared_model::{Gap, GapReason, InstanceId, ProcessId, Record, Report};
use uuid::Uuid;

use crate::arbitrary::full_report;

/// A full report with one thing changed fails, naming `field`.
fn check(field: &str, change: impl FnOnce(&mut Report)) {
    let mut report = full_report();
    change(&mut report);
    let error = Record::Report(Box::new(report)).validate().expect_err(field);
    assert!(error.0.iter().any(|e| e.field == field), "{field} not named in {error:?}");
}

#[test]
fn the_full_report_is_valid() {
    Record::Report(Box::new(full_report())).validate().unwrap();
}

#[test]
fn each_rule_names_its_field() {
    check("version", |r| r.version = 0);
    check("sequence", |r| r.sequence = 0);
    check("sequence", |r| r.sequence = MAX_COUNTER + 1);
    check("interval_ms", |r| r.interval_ms = 0);
    check("interval_ms", |r| r.interval_ms = u32::MAX);
    check("facts.host_name", |r| r.facts.as_mut().unwrap().host_name = String::new());
    check("facts.host_name", |r| r.facts.as_mut().unwrap().host_name = "a\0b".into());
    check("host.cpu_idle_us", |r| r.host.cpu_idle_us = Some(u64::MAX));
    check("host.cpu_count", |r| r.host.cpu_count = Some(MAX_COUNT + 1));
    check("host.load_1m", |r| r.host.load_1m = Some(-0.1));
    check("host.load_5m", |r| r.host.load_5m = Some(f64::NAN));
    check("filesystems[0].mount_point", |r| r.filesystems[0].mount_point = String::new());
    check("filesystems[0].device", |r| r.filesystems[0].device = "é".repeat(600));
    check("filesystems", |r| r.filesystems = vec![r.filesystems[0].clone(); MAX_DEVICES + 1]);
    check("block_devices[0].queue_length", |r| {
        r.block_devices[0].queue_length = Some(f64::INFINITY);
    });
    check("network_interfaces[0].receive_drops", |r| {
        r.network_interfaces[0].receive_drops = Some(MAX_COUNTER + 1);
    });
    check("processes[0].instance_id", |r| r.processes[0].instance_id = InstanceId(-1));
    check("processes[0].process_count", |r| r.processes[0].process_count = 0);
    check("processes[0].thread_count", |r| r.processes[0].thread_count = Some(u32::MAX));
    check("processes[2].instance_id", |r| r.processes.push(r.processes[0].clone()));
    check("process_definitions[0].process_id", |r| {
        r.process_definitions[0].process_id = ProcessId(Uuid::nil());
    });
    check("process_definitions[0].command_line", |r| {
        let process = &mut r.process_definitions[0];
        process.command_line = "x".repeat(4097);
        process.process_id = ProcessId::of(&process.command_line);
    });
    check("instance_definitions[0].instance_id", |r| r.instance_definitions[0].pid += 1);
    check("instance_definitions[0].owner", |r| {
        r.instance_definitions[0].owner = Some("\0".into());
    });
    check("exit_folds[0].instance_id", |r| r.exit_folds[0].totals.instance_id = InstanceId(7));
    check("exit_folds[0].cgroup", |r| r.exit_folds[0].cgroup = Some("\0".into()));
    check("agent.sources[0].fields", |r| r.agent.sources[0].fields = String::new());
    check("exits[0].process_count", |r| r.exits[0].totals.process_count = 0);
    check("connections[0].receive_bytes", |r| r.connections[0].receive_bytes = Some(u64::MAX));
    check("connections[0].retransmits", |r| r.connections[0].retransmits = Some(u64::MAX));
    check("connections[0].instance_id", |r| r.connections[0].instance_id = Some(InstanceId(-1)));
    check("connections[0].connection_count", |r| r.connections[0].connection_count = u32::MAX);
    check("agent.collectors[0].collector", |r| r.agent.collectors[0].collector = String::new());
    check("agent.spool_full", |r| {
        r.agent.losses.insert("spool_full".into(), u64::MAX);
    });
}

#[test]
fn a_gap_must_go_forward() {
    let gap = |first_sequence, sequence| {
        Record::Gap(Gap {
            host_id: Uuid::nil(),
            stream_id: Uuid::nil(),
            first_sequence,
            sequence,
            reason: GapReason::Rejected,
        })
    };
    gap(1, 1).validate().unwrap();
    gap(3, 9).validate().unwrap();
    gap(0, 9).validate().unwrap_err();
    gap(10, 9).validate().unwrap_err();
    gap(1, u64::MAX).validate().unwrap_err();
}

#[test]
fn errors_are_bounded() {
    let mut report = full_report();
    report.processes = vec![report.processes[0].clone(); 1000];
    let error = Record::Report(Box::new(report)).validate().unwrap_err();
    assert_eq!(error.0.len(), MAX_FIELD_ERRORS);
}
