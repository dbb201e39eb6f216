//! Dictionaries collected, widths of partitions adapted.

use std::time::Duration;

use collector_api::maintenance;
use collector_api::store::dialect::Dialect;
use collector_api::store::series::SERIES;
use fleet_sim::database::{Engine, TestDatabase};
use shared_model::Record;
use uuid::Uuid;

use crate::kit::{Host, Replica, changed, count};
use crate::rollups::{execute, settle};

const INSTANCES: &str = "select count(*) from process_instances";
const PROCESSES: &str = "select count(*) from processes";

fn days_ago(record: Record, days: i64) -> Record {
    changed(record, |report| report.sampled_at -= time::Duration::days(days))
}

#[tokio::test]
async fn dictionaries_are_collected_when_nothing_names_them_and_come_back() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let (gone, alive) = (Host::enroll(&database, 1).await, Host::enroll(&database, 2).await);
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        replica.post_records(gone.host_id, &[days_ago(gone.report(1), 25)]).await;
        // Behind the roll-ups' horizon, also in the first minutes of an hour.
        let settled =
            changed(alive.report(1), |report| report.sampled_at -= time::Duration::minutes(10));
        replica.post_records(alive.host_id, &[settled]).await;
        // An instance of a late agent: described long ago, and alive since.
        execute(
            &database,
            "update process_instances set described_at = now() - interval '25 days'
            where instance_id = (select max(instance_id) from process_samples
                where sampled_at > now() - interval '2 days')"
                .into(),
        )
        .await;
        settle(&database, &mut worker).await;
        assert_eq!(count(&database, INSTANCES).await, 24, "everything is kept");
        let processes = count(&database, PROCESSES).await;

        execute(&database, "update series set retention = interval '1 day'".into()).await;
        settle(&database, &mut worker).await;
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        assert_eq!(count(&database, INSTANCES).await, 12, "those of the second host are kept");
        assert_eq!(
            count(&database, "select count(*) from process_instances where described_at < now() - interval '1 day'").await,
            0
        );
        // Both hosts ran the same commands: none is without instances. Then one of them changes.
        assert_eq!(count(&database, PROCESSES).await, processes);
        execute(
            &database,
            "insert into processes (process_id, command_line)
                values (gen_random_uuid(), 'sh -c once');
            update processes set unreferenced_since = now() - interval '50 days'"
                .into(),
        )
        .await;
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        assert_eq!(count(&database, PROCESSES).await, processes, "only the one without instances");
        assert_eq!(
            count(&database, "select count(*) from processes where unreferenced_since is not null")
                .await,
            0
        );

        // Described again, all of it is there again.
        execute(&database, "delete from process_instances".into()).await;
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        assert_eq!(
            count(&database, "select count(*) from processes where unreferenced_since is null")
                .await,
            0
        );
        let again = changed(alive.report(1), |report| report.sequence = 2);
        let (status, answer) = replica.post_records(alive.host_id, &[again]).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(count(&database, INSTANCES).await, 12);
        assert_eq!(
            count(&database, "select count(*) from processes where unreferenced_since is not null")
                .await,
            0
        );
        replica.finish().await;
    }
}

/// While processes lose their instances, are marked and removed at once, agents describe them.
#[tokio::test]
async fn no_instance_is_ever_without_its_process() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let host = Host::enroll(&database, 1).await;
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        let sending = async {
            for sequence in 1..=80 {
                // The first report describes everything; each is a new agent's first.
                let record = changed(host.report(1), |report| report.sequence = sequence);
                let (status, answer) = replica.post_records(host.host_id, &[record]).await;
                assert_eq!(status, 200, "{answer}");
                assert_eq!(count(&database, INSTANCES).await, 12);
                let orphans = "select count(*) from process_instances i
                    where not exists (select from processes p where p.process_id = i.process_id)";
                assert_eq!(count(&database, orphans).await, 0);
                execute(&database, "delete from process_instances".into()).await;
            }
        };
        let collecting = async {
            let mut removed = 0;
            loop {
                worker.renew().await.unwrap();
                worker.mark_processes().await.unwrap();
                execute(
                    &database,
                    "update processes set unreferenced_since = now() - interval '50 days'
                    where unreferenced_since is not null"
                        .into(),
                )
                .await;
                removed += worker.collect_processes().await.unwrap();
                tokio::time::sleep(Duration::from_millis(removed % 3)).await;
                if removed > 1_000_000 {
                    return removed;
                }
            }
        };
        let sent = tokio::select! {
            () = sending => true,
            _ = collecting => false,
        };
        assert!(sent);
        replica.finish().await;
    }
}

#[tokio::test]
async fn the_width_of_partitions_follows_their_size() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let host = Host::enroll(&database, 1).await;
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        replica.post_records(host.host_id, &[days_ago(host.report(1), 3), host.report(2)]).await;
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
        let width = "select (extract(epoch from chunk) / 3600)::bigint from series where series = 'process_samples'";
        assert_eq!(count(&database, width).await, 24, "small, so wider than 6 hours");
        // The next pieces have that width, where nothing is in their way, and hold every row.
        execute(
            &database,
            "create table before as select * from process_samples order by sampled_at".into(),
        )
        .await;
        let reports: Vec<_> =
            (3..=20).map(|n| days_ago(host.report(n), 6 + i64::try_from(n % 4).unwrap())).collect();
        let (status, answer) = replica.post_records(host.host_id, &reports).await;
        assert_eq!(status, 200, "{answer}");
        settle(&database, &mut worker).await;
        let mut connection = database.connect().await.unwrap();
        let dialect = Dialect::detect(&mut connection).await.unwrap();
        let pieces = dialect.list_partitions(&mut connection, &SERIES[0]).await.unwrap();
        let day = pieces.iter().filter(|p| p.ends_at - p.begins_at == time::Duration::DAY).count();
        assert!(day >= 4, "{pieces:#?}");
        for pair in pieces.windows(2) {
            assert!(pair[0].ends_at <= pair[1].begins_at, "{pieces:#?}");
        }
        let rows = 13 * 20;
        assert_eq!(count(&database, "select count(*) from process_samples").await, rows);
        let noted = "select count(*) from maintenance_steps where finished_at is not null and error is null";
        assert_eq!(count(&database, noted).await, 11);
        let measured = "select count(*) from maintenance_tables where partitions > 0 and bytes > 0";
        assert_eq!(
            count(&database, measured).await,
            count(&database, "select count(*) from series").await
        );
        replica.finish().await;
    }
}
