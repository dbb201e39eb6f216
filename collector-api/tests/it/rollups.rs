//! Roll-ups are what the samples add up to, whatever arrived when, and whoever died meanwhile.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use collector_api::maintenance;
use collector_api::store::Store;
use collector_api::store::maintenance::{MaintenanceConnection, MaintenanceError};
use collector_api::store::rollups::Width;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::random::Random;
use shared_model::{BlockDeviceSample, NetworkInterfaceSample, Record, Timestamp};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::kit::{Host, Replica, changed, count};

mod readers;

/// The lock that ingest holds shared.
const FLOOR_LOCK: i64 = 0x7072_6f63_666c_6f6f;
const HOSTS: u64 = 3;
const REPORTS: u64 = 120;

/// The statements that compute the roll-ups straight from the samples, and the tables they equal.
const TABLES: [(&str, &str, &str); 4] = [
    ("process_rollup_5m", "5 minutes", include_str!("rollups/processes.sql")),
    ("process_rollup_1h", "1 hour", include_str!("rollups/processes.sql")),
    ("host_rollup_5m", "5 minutes", include_str!("rollups/hosts.sql")),
    ("host_rollup_1h", "1 hour", include_str!("rollups/hosts.sql")),
];

pub(crate) async fn execute(database: &TestDatabase, statement: String) {
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

async fn database_clock(database: &TestDatabase) -> Timestamp {
    let mut connection = database.connect().await.unwrap();
    sqlx::query_scalar("select now()").fetch_one(&mut connection).await.unwrap()
}

/// Writes what the roll-ups of buckets that are over must be into `expected_<table>`.
async fn compute_expected(database: &TestDatabase) {
    for (table, width, statement) in TABLES {
        let statement = statement.replace("$1", &format!("interval '{width}'"));
        let create = format!(
            "create table expected_{table} as select * from ({statement}) as direct
            where sampled_at <= procfleet_rollup_until('{width}')"
        );
        execute(database, create).await;
    }
}

/// Compares every bucket, and every column of it, with `expected_<table>`.
async fn assert_expected(database: &TestDatabase) {
    let mut connection = database.connect().await.unwrap();
    for (table, ..) in TABLES {
        let differences: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "with expected as (select to_jsonb(e) as row from expected_{table} e),
                actual as (select to_jsonb(a) as row from {table} a)
            (select 'missing ' || row::text from (select row from expected except all select row from actual) m limit 2)
            union all
            (select 'surplus ' || row::text from (select row from actual except all select row from expected) s limit 2)"
        )))
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert!(differences.is_empty(), "{:?} {table}: {differences:#?}", database.engine);
        let rows: i64 =
            sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from expected_{table}")))
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert!(rows > 0, "{table}");
    }
}

/// Does all the work there is.
pub(crate) async fn settle(database: &TestDatabase, worker: &mut MaintenanceConnection) {
    for _ in 0..20 {
        maintenance::work(worker, Duration::ZERO).await.unwrap();
        let left = count(
            database,
            "select (select count(*) from rollup_dirty)
                + (select count(*) from rollup_watermark where expanded < horizon)",
        )
        .await;
        if left == 0 {
            return;
        }
    }
    panic!("the roll-ups do not come to an end");
}

/// A time in the last 30 hours, often on an edge of a bucket.
fn some_time(random: &mut Random, now: Timestamp) -> Timestamp {
    let at = now - Duration::from_micros(random.below(30 * 3_600_000_000));
    let width = [300, 300, 3600][usize::try_from(random.below(3)).unwrap()];
    let edge = Timestamp::from_unix_timestamp(at.unix_timestamp() / width * width).unwrap();
    match random.below(8) {
        0 => edge,
        1 => edge + Duration::from_micros(1),
        2 => edge - Duration::from_micros(1),
        _ => at,
    }
}

/// The host's reports of one stream, in the order they are sent, at any time.
fn reports(host: &Host, random: &mut Random, now: Timestamp) -> Vec<Record> {
    let record = |sequence| {
        changed(host.report(sequence), |report| {
            report.sampled_at = some_time(random, now);
            report.interval_ms = 1000 + u32::try_from(random.below(60_000)).unwrap();
            report.block_devices.push(BlockDeviceSample {
                device: "dm-0".into(),
                write_bytes: Some(7),
                ..report.block_devices[0].clone()
            });
            report.network_interfaces.push(NetworkInterfaceSample {
                interface: "lo".into(),
                ..report.network_interfaces[0].clone()
            });
            report.host.memory_available_bytes =
                (random.below(2) == 0).then(|| random.below(1 << 33));
            report.processes[1].cpu_user_us = None;
            report.processes[2].file_descriptor_count = Some(9);
        })
    };
    (1..=REPORTS).map(record).collect()
}

