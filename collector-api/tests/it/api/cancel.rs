//! A client that leaves takes its query with it.

use std::time::Duration;

use collector_api::auth::operator::{MintedApiKey, Role};
use fleet_sim::eventually::eventually;
use sqlx::{Connection as _, PgConnection};

use crate::fleet::{Fleet, plain_client};

const PATIENCE: Duration = Duration::from_secs(20);

async fn running(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'procfleet-reader'
          and state = 'active' and query like '%procfleet_top%'",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_query_with_it() {
    let fleet = Fleet::create("cancel").await;
    let server = fleet.serve(&fleet.config()).await;
    let minted = MintedApiKey::from_random([7; 48], "reader".into(), Role::Viewer, None);
    fleet.store.create_api_key(&minted.new).await.unwrap();
    let mut watching = fleet.database.connect().await.unwrap();

    // As long as somebody holds the table, the question cannot end by itself.
    let mut holding = fleet.database.connect().await.unwrap();
    let mut held = holding.begin().await.unwrap();
    sqlx::query("lock table process_samples in access exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();
    let ask = || {
        plain_client()
            .get(server.operator_url("/v1/top?from=-10m"))
            .bearer_auth(minted.to_paste())
            .timeout(PATIENCE)
            .send()
    };
    let asked = async {
        tokio::select! {
            answer = ask() => panic!("answered although the table was held: {answer:?}"),
            seen = eventually(PATIENCE, "the query runs", async || {
                match running(&mut watching).await { 1 => Ok(()), other => Err(other) }
            }) => seen.unwrap(),
        }
    };
    // Dropped here, with its connection, as soon as the query runs.
    asked.await;
    eventually(PATIENCE, "the query is gone", async || match running(&mut watching).await {
        0 => Ok(()),
        other => Err(other),
    })
    .await
    .unwrap();
    held.rollback().await.unwrap();

    // The pool has not lost its place.
    for _ in 0..6 {
        assert_eq!(ask().await.unwrap().status(), 200);
    }
}
