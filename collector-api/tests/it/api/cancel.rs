//! A client that leaves takes its query with it.

use std::time::Duration;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::store::Store;
use collector_api::store::audit::Actor;
use collector_api::store::question::Class;
use collector_api::store::samples::Window;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fleet::{Fleet, plain_client};

const PATIENCE: Duration = Duration::from_secs(20);

/// A table that nobody can read until the transaction ends.
async fn hold<'a>(connection: &'a mut PgConnection, table: &str) -> Transaction<'a, Postgres> {
    let mut held = connection.begin().await.unwrap();
    let lock = format!("lock table {table} in access exclusive mode");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *held).await.unwrap();
    held
}

async fn running(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'procfleet-reader'
          and state = 'active' and query like '/* top */%'",
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
    fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
    let mut watching = fleet.database.connect().await.unwrap();

    // As long as somebody holds the table, the question cannot end by itself.
    let mut holding = fleet.database.connect().await.unwrap();
    let held = hold(&mut holding, "process_samples").await;
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

#[tokio::test]
async fn a_question_ends_at_the_limit_of_its_class() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let store = Store::connect_reader(&database.url, 1).unwrap();
        let mut holding = database.connect().await.unwrap();
        let held = hold(&mut holding, "host_samples").await;
        let window = Window {
            from: OffsetDateTime::UNIX_EPOCH,
            to: OffsetDateTime::UNIX_EPOCH + time::Duration::MINUTE,
        };
        let mut question = store.question(Class::Lookup).await.unwrap();
        let late = question.host_series(Uuid::nil(), window, None, 1).await.unwrap_err();
        assert!(late.is_timeout(), "{late:?}");
        drop(question);
        held.rollback().await.unwrap();
        // The only connection of the pool was not lost with it.
        let mut question = store.question(Class::Lookup).await.unwrap();
        assert!(question.host_series(Uuid::nil(), window, None, 1).await.unwrap().is_empty());
        question.answered().await.unwrap();
    }
}