/// Sends in small batches, some of them again.
async fn send(replica: &Replica, host: &Host, records: &[Record], mut random: Random) {
    let mut sent = 0;
    while sent < records.len() {
        let size = 1 + usize::try_from(random.below(5)).unwrap();
        // A repeat of what was acknowledged is a duplicate.
        let from = sent.saturating_sub(usize::try_from(random.below(4)).unwrap());
        let to = records.len().min(sent + size);
        let (status, answer) = replica.post_records(host.host_id, &records[from..to]).await;
        assert_eq!(status, 200, "{answer}");
        sent = to;
    }
}

/// One step of roll-ups, as the worker does it.
async fn step(
    worker: &mut MaintenanceConnection,
    random: &mut Random,
) -> Result<(), MaintenanceError> {
    worker.expand().await?;
    for width in [Width::Fine, Width::Hour] {
        worker.ensure_rollups(width).await?;
        for is_late in [false, true] {
            if random.below(4) > 0 {
                worker.roll_up(width, is_late).await?;
            }
        }
    }
    Ok(())
}

/// Moves the horizon in 40 steps from 31 hours ago to now, and computes meanwhile, killed now and
/// then.
async fn roll_up_meanwhile(database: &TestDatabase, store: &Store, mut random: Random) {
    let mut worker = None;
    for hours_left in (0..=40_i32).rev() {
        execute(
            database,
            format!(
                "begin; select pg_advisory_xact_lock({FLOOR_LOCK});
                update rollup_watermark set horizon = greatest(horizon, date_bin('5 minutes',
                    now() - {hours_left} * interval '46 minutes' - interval '2 minutes', '2000-01-01 00:00:00+00'));
                commit"
            ),
        )
        .await;
        if worker.is_none() {
            execute(database, "update maintenance_lease set expires_at = '-infinity'".into()).await;
            worker = store.maintenance_connection(Uuid::new_v4()).await.unwrap();
        }
        let Some(connection) = worker.as_mut() else { continue };
        let killed = async {
            if random.clone().below(3) == 0 {
                database.admin().terminate_connections("procfleet-maintenance").await.unwrap();
            }
        };
        let mut choices = random.clone();
        let (done, ()) = tokio::join!(step(connection, &mut choices), killed);
        random.next_u64();
        if done.is_err() {
            worker = None;
        }
    }
}

#[tokio::test]
async fn roll_ups_equal_the_samples_after_any_arrival() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        execute(
            &database,
            "update rollup_watermark set expanded = expanded - interval '31 hours', horizon = horizon - interval '31 hours'".into(),
        )
        .await;
        let replica = Replica::start(&database).await;
        let now = database_clock(&database).await;
        let seed = u64::from(now.microsecond());
        eprintln!("{engine:?}, seed {seed}");
        let mut hosts = Vec::new();
        for index in 0..HOSTS {
            let host = Host::enroll(&database, index).await;
            let records = reports(&host, &mut Random::new(seed + index), now);
            hosts.push((host, records));
        }
        let sending = futures_util::future::join_all(hosts.iter().enumerate().map(
            |(index, (host, records))| {
                send(&replica, host, records, Random::new(seed * 7 + index as u64))
            },
        ));
        let rolling = roll_up_meanwhile(&database, &replica.store, Random::new(seed * 11));
        let reading = readers::assert_told_truly(&database, now, Random::new(seed * 13), 20);
        tokio::join!(sending, rolling, reading);
        execute(&database, "update maintenance_lease set expires_at = '-infinity'".into()).await;
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        settle(&database, &mut worker).await;
        assert_eq!(
            count(&database, "select count(*) from host_samples").await,
            i64::try_from(HOSTS * REPORTS).unwrap()
        );
        compute_expected(&database).await;
        assert_expected(&database).await;
        readers::assert_told_truly(&database, now, Random::new(seed * 17), 20).await;
        replica.finish().await;
    }
}

