//! What would run on TimescaleDB's Community edition, which is not packaged for the machines this runs on. The
//! Apache edition parses the same statements and refuses them for its licence alone, after it has found the function
//! and the settings; what it has in common with the other is run.

use collector_api::store::compression::{CHUNKS, compress, order_by, settings};
use collector_api::store::dialect::Dialect;
use collector_api::store::rollups::UNLIMITED_DECOMPRESSION;
use collector_api::store::series;
use collector_api::store::sizes::COMMUNITY_PIECE_BYTES;
use fleet_sim::database::{Engine, TestDatabase};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::kit::{Host, Replica, count};

/// Runs `statement` and expects to be told that it is for the other licence.
async fn assert_licensed(connection: &mut PgConnection, statement: String) {
    let refused = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(connection).await;
    let error = refused.unwrap_err();
    let refusal = error.as_database_error().unwrap();
    assert_eq!(refusal.code().as_deref(), Some("0A000"), "{statement}: {refusal}");
    assert!(refusal.message().contains("\"apache\" license"), "{statement}: {refusal}");
}

#[tokio::test]
async fn statements_for_the_community_edition_reach_its_licence() {
    let database = TestDatabase::create(Engine::TimescaleDb).await.unwrap();
    let replica = Replica::start(&database).await;
    let host = Host::enroll(&database, 1).await;
    replica.post_records(host.host_id, &[host.report(1)]).await;
    let mut worker = replica.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
    let mut connection = database.connect().await.unwrap();
    let dialect = Dialect::detect(&mut connection).await.unwrap();
    assert_eq!(dialect, Dialect::TimescaleDb { community: false });
    // Known, though nothing is decompressed: a mistaken name would be refused.
    sqlx::raw_sql(UNLIMITED_DECOMPRESSION).execute(&mut connection).await.unwrap();
    for series in series::all() {
        worker.ensure_ahead(series).await.unwrap();
        assert_licensed(&mut connection, settings(series)).await;
        let chunks: Vec<(String, time::OffsetDateTime, bool, bool)> =
            sqlx::query_as(CHUNKS).bind(series.name).fetch_all(&mut connection).await.unwrap();
        let pieces = dialect.list_partitions(&mut connection, series).await.unwrap();
        assert!(!pieces.is_empty(), "{}", series.name);
        let names: Vec<String> = pieces.into_iter().map(|piece| piece.table).collect();
        assert_eq!(chunks.iter().map(|chunk| chunk.0.clone()).collect::<Vec<_>>(), names);
        assert!(chunks.iter().all(|(_, _, is_compressed, is_stale)| !is_compressed && !is_stale));
        assert_licensed(&mut connection, compress(&names[0])).await;
        let sizes: Vec<i64> = sqlx::query_scalar(COMMUNITY_PIECE_BYTES)
            .bind(&names)
            .bind(series.name)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(sizes.len(), names.len());
        assert!(sizes.iter().all(|size| *size > 0), "{}: {sizes:?}", series.name);
        // What segments and orders must be there, and have an order.
        let ordered = format!(
            "select * from {} order by {}, {}",
            series.name,
            series.host_key,
            order_by(series)
        );
        sqlx::raw_sql(AssertSqlSafe(ordered)).execute(&mut connection).await.unwrap();
    }
    replica.finish().await;
}

/// Compressed chunks refuse, or slow down, what these would ask of them.
#[tokio::test]
async fn series_have_nothing_that_the_columnstore_refuses() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        for (what, query) in [
            (
                "unique indexes",
                "select count(*) from pg_index join series on indrelid = series::regclass where indisunique",
            ),
            (
                "constraints",
                "select count(*) from pg_constraint join series on conrelid = series::regclass where contype in ('f', 'p', 'u', 'x')",
            ),
            (
                "triggers",
                "select count(*) from pg_trigger join series on tgrelid = series::regclass
                 where not tgisinternal and tgname <> 'ts_insert_blocker'",
            ),
            (
                "row security",
                "select count(*) from pg_class join series on pg_class.oid = series::regclass where relrowsecurity",
            ),
            (
                "generated columns",
                "select count(*) from pg_attribute join series on attrelid = series::regclass where attgenerated <> '' or attidentity <> ''",
            ),
        ] {
            assert_eq!(count(&database, query).await, 0, "{engine:?} {what}");
        }
    }
}
