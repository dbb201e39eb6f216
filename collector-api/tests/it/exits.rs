//! Exits, one by one and folded, reach their table column by column, on both engines.

use std::time::Duration;

use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::oracle;
use shared_model::{ExitFold, InstanceId, ProcessExit, ProcessId, ProcessSample, Record, Report};

use crate::kit::{Host, Replica, changed};

#[tokio::test]
async fn every_exit_is_stored_once_with_all_its_totals() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let host = Host::enroll(&database, 41).await;
        let records: Vec<Record> =
            host.reports(1..=5).into_iter().map(|record| changed(record, add_exits)).collect();
        for _twice in 0..2 {
            let (status, answer) = replica.post_records(host.host_id, &records).await;
            assert_eq!(status, 200, "{answer}");
        }
        let mut connection = database.connect().await.unwrap();
        oracle::compare(&mut connection, &records).await.unwrap();
        let (exits, counted, failed): (i64, i64, i64) = sqlx::query_as(
            "select count(*), sum(process_count), sum(failed_count) from process_exits",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!((exits, counted, failed), (15, 5 * (2 + 984), 5 * (1 + 3)), "{engine:?}");
        replica.finish().await;
    }
}

/// One that ended well, one that was killed, and many of a kind.
fn add_exits(report: &mut Report) {
    let totals = |instance_id, factor: u64| ProcessSample {
        instance_id,
        process_count: 1,
        cpu_user_us: Some(factor),
        cpu_system_us: Some(2 * factor),
        memory_usage_bytes: Some(3 * factor),
        disk_read_bytes: Some(4 * factor),
        disk_write_bytes: Some(5 * factor),
        network_receive_bytes: Some(6 * factor),
        network_transmit_bytes: Some(7 * factor),
        run_queue_delay_us: Some(8 * factor),
        paging_faults_minor: Some(9 * factor),
        paging_faults_major: Some(10 * factor),
        context_switches_voluntary: Some(11 * factor),
        context_switches_involuntary: Some(12 * factor),
        ..ProcessSample::default()
    };
    let well = InstanceId::of(report.boot_id, 900, report.sequence);
    let killed = InstanceId::of(report.boot_id, 901, report.sequence);
    report.exits.push(ProcessExit {
        instance_id: well,
        process_id: ProcessId::of("worker --once"),
        exit_time: report.sampled_at - Duration::from_micros(900),
        lifetime_us: Some(1 << 40),
        exit_code: Some(0),
        exit_signal: None,
        totals: totals(well, 1),
    });
    report.exits.push(ProcessExit {
        instance_id: killed,
        exit_code: None,
        exit_signal: Some(9),
        lifetime_us: None,
        totals: ProcessSample { instance_id: killed, process_count: 1, ..ProcessSample::default() },
        ..report.exits[0].clone()
    });
    report.exit_folds.push(ExitFold {
        process_id: Some(ProcessId::of("/bin/true")),
        parent_pid: Some(1000),
        user_id: Some(u32::MAX - 1),
        cgroup: Some("/system.slice/cron.service".into()),
        failed_count: Some(3),
        lifetime_us: Some(1 << 40),
        totals: ProcessSample { process_count: 984, ..totals(InstanceId::RESIDUAL, 1000) },
    });
}
