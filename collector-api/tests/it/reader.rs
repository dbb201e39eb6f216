//! The role of dashboards: what it may see is what is listed here, of everything the schema has.

use collector_api::store::migrate;
use fleet_sim::database::{Engine, TestDatabase};
use sqlx::{AssertSqlSafe, PgConnection};

/// Every relation it may select from.
const VIEWS: &[&str] = &[
    "procfleet_alerts",
    "procfleet_hosts",
    "procfleet_maintenance",
    "procfleet_rejects",
    "procfleet_storage",
];

/// Every function of the schema it may call; each runs with its owner's rights.
const FUNCTIONS: &[&str] = &[
    "procfleet_compare",
    "procfleet_connections",
    "procfleet_coverage",
    "procfleet_exits",
    "procfleet_host_addresses",
    "procfleet_host_lines",
    "procfleet_host_series",
    "procfleet_host_totals",
    "procfleet_hosts_with",
    "procfleet_ingest_series",
    "procfleet_part_lines",
    "procfleet_process_lines",
    "procfleet_process_runs",
    "procfleet_process_series",
    "procfleet_progress",
    "procfleet_step",
    "procfleet_top",
    "procfleet_troubled_collectors",
];

/// Every relation of the schema with its columns, what an extension brought left out.
const COLUMNS: &str =
    "select c.relname::text, quote_ident(a.attname), c.relname = any ($1),
        has_column_privilege('procfleet_reader', c.oid, a.attnum, 'select'),
        has_table_privilege('procfleet_reader', c.oid, 'insert, update, delete, truncate, references, trigger')
            or has_any_column_privilege('procfleet_reader', c.oid, 'insert, update, references')
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relnamespace in ('public'::regnamespace, coalesce(to_regnamespace('_timescaledb_internal'), 'public'::regnamespace))
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    order by 1, 2";

/// A migrated database, and a connection to it as the role.
async fn reader(engine: Engine) -> (TestDatabase, PgConnection) {
    let database = TestDatabase::create(engine).await.unwrap();
    let mut connection = database.connect().await.unwrap();
    // Settings of a role in a database are not cloned with the template.
    migrate::migrate(&mut connection).await.unwrap();
    (database, connection)
}

async fn as_reader(connection: &mut PgConnection) {
    sqlx::query("set role procfleet_reader").execute(connection).await.unwrap();
}

fn sqlstate(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap_or_default()
        .into_owned()
}

#[tokio::test]
async fn it_reads_the_listed_views_and_no_other_column() {
    for engine in Engine::ALL {
        let (_database, mut connection) = reader(engine).await;
        let columns: Vec<(String, String, bool, bool, bool)> =
            sqlx::query_as(COLUMNS).bind(VIEWS).fetch_all(&mut connection).await.unwrap();
        assert!(columns.len() > 300, "the catalogue has {} columns", columns.len());
        for view in VIEWS {
            assert!(columns.iter().any(|(relation, ..)| relation == view), "{view} is missing");
        }
        as_reader(&mut connection).await;
        for (relation, column, listed, readable, writable) in columns {
            assert_eq!(readable, listed, "{engine:?}: {relation}.{column}");
            assert!(!writable, "{engine:?}: {relation}.{column} can be written");
            if relation.starts_with('_') {
                continue; // A chunk: its name is not in the search path.
            }
            let select = format!("select {column} from {relation} limit 1");
            let outcome = sqlx::query(AssertSqlSafe(select)).execute(&mut connection).await;
            match outcome {
                Ok(_) => assert!(listed, "{relation}.{column} was read"),
                Err(error) => assert_eq!(
                    (sqlstate(&error).as_str(), listed),
                    ("42501", false),
                    "{relation}.{column}: {error}"
                ),
            }
        }
    }
}

#[tokio::test]
async fn it_calls_the_listed_functions_and_no_other() {
    for engine in Engine::ALL {
        let (_database, mut connection) = reader(engine).await;
        let functions: Vec<(String, bool, bool, bool)> = sqlx::query_as(
            "select p.proname::text, has_function_privilege('procfleet_reader', p.oid, 'execute'), p.prosecdef,
                coalesce('search_path=public, pg_temp' = any (p.proconfig), false)
            from pg_proc p where p.pronamespace = 'public'::regnamespace
              and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
            order by 1",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut callable = Vec::new();
        for (name, executable, definer, pinned) in &functions {
            assert_eq!((executable, executable), (definer, pinned), "{engine:?}: {name}");
            if *executable {
                callable.push(name.as_str());
            }
        }
        callable.dedup();
        assert_eq!(callable, FUNCTIONS, "{engine:?}");
        assert!(functions.len() > callable.len(), "the helpers are there");
    }
}

#[tokio::test]
async fn it_asks_and_cannot_smuggle() {
    for engine in Engine::ALL {
        let (_database, mut connection) = reader(engine).await;
        as_reader(&mut connection).await;
        let window = "now() - interval '1 day', now()";
        for question in [
            format!("procfleet_top(null, {window}, 'cpu')"),
            format!("procfleet_compare(null, {window}, {window}, 'disk')"),
            format!("procfleet_coverage(null, {window})"),
            format!("procfleet_connections(null, null, null, {window})"),
            format!("procfleet_exits(null, null, null, true, {window}, 'cpu')"),
            format!("procfleet_troubled_collectors(null, {window})"),
            format!("procfleet_process_series(gen_random_uuid(), null, 1, {window}, '1 hour', 5)"),
            format!("procfleet_host_series(gen_random_uuid(), {window}, null)"),
            format!("procfleet_host_totals(gen_random_uuid(), {window})"),
        ] {
            let text = format!("select count(*) from {question}");
            sqlx::query(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
        }
        // What it is given is a value, never a piece of the statement that runs with other rights.
        let injected = "'cpu, (select secret_sha256 from api_keys)'";
        for question in [
            format!("procfleet_top(null, {window}, {injected})"),
            format!("procfleet_top(null, {window}, 'cpu', {injected})"),
            format!("procfleet_compare(null, {window}, {window}, {injected})"),
            format!("procfleet_exits(null, null, null, true, {window}, {injected})"),
        ] {
            let text = format!("select count(*) from {question}");
            let error =
                sqlx::query(AssertSqlSafe(text)).execute(&mut connection).await.unwrap_err();
            assert_eq!(sqlstate(&error), "22023", "{question}: {error}");
        }
    }
}

#[tokio::test]
async fn its_statements_end_in_time_and_write_nothing() {
    for engine in Engine::ALL {
        let (_database, mut connection) = reader(engine).await;
        let mut settings: Vec<String> = sqlx::query_scalar(
            "select unnest(s.setconfig) from pg_db_role_setting s
            where s.setrole = 'procfleet_reader'::regrole
              and s.setdatabase = (select oid from pg_database where datname = current_database())",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        settings.sort();
        assert_eq!(
            settings,
            [
                "default_transaction_read_only=on",
                "idle_in_transaction_session_timeout=1min",
                "statement_timeout=30s"
            ]
        );
        as_reader(&mut connection).await;
        for statement in ["delete from hosts", "create table public.mine (n integer)"] {
            let error = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
            assert_eq!(sqlstate(&error), "42501", "{statement}: {error}");
        }
    }
}

#[tokio::test]
async fn many_databases_of_one_cluster_migrate_at_once() {
    for engine in Engine::ALL {
        let again = async || {
            let database = TestDatabase::create(engine).await.unwrap();
            let mut connection = database.connect().await.unwrap();
            for _ in 0..5 {
                migrate::migrate(&mut connection).await.unwrap();
            }
        };
        tokio::join!(again(), again(), again(), again());
    }
}
