//! The verdict table of `POST /v1/reports`, through the router, on both engines.

use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::oracle;
use shared_model::{Gap, GapReason, Record};

use crate::kit::{Host, Replica, changed, count};

fn gap(host: &Host, first_sequence: u64, sequence: u64) -> Record {
    let (host_id, stream_id) = (host.host_id, host.stream_id);
    Record::Gap(Gap { host_id, stream_id, first_sequence, sequence, reason: GapReason::SpoolFull })
}

#[tokio::test]
async fn every_verdict_on_timescaledb() {
    every_verdict(Engine::TimescaleDb).await;
}

#[tokio::test]
async fn every_verdict_on_postgresql() {
    every_verdict(Engine::PostgreSql).await;
}

async fn every_verdict(engine: Engine) {
    let database = TestDatabase::create(engine).await.unwrap();
    let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
    let id = host.host_id;
    assert_eq!(replica.cursor(id, host.stream_id).await, 0);

    // An unknown stream begins with 1.
    let (status, problem) = replica.post_records(id, &host.reports(2..=2)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &"sequence_gap".into()), "{problem}");
    assert_eq!(problem["acknowledged_sequence"], 0);
    assert_eq!(count(&database, "select count(*) from ingest_cursors").await, 0);

    let accepted = |answer: &serde_json::Value| {
        (
            answer["acknowledged_sequence"].as_u64().unwrap(),
            answer["accepted"].as_u64().unwrap(),
            answer["duplicates"].as_u64().unwrap(),
        )
    };
    let (status, answer) = replica.post_records(id, &host.reports(1..=3)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(accepted(&answer), (3, 3, 0));
    // Duplicate: the same again.
    let (_, answer) = replica.post_records(id, &host.reports(1..=3)).await;
    assert_eq!(accepted(&answer), (3, 0, 3));
    // Overlap: sliced.
    let (_, answer) = replica.post_records(id, &host.reports(2..=5)).await;
    assert_eq!(accepted(&answer), (5, 2, 2));
    // All older than the cursor.
    let (_, answer) = replica.post_records(id, &host.reports(2..=3)).await;
    assert_eq!(accepted(&answer), (5, 0, 2));
    // Records are missing.
    let (status, problem) = replica.post_records(id, &host.reports(7..=8)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &"sequence_gap".into()));
    assert_eq!(problem["acknowledged_sequence"], 5);
    // The same place, other bytes.
    let fork = changed(host.report(5), |report| report.host.forks = Some(4711));
    let (status, problem) = replica.post_records(id, &[fork, host.report(6)]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &"stream_conflict".into()));
    assert_eq!(problem["acknowledged_sequence"], 5);
    // A gap that straddles the cursor: recorded for what is new of it.
    let (status, answer) = replica.post_records(id, &[gap(&host, 4, 8), host.report(9)]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(accepted(&answer), (9, 2, 0));
    // Another stream of the same host stands on its own.
    let other = Host::enroll(&database, 2).await;
    assert_eq!(replica.cursor(id, other.stream_id).await, 0);
    assert_eq!(replica.cursor(id, host.stream_id).await, 9);

    let mut sent = host.reports(1..=5);
    sent.extend([gap(&host, 6, 8), host.report(9)]);
    let mut connection = database.connect().await.unwrap();
    let compared = oracle::compare(&mut connection, &sent).await.unwrap();
    assert_eq!((compared.reports, compared.gaps), (6, 1));
    let heartbeat: (bool, bool, i32, String) = sqlx::query_as(
        "select last_seen_at > now() - interval '1 minute',
            deadline_at = last_seen_at + interval '18 s', interval_ms, host_name
        from heartbeats join hosts using (host_id) where host_id = $1",
    )
    .bind(id)
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(heartbeat, (true, true, 1000, "host-1".to_owned()));
    replica.finish().await;
}

#[tokio::test]
async fn a_new_stream_may_begin_with_a_gap_and_late_data_finds_its_partition() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
        let late = changed(host.report(41), |report| report.sampled_at -= time::Duration::days(20));
        let sent = [gap(&host, 1, 40), late, host.report(42)];
        let (status, answer) = replica.post_records(host.host_id, &sent).await;
        assert_eq!(status, 200, "{answer}");
        let mut connection = database.connect().await.unwrap();
        oracle::compare(&mut connection, &sent).await.unwrap();
        replica.finish().await;
    }
}
