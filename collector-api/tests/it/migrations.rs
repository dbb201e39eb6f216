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
