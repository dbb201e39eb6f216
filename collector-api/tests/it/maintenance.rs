//! Partitions ahead, retention, and the lease that lets one worker at a time do it.

use std::time::Duration;

use collector_api::maintenance;
use collector_api::store::Store;
use collector_api::store::maintenance::MaintenanceError;
use collector_api::store::series::SERIES;
use fleet_sim::database::{Engine, TestDatabase};
use uuid::Uuid;

use crate::kit::{Host, Replica, changed, count};

async fn partitions(database: &TestDatabase, index: usize) -> usize {
    let mut connection = database.connect().await.unwrap();
    let dialect = collector_api::store::dialect::Dialect::detect(&mut connection).await.unwrap();
    dialect.list_partitions(&mut connection, &SERIES[index]).await.unwrap().len()
}

#[tokio::test]
async fn partitions_are_made_ahead_and_old_ones_dropped() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        for (index, series) in SERIES.iter().enumerate() {
            assert_eq!(partitions(&database, index).await, 3, "{}", series.name);
        }
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        assert_eq!(partitions(&database, 0).await, 3);
        assert_eq!(count(&database, "select count(*) from process_samples").await, 0);

        // Late data within the retention makes its own partition; a shorter retention drops it.
        let late = changed(host.report(1), |report| report.sampled_at -= time::Duration::days(20));
        let (status, answer) = replica.post_records(host.host_id, &[late, host.report(2)]).await;
        assert_eq!(status, 200, "{answer}");
        let before = partitions(&database, 0).await;
        assert_eq!(count(&database, "select count(*) from host_samples").await, 2);
        let mut connection = database.connect().await.unwrap();
        sqlx::query("update series set retention = interval '10 days'")
            .execute(&mut connection)
            .await
            .unwrap();
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        assert_eq!(partitions(&database, 0).await, before - 1);
        assert_eq!(count(&database, "select count(*) from host_samples").await, 1);
        assert_eq!(count(&database, "select count(*) from series where not is_rollup and raw_floor between now() - interval '10 days 1 minute' and now() - interval '10 days'").await, 7);

        // What is older than the floor does not come back.
        let late = changed(host.report(3), |report| report.sampled_at -= time::Duration::days(20));
        let (status, problem) = replica.post_records(host.host_id, &[late]).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &"timestamp_too_old".into()));
        assert_eq!(partitions(&database, 0).await, before - 1);

        sqlx::query("update ingest_rejects set received_at = now() - interval '31 days'")
            .execute(&mut connection)
            .await
            .unwrap();
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        assert_eq!(count(&database, "select count(*) from ingest_rejects").await, 0);
        worker.release().await.unwrap();
        replica.finish().await;
    }
}

#[tokio::test]
async fn one_worker_at_a_time_and_a_stolen_lease_cannot_commit() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let store = Store::connect(&database.url, 2).await.unwrap();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        let mut first = store.maintenance_connection(one).await.unwrap().unwrap();
        assert!(store.maintenance_connection(two).await.unwrap().is_none());
        first.renew().await.unwrap();

        // The first one sleeps through its lease.
        let mut connection = database.connect().await.unwrap();
        sqlx::query("update maintenance_lease set expires_at = now() - interval '1 s'")
            .execute(&mut connection)
            .await
            .unwrap();
        let mut second = store.maintenance_connection(two).await.unwrap().unwrap();
        assert!(second.lease().epoch > first.lease().epoch);
        let lost = |result: Result<(), MaintenanceError>| {
            assert!(matches!(result, Err(MaintenanceError::LeaseLost)), "{result:?}");
        };
        let now = crate::fleet::now();
        lost(first.move_floors(now, Duration::ZERO).await.map(drop));
        lost(first.drop_older(&SERIES[0]).await.map(drop));
        lost(first.ensure_ahead(&SERIES[0]).await.map(drop));
        lost(first.purge_rejects().await.map(drop));
        lost(first.renew().await);
        lost(maintenance::work(&mut first, Duration::ZERO).await);
        assert_eq!(partitions(&database, 0).await, 0);
        maintenance::work(&mut second, Duration::ZERO).await.unwrap();
        assert_eq!(partitions(&database, 0).await, 3);

        // Given back, it is free at once.
        second.release().await.unwrap();
        assert!(store.maintenance_connection(one).await.unwrap().is_some());
    }
}

/// What a database clock that jumps a year ahead must not do: drop what is kept, refuse what comes.
#[tokio::test]
async fn a_clock_that_jumps_ahead_drops_nothing() {
    const PASS: Duration = Duration::from_mins(1);
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        let old = changed(host.report(1), |report| report.sampled_at -= time::Duration::days(20));
        let (status, answer) = replica.post_records(host.host_id, &[old, host.report(2)]).await;
        assert_eq!(status, 200, "{answer}");
        let before = partitions(&database, 0).await;

        let real = worker.clock().await.unwrap();
        let jumped = real + time::Duration::days(365);
        for pass in 1..=10 {
            let lag = worker.move_floors(jumped, PASS).await.unwrap();
            assert!(lag > time::Duration::days(364), "pass {pass}: {lag}");
        }
        for series in &SERIES {
            assert_eq!(worker.drop_older(series).await.unwrap(), 0, "{}", series.name);
        }
        assert_eq!(partitions(&database, 0).await, before);
        assert_eq!(count(&database, "select count(*) from host_samples").await, 2);
        let late = changed(host.report(3), |report| report.sampled_at -= time::Duration::days(20));
        let (status, answer) = replica.post_records(host.host_id, &[late]).await;
        assert_eq!(status, 200, "{answer}");

        // Hosts that jumped too: it follows, a day per hour. The clock set right: it follows at once.
        let mut connection = database.connect().await.unwrap();
        sqlx::query("update heartbeats set last_sampled_at = $1")
            .bind(jumped)
            .execute(&mut connection)
            .await
            .unwrap();
        let lag = worker.move_floors(jumped, PASS * 60).await.unwrap();
        let advanced = jumped - real - lag;
        assert!((24..26).contains(&advanced.whole_hours()), "{advanced}");
        assert_eq!(worker.move_floors(real, PASS).await.unwrap(), time::Duration::ZERO);
        worker.release().await.unwrap();
        replica.finish().await;
    }
}
