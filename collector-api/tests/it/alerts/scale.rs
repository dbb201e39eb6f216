//! Measurements at the size of a large fleet: printed, and too long for every run.
//! `cargo nextest run -p collector-api --run-ignored only --no-capture alerts::scale`

use std::time::Duration;

use collector_api::alerts::rules::judge_round;
use fleet_sim::database::Engine;
use fleet_sim::eventually::eventually;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use uuid::Uuid;

use super::kit::Alerting;

const HOSTS: i32 = 100_000;
/// Every host once in 30 s.
const BATCH: usize = 500;
const BATCH_EVERY: Duration = Duration::from_millis(150);
const SWEEPS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_sweep_over_a_hundred_thousand_heartbeats_that_all_move() {
    let alerting = Alerting::create_on("scale", Engine::TimescaleDb).await;
    alerting.hosts(HOSTS).await;
    alerting.execute("analyze").await;
    let hosts: Vec<Uuid> = sqlx::query_scalar(
        "select host_id from hosts where host_name not in ('host-1', 'host-2', 'host-3') order by random()",
    )
    .fetch_all(&mut alerting.connect().await)
    .await
    .unwrap();
    // These report every second, and now for the last time.
    alerting
        .execute(
            "update heartbeats set interval_ms = 1000, last_seen_at = now(), deadline_at = procfleet_deadline(now(), 1000)
             where host_id in (select host_id from hosts where host_name in ('host-1', 'host-2', 'host-3'))",
        )
        .await;
    let mut contacts = JoinSet::new();
    let store = alerting.store.clone();
    let writer = contacts.spawn(async move {
        let mut pace = interval(BATCH_EVERY);
        for batch in hosts.chunks(BATCH).cycle() {
            pace.tick().await;
            store.note_contacts(batch).await.unwrap();
        }
    });
    let mut sweeps = Vec::new();
    let mut pace = interval(Duration::from_secs(5));
    for _ in 0..SWEEPS {
        pace.tick().await;
        let begun = Instant::now();
        assert!(alerting.store.sweep_silence().await.unwrap().ran);
        sweeps.push(begun.elapsed());
    }
    writer.abort();
    sweeps.sort_unstable();
    println!(
        "sweep of {HOSTS} heartbeats: median {:?}, worst {:?}",
        sweeps[SWEEPS / 2],
        sweeps[SWEEPS - 1]
    );
    let late = "select max(extract(epoch from a.fired_at - b.last_seen_at) * 1000)::bigint
         from alerts a join heartbeats b using (host_id) where a.rule = 'host_silent'";
    assert_eq!(alerting.host_alerts().await, 3);
    println!(
        "silence of hosts that report every second: found after {} ms",
        alerting.count(late).await
    );
    let moved = eventually(Duration::from_secs(30), "statistics", async || {
        let moved: (i64, i64) = sqlx::query_as(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'heartbeats'",
        )
        .fetch_one(&mut alerting.connect().await)
        .await
        .unwrap();
        if moved.0 > i64::from(HOSTS) { Ok(moved) } else { Err(moved.0) }
    })
    .await
    .unwrap();
    println!(
        "updates {}, of these heap-only {} (‰ {})",
        moved.0,
        moved.1,
        moved.1 * 1000 / moved.0
    );
    println!(
        "heartbeats take {} bytes",
        alerting.count("select pg_total_relation_size('heartbeats')").await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rules_over_the_reports_of_ten_thousand_hosts() {
    let alerting = Alerting::create_on("scale-rules", Engine::TimescaleDb).await;
    alerting.hosts(10_000).await;
    alerting.execute("update heartbeats set last_sampled_at = now() - interval '1 minute'").await;
    alerting.execute("analyze").await;
    while judge_round(&alerting.store).await.unwrap().is_some() {}
    // More are admitted round by round.
    assert!(judge_round(&alerting.store).await.unwrap().is_none());
    alerting
        .execute(
            "insert into host_samples (host_id, sampled_at, interval_ms, cpu_user_us, cpu_system_us, cpu_idle_us, memory_total_bytes, memory_available_bytes, agent_spool_reports)
             select host_id, now(), 30000, 1, 1, 8, 100, 50, 0 from hosts;
             insert into filesystem_samples (host_id, sampled_at, total_bytes, used_bytes, available_bytes, inodes_total, inodes_used, mount_point, device, filesystem_type)
             select host_id, now(), 100, 50, 50, 100, 5, '/' || n, 'd', 'ext4' from hosts, generate_series(1, 5) n;
             update heartbeats set last_sampled_at = now()",
        )
        .await;
    let begun = Instant::now();
    let mut rounds = 0;
    while judge_round(&alerting.store).await.unwrap().is_some() {
        rounds += 1;
    }
    let rules = alerting.count("select count(*) from rules").await;
    println!(
        "{rules} rules over 10,000 reports with 5 file systems each: {rounds} rounds, {:?}",
        begun.elapsed()
    );
}
