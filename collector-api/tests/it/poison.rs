//! Records that can never be stored are recorded and passed over; the others are stored.

use std::time::Duration;

use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::simulated::encode_frame;
use shared_model::Record;

use crate::kit::{Host, Replica, changed, count};

/// Stored reports of a host, told by its host samples.
async fn stored(database: &TestDatabase, host: &Host) -> i64 {
    let mut connection = database.connect().await.unwrap();
    sqlx::query_scalar("select count(*) from host_samples where host_id = $1")
        .bind(host.host_id)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn poison_in_the_middle_is_passed_over() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
        // Invalid by value, unreadable by type, too old, too early, and one with NUL.
        let invalid =
            changed(host.report(2), |report| report.processes[1].process_count = u32::MAX);
        let broken = String::from_utf8(host.report(3).encode()).unwrap();
        let broken = broken.replacen("\"interval_ms\":1000", "\"interval_ms\":-1", 1);
        let old = changed(host.report(4), |report| report.sampled_at -= time::Duration::days(40));
        let early = changed(host.report(5), |report| report.sampled_at += time::Duration::hours(2));
        let nul = changed(host.report(6), |report| report.filesystems[0].device = "a\0b".into());
        let mut body = encode_frame(&host.report(1)).unwrap();
        body.extend(encode_frame(&invalid).unwrap());
        body.extend(zstd::bulk::compress(broken.as_bytes(), 3).unwrap());
        for record in [&old, &early, &nul, &host.report(7)] {
            body.extend(encode_frame(record).unwrap());
        }
        let (status, answer) = replica.post(host.host_id, body.clone()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["acknowledged_sequence"], 7);
        assert_eq!(answer["accepted"], 2);
        let codes: Vec<_> = answer["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rejected| {
                (rejected["sequence"].as_u64().unwrap(), rejected["code"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            codes,
            [
                (2, "invalid_report"),
                (3, "invalid_report"),
                (4, "timestamp_too_old"),
                (5, "timestamp_in_future"),
                (6, "invalid_report"),
            ]
        );
        assert_eq!(stored(&database, &host).await, 2);
        assert_eq!(count(&database, "select count(*) from ingest_rejects where body is not null and body_sha256 = sha256(body)").await, 5);
        // The repeat: everything is decided.
        let (_, answer) = replica.post(host.host_id, body).await;
        assert_eq!((&answer["accepted"], &answer["duplicates"]), (&0.into(), &7.into()));
        // Nothing but poison: 422, and the cursor moved.
        let bad = changed(host.report(8), |report| report.interval_ms = 0);
        let (status, problem) = replica.post_records(host.host_id, &[bad]).await;
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (422, &"invalid_report".into()),
            "{problem}"
        );
        assert_eq!(problem["acknowledged_sequence"], 8);
        assert_eq!(problem["rejected"][0]["sequence"], 8);
        assert_eq!(problem["errors"][0]["field"], "interval_ms");
        let (status, _) = replica.post_records(host.host_id, &host.reports(9..=9)).await;
        assert_eq!(status, 200);
        replica.finish().await;
    }
}

#[tokio::test]
async fn a_row_the_database_refuses_is_found_by_halving() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let mut connection = database.connect().await.unwrap();
        sqlx::query("alter table process_samples add constraint test check (thread_count <> 4711)")
            .execute(&mut connection)
            .await
            .unwrap();
        let replica = Replica::start(&database).await;
        let mut hosts = Vec::new();
        for seed in 0..6 {
            hosts.push(Host::enroll(&database, seed).await);
        }
        // All six requests meet in one group; two of them hold one bad report each.
        let requests = hosts.iter().enumerate().map(|(index, host)| {
            let mut records = host.reports(1..=8);
            if index % 3 == 1 {
                let bad = records.remove(4);
                records.insert(
                    4,
                    changed(bad, |report| report.processes[3].thread_count = Some(4711)),
                );
            }
            let replica = &replica;
            async move { replica.post_records(host.host_id, &records).await }
        });
        let answers = futures_util::future::join_all(requests).await;
        for (index, (host, (status, answer))) in hosts.iter().zip(answers).enumerate() {
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["acknowledged_sequence"], 8);
            let (expected, rejected) = if index % 3 == 1 { (7, 1) } else { (8, 0) };
            assert_eq!(answer["accepted"], expected, "{answer}");
            assert_eq!(answer["rejected"].as_array().map_or(0, Vec::len), rejected);
            assert_eq!(stored(&database, host).await, expected);
        }
        assert_eq!(
            count(&database, "select count(*) from ingest_rejects where sequence = 5").await,
            2
        );
        replica.finish().await;
    }
}

