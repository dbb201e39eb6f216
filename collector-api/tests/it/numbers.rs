//! Numbers larger than their columns.

use fleet_sim::database::{Engine, TestDatabase};

use crate::kit::{Host, Replica, changed};

#[tokio::test]
async fn large_numbers_are_read_as_they_were_sent() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let host = Host::enroll(&database, 1).await;
        // Whole pages, and more than four or two bytes hold.
        let pages = 37_654_321_u64 << 12;
        let record = changed(host.report(1), |report| {
            report.processes.truncate(1);
            let sample = &mut report.processes[0];
            sample.memory_usage_bytes = Some(pages);
            sample.cpu_user_us = Some((1 << 31) - 1);
            sample.network_receive_bytes = Some(987_654_321_987);
            sample.thread_count = Some(32_767);
            sample.file_descriptor_count = Some(1 << 20);
            sample.paging_faults_major = Some(1_000_001);
        });
        let (status, answer) = replica.post_records(host.host_id, &[record]).await;
        assert_eq!(status, 200, "{answer}");
        let mut connection = database.connect().await.unwrap();
        let (memory, cpu, network, threads, descriptors, faults): (i64, i64, i64, i32, i32, i64) =
            sqlx::query_as(
                "select memory_usage_bytes, cpu_user_us, network_receive_bytes, thread_count, file_descriptor_count,
                     paging_faults_major from procfleet_process_samples where host_id = $1",
            )
            .bind(host.host_id)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(memory.cast_unsigned(), pages);
        assert_eq!((cpu, threads, descriptors), ((1 << 31) - 1, 32_767, 1 << 20));
        assert!(network.abs_diff(987_654_321_987) <= 987_654_321_987 >> 26, "{network}");
        assert!(faults.abs_diff(1_000_001) <= 1_000_001 >> 11, "{faults}");
        replica.finish().await;
    }
}
