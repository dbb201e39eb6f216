//! Two replicas, repeats, and a database that kills connections.

use std::time::Duration;

use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::oracle;
use fleet_sim::random::Random;
use sqlx::Connection as _;

use crate::kit::{Host, Replica, count};

#[tokio::test]
async fn the_same_request_through_two_replicas_is_stored_once() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (a, b) = (Replica::start(&database).await, Replica::start(&database).await);
        let mut hosts = Vec::new();
        for seed in 0..8 {
            hosts.push(Host::enroll(&database, seed).await);
        }
        for round in 0..4_u64 {
            let sequences = round * 5 + 1..=round * 5 + 5;
            let requests = hosts.iter().flat_map(|host| {
                let records = host.reports(sequences.clone());
                [&a, &b].map(|replica| {
                    let records = records.clone();
                    async move { replica.post_records(host.host_id, &records).await }
                })
            });
            for (status, answer) in futures_util::future::join_all(requests).await {
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["acknowledged_sequence"], round * 5 + 5);
                let stored = (answer["accepted"].as_u64(), answer["duplicates"].as_u64());
                assert!([(Some(5), Some(0)), (Some(0), Some(5))].contains(&stored), "{answer}");
            }
        }
        let mut connection = database.connect().await.unwrap();
        for host in &hosts {
            oracle::compare(&mut connection, &host.reports(1..=20)).await.unwrap();
        }
        a.finish().await;
        b.finish().await;
    }
}

/// Sends `total` reports of `host`, three at a time through random replicas, repeating what was not confirmed.
async fn drain(host: &Host, replicas: [&Replica; 2], total: u64, seed: u64) -> anyhow::Result<()> {
    let (mut random, mut last) = (Random::new(seed), 0);
    eventually(Duration::from_mins(2), "everything is acknowledged", async || {
        while last < total {
            let records = host.reports(last + 1..=(last + 3).min(total));
            let replica = replicas[usize::from(random.below(2) == 1)];
            let (status, answer) = replica.post_records(host.host_id, &records).await;
            if status != 200 {
                return Err(answer);
            }
            last = answer["acknowledged_sequence"].as_u64().unwrap_or(last);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn killed_database_connections_lose_and_double_nothing() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (a, b) = (Replica::start(&database).await, Replica::start(&database).await);
        let mut hosts = Vec::new();
        for seed in 0..6 {
            hosts.push(Host::enroll(&database, seed).await);
        }
        let drains = hosts.iter().zip(0..).map(|(host, seed)| drain(host, [&a, &b], 90, seed));
        let load = futures_util::future::try_join_all(drains);
        let killer = async {
            let (mut killed, mut moved) = (0, 0);
            let mut random = Random::new(5);
            while killed < 40 {
                // Whenever some more was stored: neither side can starve the other.
                let next = moved + 3 * random.below(12).cast_signed();
                moved = eventually(Duration::from_mins(1), "the streams move", async || {
                    let query =
                        "select coalesce(sum(last_sequence), 0)::bigint from ingest_cursors";
                    let moved = count(&database, query).await;
                    if moved >= next { Ok(moved) } else { Err(moved) }
                })
                .await
                .unwrap();
                killed += database.admin().terminate_connections("procfleet-writer").await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = load => { done.unwrap(); }
            () = killer => {}
        }
        let mut connection = database.connect().await.unwrap();
        for host in &hosts {
            oracle::compare(&mut connection, &host.reports(1..=90)).await.unwrap();
        }
        a.finish().await;
        b.finish().await;
    }
}

#[tokio::test]
async fn a_database_that_is_down_is_told_at_once_and_its_return_is_noticed() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
    assert_eq!(replica.post_records(host.host_id, &host.reports(1..=1)).await.0, 200);
    database.admin().allow_connections(false).await.unwrap();
    // Each writer finds out with the first group it tries; no request is stored or told anything else.
    eventually(Duration::from_secs(20), "both writers notice", async || {
        let (status, problem) = replica.post_records(host.host_id, &host.reports(2..=2)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (503, &"database_unavailable".into()));
        (!replica.writer.is_connected()).then_some(()).ok_or("connected")
    })
    .await
    .unwrap();
    database.admin().allow_connections(true).await.unwrap();
    replica.wait_until_connected().await;
    let (status, answer) = replica.post_records(host.host_id, &host.reports(1..=2)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(count(&database, "select count(*) from host_samples").await, 2);
    replica.finish().await;
}

#[tokio::test]
async fn a_handler_that_goes_away_leaves_nothing_behind() {
    let database = TestDatabase::create(Engine::TimescaleDb).await.unwrap();
    let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
    for sequence in 1..=20 {
        let request = replica.post_records(host.host_id, &host.reports(1..=sequence)).await;
        drop(request);
        let records = host.reports(1..=sequence + 1);
        let abandoned = replica.post_records(host.host_id, &records);
        drop(tokio::time::timeout(Duration::from_millis(sequence), abandoned).await);
        // The host's place is free as soon as the abandoned request is stored or dropped.
        eventually(Duration::from_secs(10), "the host may send again", async || {
            let (status, answer) = replica.post_records(host.host_id, &records).await;
            (status == 200).then_some(()).ok_or(answer)
        })
        .await
        .unwrap();
    }
    let mut connection = database.connect().await.unwrap();
    oracle::compare(&mut connection, &host.reports(1..=21)).await.unwrap();
    replica.finish().await;
}

#[tokio::test]
async fn stopping_writes_what_is_queued_and_refuses_the_rest() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
    let records = host.reports(1..=4);
    let mut blocker = database.connect().await.unwrap();
    let mut blocking = blocker.begin().await.unwrap();
    sqlx::query("lock table ingest_cursors in exclusive mode")
        .execute(&mut *blocking)
        .await
        .unwrap();
    let queued = replica.post_records(host.host_id, &records);
    let stopping = async {
        eventually(Duration::from_secs(20), "the writer waits", async || {
            let query = "select count(*) from pg_stat_activity where datname = current_database()
                and application_name = 'procfleet-writer' and wait_event_type = 'Lock'";
            (count(&database, query).await > 0).then_some(()).ok_or("not waiting")
        })
        .await
        .unwrap();
        replica.stop.cancel();
        blocking.rollback().await.unwrap();
    };
    let ((status, answer), ()) = tokio::join!(queued, stopping);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(count(&database, "select count(*) from host_samples").await, 4);
    let (status, problem) = replica.post_records(host.host_id, &records).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &"shutting_down".into()));
    replica.finish().await;
}
