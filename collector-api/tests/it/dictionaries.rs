//! Definitions and facts: the first of two colliding entries stays, the newest facts win.

use bytes::Bytes;
use collector_api::store::Store;
use collector_api::store::records::{Content, PreparedRecord, PreparedReport, RecordBatch};
use collector_api::store::reports::{Inserted, Unit};
use fleet_sim::database::{Engine, TestDatabase};
use shared_model::{Record, Report};

use crate::kit::{Host, changed, count};

fn report_of(record: &Record) -> &Report {
    let Record::Report(report) = record else { panic!("not a report") };
    report
}

fn batch(host: &Host, record: &Record) -> RecordBatch {
    let report = report_of(record).clone();
    let record = PreparedRecord {
        first_sequence: report.sequence,
        sequence: report.sequence,
        sha256: [0; 32],
        line: Bytes::new(),
        content: Content::Report(Box::new(PreparedReport::new(report))),
    };
    RecordBatch {
        host_id: host.host_id,
        stream_id: host.stream_id,
        place: None,
        records: vec![record],
    }
}

async fn insert(database: &TestDatabase, batches: &[RecordBatch]) -> Inserted {
    let store = Store::connect(&database.url, 1).await.unwrap();
    let mut connection = store.report_connection().await.unwrap();
    let units: Vec<_> = batches.iter().map(|batch| Unit { batch, records: 0..1 }).collect();
    connection.ensure_partitions(&units).await.unwrap();
    connection.insert_reports(&units).await.unwrap()
}

#[tokio::test]
async fn colliding_entries_are_counted_and_the_first_stays() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let host = Host::enroll(&database, 1).await;
        let record = host.report(1);
        let (process, instance) = (
            &report_of(&record).process_definitions[0],
            &report_of(&record).instance_definitions[0],
        );
        let mut connection = database.connect().await.unwrap();
        sqlx::query("insert into processes (process_id, command_line) values ($1, 'first')")
            .bind(process.process_id.0)
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::query(
            "insert into process_instances (host_id, instance_id, process_id, boot_id, creation_time,
                start_ticks, pid, described_at)
            values ($1, $2, $3, gen_random_uuid(), now(), 4711, 4711, '-infinity')",
        )
        .bind(host.host_id)
        .bind(instance.instance_id.0)
        .bind(process.process_id.0)
        .execute(&mut connection)
        .await
        .unwrap();
        let inserted = insert(&database, &[batch(&host, &record)]).await;
        assert_eq!((inserted.collisions.processes, inserted.collisions.instances), (1, 1));
        let kept = "select count(*) from processes where command_line = 'first'";
        assert_eq!(count(&database, kept).await, 1);
        let kept = "select count(*) from process_instances where (pid, start_ticks) = (4711, 4711)";
        assert_eq!(count(&database, kept).await, 1);
        let definitions = report_of(&record).process_definitions.len();
        let others = "select count(*) from processes";
        assert_eq!(count(&database, others).await, i64::try_from(definitions).unwrap());
        // The same entries again collide with nothing new.
        let again = changed(host.report(2), |report| {
            report.process_definitions = vec![];
            report.instance_definitions = vec![];
        });
        let inserted = insert(&database, &[batch(&host, &again)]).await;
        assert_eq!((inserted.collisions.processes, inserted.collisions.instances), (0, 0));
    }
}

/// Two hosts run one command line under different names: each keeps its own.
#[tokio::test]
async fn a_short_name_belongs_to_the_run() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (one, two) = (Host::enroll(&database, 1).await, Host::enroll(&database, 2).await);
        let named = |host: &Host, name: &str| {
            let record = changed(host.report(1), |report| {
                let process = shared_model::ProcessDefinition {
                    process_id: shared_model::ProcessId::of("same"),
                    command_line: "same".into(),
                };
                report.instance_definitions.truncate(1);
                report.instance_definitions[0].process_id = process.process_id;
                report.instance_definitions[0].executable_name = Some(name.into());
                report.process_definitions = vec![process];
            });
            batch(host, &record)
        };
        insert(&database, &[named(&one, "first"), named(&two, "second")]).await;
        let mut connection = database.connect().await.unwrap();
        let names: Vec<Option<String>> = sqlx::query_scalar(
            "select executable_name from process_instances join processes using (process_id)
            where command_line = 'same' order by 1",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(names, [Some("first".to_owned()), Some("second".to_owned())]);
    }
}

#[tokio::test]
async fn facts_of_many_hosts_are_updated_and_unchanged_ones_left_alone() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (one, two) = (Host::enroll(&database, 1).await, Host::enroll(&database, 2).await);
        let describe = |host: &Host, sequence, kernel: &str, machine: Option<&str>| {
            let record = changed(host.report(sequence), |report| {
                let mut facts = report_of(&host.report(1)).facts.clone().unwrap();
                facts.kernel_release = kernel.into();
                facts.machine_id_hash = machine.map(Into::into);
                report.facts = Some(facts);
            });
            batch(host, &record)
        };
        insert(&database, &[describe(&one, 1, "6.1", Some("a")), describe(&two, 1, "6.2", None)])
            .await;
        let facts = async || -> Vec<(String, String, Option<String>, String)> {
            let mut connection = database.connect().await.unwrap();
            sqlx::query_as(
                "select host_name, kernel_release, machine_id_hash, facts_updated_at::text
                from hosts order by host_id",
            )
            .fetch_all(&mut connection)
            .await
            .unwrap()
        };
        let before = facts().await;
        let seen = |row: &(String, String, Option<String>, String)| {
            (row.0.clone(), row.1.clone(), row.2.clone())
        };
        assert_eq!(seen(&before[0]), ("host-1".into(), "6.1".into(), Some("a".into())));
        assert_eq!(seen(&before[1]), ("host-2".into(), "6.2".into(), None));
        // One host changes, to a fact that is gone too; the other says the same again.
        insert(&database, &[describe(&one, 2, "6.3", None), describe(&two, 2, "6.2", None)]).await;
        let after = facts().await;
        assert_eq!(seen(&after[0]), ("host-1".into(), "6.3".into(), None));
        assert_ne!(after[0].3, before[0].3);
        assert_eq!(after[1], before[1]);
    }
}
