//! A database in which every panel has something to show: delivered as agents deliver, and a little of
//! what the maintenance worker writes.

use std::time::Duration;

use fleet_sim::database::{Engine, TestDatabase};
use shared_model::{CollectorOutcome, InstanceId, ProcessExit, ProcessSample, Record, Report};
use time::OffsetDateTime;

use crate::kit::{Host, Replica, changed};

pub(super) struct Filled {
    pub(super) database: TestDatabase,
    /// When the newest report was sampled.
    pub(super) until: OffsetDateTime,
}

pub(super) async fn fill(engine: Engine) -> Filled {
    let database = TestDatabase::create(engine).await.unwrap();
    let replica = Replica::start(&database).await;
    // The second host stops early: something is missing.
    for (seed, last) in [(1, 60), (2, 50)] {
        let host = Host::enroll(&database, seed).await;
        let records: Vec<Record> =
            host.reports(1..=last).into_iter().map(|record| changed(record, complete)).collect();
        let (status, answer) = replica.post_records(host.host_id, &records).await;
        assert_eq!(status, 200, "{answer}");
    }
    replica.finish().await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(
        r#"update hosts set labels = '{"env": "it''s \"prod\""}';
        insert into ingest_rejects (host_id, stream_id, first_sequence, sequence, code, detail, received_at)
            select h.host_id, gen_random_uuid(), 3, 5, 'gap_spool_full', '', b.last_sampled_at from hosts h join heartbeats b on b.host_id = h.host_id;
        insert into maintenance_steps (step, started_at, finished_at) values ('rollups', now(), now());
        insert into maintenance_tables (series, partitions, compressed, bytes, measured_at)
            select series, 1, 0, 8192, now() from series;"#,
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let until = sqlx::query_scalar("select max(last_sampled_at) from heartbeats")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    Filled { database, until }
}

/// Knows what the generator leaves unknown, so that no panel may be empty for that reason.
fn complete(report: &mut Report) {
    let host = &mut report.host;
    for unknown in [
        &mut host.cpu_iowait_us,
        &mut host.cpu_steal_us,
        &mut host.memory_available_bytes,
        &mut host.memory_free_bytes,
        &mut host.swap_total_bytes,
        &mut host.swap_used_bytes,
        &mut host.pressure_cpu_some_us,
        &mut host.pressure_memory_some_us,
        &mut host.pressure_memory_full_us,
        &mut host.pressure_io_some_us,
        &mut host.pressure_io_full_us,
    ] {
        unknown.get_or_insert(1000);
    }
    host.load_5m.get_or_insert(0.5);
    host.load_15m.get_or_insert(0.5);
    for filesystem in &mut report.filesystems {
        filesystem.available_bytes = Some(1 << 30);
        filesystem.inodes_total = Some(100);
        filesystem.inodes_used = Some(10);
    }
    for device in &mut report.block_devices {
        device.read_bytes = Some(4096);
    }
    for interface in &mut report.network_interfaces {
        interface.speed_bits_per_second = Some(1_000_000_000);
        interface.receive_errors = Some(1);
        interface.transmit_errors = Some(0);
        interface.receive_drops = Some(0);
        interface.transmit_drops = Some(0);
    }
    for process in &mut report.processes {
        process.memory_swap_bytes = Some(4096);
        process.network_receive_bytes = Some(1 << 20);
        process.network_transmit_bytes = Some(1 << 10);
        process.file_descriptor_count = Some(9);
        process.run_queue_delay_us = Some(5);
        process.paging_faults_major = Some(1);
    }
    report.agent.spool_reports = 2;
    report.agent.spool_bytes = 2048;
    if report.sequence == 7 {
        for run in &mut report.agent.collectors {
            run.outcome = CollectorOutcome::Late;
        }
    }
    exits(report);
}

/// One run of every process described here that was killed.
fn exits(report: &mut Report) {
    for (pid, definition) in (900..).zip(&report.process_definitions) {
        let instance_id = InstanceId::of(report.boot_id, pid, report.sequence);
        report.exits.push(ProcessExit {
            instance_id,
            process_id: definition.process_id,
            exit_time: report.sampled_at - Duration::from_micros(900),
            exit_code: None,
            exit_signal: Some(9),
            lifetime_us: Some(500),
            totals: ProcessSample {
                instance_id,
                process_count: 1,
                cpu_user_us: Some(1),
                cpu_system_us: Some(2),
                memory_usage_bytes: Some(3),
                ..ProcessSample::default()
            },
        });
    }
}
