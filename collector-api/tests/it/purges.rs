//! What was recorded of one host is removed, and nothing of another.

use std::time::Duration;

use collector_api::maintenance;
use collector_api::store::audit::Actor;
use collector_api::store::lifecycle::Lifecycle;
use collector_api::store::purges::RequestPurge;
use collector_api::store::series;
use fleet_sim::database::{Engine, TestDatabase};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::kit::{Host, Replica, changed};
use crate::rollups::{execute, settle};

/// What is not cut into pieces and is of a host.
const WHOLE: [&str; 8] = [
    "process_instances",
    "ingest_rejects",
    "ingest_cursors",
    "host_overrides",
    "host_configurations",
    "alerts",
    "host_releases",
    "rollout_hosts",
];

/// Rows of a host in every table, and a digest of them.
async fn rows(database: &TestDatabase, host_id: Uuid) -> Vec<(String, i64, String)> {
    let mut connection = database.connect().await.unwrap();
    let mut all = Vec::new();
    let series = series::all().map(|series| (series.name, series.host_key));
    for (table, key) in series.chain(WHOLE.map(|table| (table, "host_id"))) {
        let is = if key == "host_id" {
            format!("host_id = '{host_id}'")
        } else {
            format!("{key} = (select host_number from hosts where host_id = '{host_id}')")
        };
        let digest = format!(
            "select count(*), coalesce(md5(string_agg(t::text, ' ' order by t::text)), '') from {table} t where {is}"
        );
        let (count, digest): (i64, String) =
            sqlx::query_as(AssertSqlSafe(digest)).fetch_one(&mut connection).await.unwrap();
        all.push((table.to_owned(), count, digest));
    }
    all
}

async fn fill(database: &TestDatabase, replica: &Replica, host: &Host) {
    for (sequence, days) in [(1, 9), (2, 5), (3, 2), (4, 0)] {
        let report = changed(host.report(sequence), |report| {
            report.sampled_at -= time::Duration::days(days) + time::Duration::minutes(10);
        });
        replica.post_records(host.host_id, &[report]).await;
    }
    let id = host.host_id;
    execute(
        database,
        format!(
            "insert into host_overrides (host_id, configuration) values ('{id}', '{{}}');
            insert into host_configurations (host_id) values ('{id}');
            insert into host_releases (host_id, pinned_seq) values ('{id}', 1);
            insert into rollouts (rollout_id, created_by, target_seq, state) values (gen_random_uuid(), 'ada', 2, 'done');
            insert into rollout_hosts (rollout_id, host_id, is_canary) select rollout_id, '{id}', true from rollouts limit 1;
            insert into alerts (alert_id, fingerprint, rule, severity, host_id, began_at)
                values (gen_random_uuid(), '{id}', 'host_silent', 'critical', '{id}', now())"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_purge_goes_on_where_it_was_cut_short_and_touches_no_other_host() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let store = &replica.store;
        let (gone, kept) = (Host::enroll(&database, 1).await, Host::enroll(&database, 2).await);
        fill(&database, &replica, &gone).await;
        fill(&database, &replica, &kept).await;
        let mut worker = store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        settle(&database, &mut worker).await;
        let (before, others) =
            (rows(&database, gone.host_id).await, rows(&database, kept.host_id).await);
        let filled = before.iter().filter(|(_, count, _)| *count > 0).count();
        assert!(filled >= 12, "the test must fill the tables: {before:?}");

        let ask = async || store.request_purge(gone.host_id, &Actor::cli()).await.unwrap();
        assert!(matches!(ask().await, RequestPurge::NotDecommissioned));
        let end = Lifecycle::Decommissioned;
        store.set_lifecycle(gone.host_id, end, None, &Actor::cli()).await.unwrap();
        assert!(matches!(ask().await, RequestPurge::Queued(_)));
        assert!(worker.next_purge().await.unwrap().is_none(), "requests may be under way");
        execute(
            &database,
            "update hosts set lifecycle_changed_at = now() - interval '61 seconds'".into(),
        )
        .await;

        // One piece, and the worker is gone; another one comes.
        let purge = worker.next_purge().await.unwrap().unwrap();
        let (removed, was_last) = worker.purge_piece(&purge, 0).await.unwrap();
        assert!(removed > 0 && !was_last, "{removed} {was_last}");
        worker.release().await.unwrap();
        let RequestPurge::Queued(row) = ask().await else { panic!("it was queued") };
        assert_eq!((row.state.as_str(), row.steps_done), ("running", 0));
        let mut worker = store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
        maintenance::work(&mut worker, Duration::ZERO).await.unwrap();

        let row = store.purge(gone.host_id).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.steps_done), ("done", row.steps_total));
        let total: i64 = before.iter().map(|(_, count, _)| count).sum();
        assert_eq!(row.rows_removed, total, "each row is counted once");
        let left: i64 = rows(&database, gone.host_id).await.iter().map(|(_, count, _)| count).sum();
        assert_eq!(left, 0);
        assert_eq!(rows(&database, kept.host_id).await, others);
        assert!(matches!(
            store.request_purge(Uuid::new_v4(), &Actor::cli()).await.unwrap(),
            RequestPurge::NoHost
        ));
        let audited = "select count(*) from audit_events where action = 'host.purge'";
        assert_eq!(crate::kit::count(&database, audited).await, 1, "asked three times, done once");
        replica.finish().await;
    }
}