#[tokio::test]
async fn roll_ups_outlive_their_samples() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let host = Host::enroll(&database, 1).await;
        let back = |record: Record, days: i64| {
            changed(record, |report| report.sampled_at -= time::Duration::days(days))
        };
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        let records: Vec<_> = (1..=30)
            .map(|n| back(host.report(n), [0, 20, 21, 5][usize::try_from(n % 4).unwrap()]))
            .collect();
        replica.post_records(host.host_id, &records[..20]).await;
        settle(&database, &mut worker).await;
        // These have not been rolled up when their retention ends.
        replica.post_records(host.host_id, &records[20..]).await;
        compute_expected(&database).await;
        execute(
            &database,
            "update series set retention = interval '10 days' where not is_rollup".into(),
        )
        .await;
        settle(&database, &mut worker).await;
        assert_expected(&database).await;
        let old =
            "select count(*) from process_samples where sampled_at < now() - interval '15 days'";
        assert_eq!(count(&database, old).await, 0);
        let rolled_up =
            "select count(*) from process_rollup_1h where sampled_at < now() - interval '15 days'";
        assert!(count(&database, rolled_up).await > 0);

        // What is gone is not computed again when other buckets of the same host are.
        let late = changed(back(host.report(31), 5), |report| report.interval_ms = 77_000);
        let (status, answer) = replica.post_records(host.host_id, &[late]).await;
        assert_eq!(status, 200, "{answer}");
        settle(&database, &mut worker).await;
        execute(&database, "delete from expected_host_rollup_5m where sampled_at > now() - interval '15 days'; delete from host_rollup_5m where covered_ms = 77000".into()).await;
        let kept = "select count(*) from expected_host_rollup_5m e join host_rollup_5m r using (sampled_at, host_id)
            where to_jsonb(e) @> to_jsonb(r)";
        let expected = count(&database, "select count(*) from expected_host_rollup_5m").await;
        assert_eq!(count(&database, kept).await, expected);
        replica.finish().await;
    }
}

/// Runs `future` until it has been woken `times` times, then drops it where it stands.
async fn abort_after<T>(mut times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn work_cut_short_anywhere_loses_and_repeats_nothing() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let host = Host::enroll(&database, 1).await;
        let now = database_clock(&database).await;
        execute(
            &database,
            "update rollup_watermark set expanded = expanded - interval '3 hours';
            update series set retention = interval '25 days' where not is_rollup"
                .into(),
        )
        .await;
        let (mut sequence, mut cuts) = (0, 0);
        let mut random = Random::new(u64::from(now.microsecond()));
        // Every 17th place where the work waits for the database, until it gets to its end: how many there are
        // depends on how quickly answers come.
        for times in (0..).step_by(17) {
            sequence += 1;
            let days = [0, 0, 1, 19][usize::try_from(random.below(4)).unwrap()];
            let record = changed(host.report(sequence), |report| {
                report.sampled_at = some_time(&mut random, now) - time::Duration::days(days);
            });
            let (status, answer) = replica.post_records(host.host_id, &[record]).await;
            assert_eq!(status, 200, "{answer}");
            execute(&database, "update maintenance_lease set expires_at = '-infinity'".into())
                .await;
            let worker = replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap();
            let mut worker = worker.unwrap();
            match abort_after(times, maintenance::work(&mut worker, Duration::ZERO)).await {
                Some(Ok(())) => break,
                Some(Err(error)) => panic!("{error:?}"),
                None => cuts += 1,
            }
        }
        assert!(cuts > 5, "{cuts}");
        execute(&database, "update maintenance_lease set expires_at = '-infinity'".into()).await;
        let mut worker =
            replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        settle(&database, &mut worker).await;
        let stored = "select count(*) from host_samples";
        assert_eq!(count(&database, stored).await, i64::try_from(sequence).unwrap());
        compute_expected(&database).await;
        assert_expected(&database).await;
        // Then what is older than a day goes, cut short as well; the roll-ups stay as they are.
        execute(
            &database,
            "update series set retention = interval '3 days' where not is_rollup".into(),
        )
        .await;
        for times in (0..).step_by(17) {
            execute(&database, "update maintenance_lease set expires_at = '-infinity'".into())
                .await;
            let worker = replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap();
            let mut worker = worker.unwrap();
            if abort_after(times, maintenance::work(&mut worker, Duration::ZERO)).await.is_some() {
                break;
            }
        }
        let old =
            "select count(*) from process_samples where sampled_at < now() - interval '5 days'";
        assert_eq!(count(&database, old).await, 0);
        assert_expected(&database).await;
        replica.finish().await;
    }
}