#[tokio::test]
async fn an_error_nobody_foresaw_discards_nothing() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
    let mut connection = database.connect().await.unwrap();
    // 42P01: a table is gone.
    sqlx::query("alter table host_samples rename to lost").execute(&mut connection).await.unwrap();
    let records: Vec<Record> = host.reports(1..=3);
    let (status, problem) = replica.post_records(host.host_id, &records).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &"database_unavailable".into()));
    assert_eq!(replica.cursor(host.host_id, host.stream_id).await, 0);
    assert_eq!(count(&database, "select count(*) from ingest_rejects").await, 0);
    sqlx::query("alter table lost rename to host_samples").execute(&mut connection).await.unwrap();
    eventually(Duration::from_secs(10), "the same request is stored", async || {
        let (status, answer) = replica.post_records(host.host_id, &records).await;
        (status == 200).then_some(()).ok_or(answer)
    })
    .await
    .unwrap();
    assert_eq!(stored(&database, &host).await, 3);
    replica.finish().await;
}

/// A host that sends nothing but poison takes no more than its share of the database.
#[tokio::test]
async fn the_bodies_of_rejects_are_bounded_per_host() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let (noisy, quiet) = (Host::enroll(&database, 1).await, Host::enroll(&database, 2).await);
        let bad =
            |host: &Host, sequence| changed(host.report(sequence), |report| report.interval_ms = 0);
        let (status, problem) = replica.post_records(quiet.host_id, &[bad(&quiet, 1)]).await;
        assert_eq!(status, 422, "{problem}");
        for from in [1, 61] {
            let records: Vec<_> = (from..from + 60).map(|sequence| bad(&noisy, sequence)).collect();
            let (status, problem) = replica.post_records(noisy.host_id, &records).await;
            assert_eq!(
                (status.as_u16(), &problem["acknowledged_sequence"]),
                (422, &(from + 59).into())
            );
        }
        let all = "select count(*) from ingest_rejects where body_sha256 is not null";
        assert_eq!(count(&database, all).await, 121, "every reject is on record");
        let bodies = "select count(*) from ingest_rejects where body is not null and sequence > 20";
        assert_eq!(count(&database, bodies).await, 100, "the newest bodies of the noisy host");
        let bodies = "select count(*) from ingest_rejects where body is not null";
        assert_eq!(count(&database, bodies).await, 101, "and the one of the other host");
        // Few, but large.
        let large = |sequence| {
            changed(bad(&noisy, sequence), |report| {
                let row = report.process_definitions.first().cloned();
                let row = row.unwrap_or_else(|| shared_model::ProcessDefinition {
                    process_id: shared_model::ProcessId::of(""),
                    command_line: String::new(),
                });
                let command_line = "x".repeat(60 << 10);
                report.process_definitions =
                    vec![shared_model::ProcessDefinition { command_line, ..row }; 2];
            })
        };
        let records: Vec<_> = (121..=150).map(large).collect();
        let (status, problem) = replica.post_records(noisy.host_id, &records).await;
        assert_eq!(status, 422, "{problem}");
        let bytes = "select sum(length(body))::bigint from ingest_rejects where sequence > 20";
        let bytes = count(&database, bytes).await;
        assert!((900 << 10..=1 << 20).contains(&bytes), "{bytes}");
        replica.finish().await;
    }
}
