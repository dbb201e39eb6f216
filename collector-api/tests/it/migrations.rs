//! The schema on both engines: fresh, repeated, raced, behind.

use collector_api::store::Store;
use collector_api::store::migrate::{MIGRATIONS, SchemaError};
use fleet_sim::database::{Engine, TestDatabase};

async fn applied(database: &TestDatabase) -> i64 {
    let mut connection = database.connect().await.unwrap();
    sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn fresh_databases_migrate_once_however_many_replicas_start() {
    for engine in Engine::ALL {
        let database = TestDatabase::create_empty(engine).await.unwrap();
        let store = Store::connect(&database.url, 8).await.unwrap();
        assert!(matches!(store.check_schema().await, Err(SchemaError::Behind { .. })));
        let (a, b, c) = tokio::join!(store.migrate(), store.migrate(), store.migrate());
        a.and(b).and(c).unwrap();
        store.check_schema().await.unwrap();
        assert_eq!(applied(&database).await, i64::try_from(MIGRATIONS.iter().count()).unwrap());
        let mut connection = database.connect().await.unwrap();
        let name: String = sqlx::query_scalar("select procfleet_engine()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let expected = if engine == Engine::TimescaleDb { "timescaledb" } else { "postgresql" };
        assert_eq!(name, expected);
    }
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let mut connection = database.connect().await.unwrap();
    sqlx::query("update _sqlx_migrations set checksum = '\\x00' where version = (select max(version) from _sqlx_migrations)")
        .execute(&mut connection)
        .await
        .unwrap();
    let store = Store::connect(&database.url, 2).await.unwrap();
    assert!(matches!(store.check_schema().await, Err(SchemaError::Changed { .. })));
}

#[tokio::test]
async fn the_readers_role_sees_samples_and_no_secrets() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let mut connection = database.connect().await.unwrap();
        sqlx::query("set role procfleet_reader").execute(&mut connection).await.unwrap();
        let readable = [
            "select count(*) from procfleet_hosts",
            "select count(*) from process_samples",
            "select count(*) from procfleet_top(null, now() - interval '30 days', now(), 'cpu')",
            "select count(*) from procfleet_compare(null, now() - interval '1 hour', now(), now() - interval '2 hours', now() - interval '1 hour', 'disk')",
            "select count(*) from procfleet_coverage(null, now() - interval '1 day', now())",
            "select count(*) from procfleet_connections(null, null, null, now() - interval '1 day', now())",
            "select count(*) from procfleet_exits(null, null, null, true, now() - interval '1 day', now(), 'cpu')",
            "select count(*) from procfleet_troubled_collectors(null, now() - interval '1 day', now())",
            "select count(*) from procfleet_process_series(gen_random_uuid(), null, 1, now() - interval '1 day', now(), '1 hour', 5)",
            "select count(*) from procfleet_host_series(gen_random_uuid(), now() - interval '1 hour', now(), null)",
        ];
        for query in readable {
            sqlx::query(query).execute(&mut connection).await.unwrap();
        }
        let secret = [
            "select secret_sha256 from enrollment_tokens",
            "select secret_sha256 from api_keys",
            "select sealed_private_key from certificate_authorities",
            "select chain_pem from host_certificates",
            "select body from ingest_rejects",
        ];
        let writing = ["delete from hosts", "insert into processes default values"];
        for query in secret.into_iter().chain(writing) {
            let error = sqlx::query(query).execute(&mut connection).await.unwrap_err();
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            assert_eq!(code.as_deref(), Some("42501"), "{query}: {error}");
        }
    }
}
