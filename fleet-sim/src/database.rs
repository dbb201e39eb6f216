//! Databases for tests: each test gets its own, cloned from a migrated template.
//!
//! The servers are named by `PROCFLEET_TEST_TIMESCALEDB_URL` and `PROCFLEET_TEST_POSTGRESQL_URL`
//! (superuser, admin database). The template's name holds a hash of the migrations, so that several
//! checkouts share one server; it is made once, under an advisory lock, and then closed to
//! connections so that nothing can stand in the way of cloning it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use collector_api::store::migrate;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

/// A database engine the product runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// TimescaleDB: series are hypertables.
    TimescaleDb,
    /// Plain PostgreSQL: series are native range partitions.
    PostgreSql,
}

impl Engine {
    /// Both, for tests that loop.
    pub const ALL: [Self; 2] = [Self::TimescaleDb, Self::PostgreSql];

    /// Where the test server is.
    fn admin_url(self) -> anyhow::Result<String> {
        let name = match self {
            Self::TimescaleDb => "PROCFLEET_TEST_TIMESCALEDB_URL",
            Self::PostgreSql => "PROCFLEET_TEST_POSTGRESQL_URL",
        };
        std::env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask test`"))
    }
}

/// A migrated database of its own, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Connects to it as superuser.
    pub url: String,
    /// What it runs on.
    pub engine: Engine,
    name: String,
    admin_url: String,
}

/// Key of the lock under which the template is made.
const TEMPLATE_LOCK: i64 = 0x7072_6f63_7465_6d70;

impl TestDatabase {
    /// A fresh, migrated, empty database.
    pub async fn create(engine: Engine) -> anyhow::Result<Self> {
        let database = Self::named(engine, engine.admin_url()?)?;
        let mut admin = database.admin_connection().await?;
        let template = ensure_template(&mut admin, &database.admin_url).await?;
        // Cloning fails for as long as somebody looks at the template (autovacuum, for one).
        for attempt in 1.. {
            let clone = format!("create database {} template {template}", database.name);
            match sqlx::raw_sql(AssertSqlSafe(clone)).execute(&mut admin).await {
                Ok(_) => break,
                Err(error) if attempt < 50 && sqlstate(&error) == "55006" => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error).context("clone the template database"),
            }
        }
        admin.close().await?;
        Ok(database)
    }

    /// A fresh database without any table, for tests of the migrations themselves.
    pub async fn create_empty(engine: Engine) -> anyhow::Result<Self> {
        let database = Self::named(engine, engine.admin_url()?)?;
        let mut admin = database.admin_connection().await?;
        sqlx::raw_sql(AssertSqlSafe(format!(
            "create database {} template template0",
            database.name
        )))
        .execute(&mut admin)
        .await?;
        admin.close().await?;
        Ok(database)
    }

    fn named(engine: Engine, admin_url: String) -> anyhow::Result<Self> {
        let name = format!("procfleet_test_{}", Uuid::new_v4().simple());
        Ok(Self { url: with_database(&admin_url, &name)?, engine, name, admin_url })
    }

    /// A connection to this database.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        PgConnection::connect(&self.url).await.context("connect to the test database")
    }

    /// What an administrator of the server can see and do.
    pub fn admin(&self) -> Admin<'_> {
        Admin { database: self }
    }

    async fn admin_connection(&self) -> anyhow::Result<PgConnection> {
        PgConnection::connect(&self.admin_url).await.context("connect to the test database server")
    }
}

/// Administration of one [`TestDatabase`] from outside it.
#[derive(Debug)]
pub struct Admin<'a> {
    database: &'a TestDatabase,
}

impl Admin<'_> {
    /// Client connections to the database now.
    pub async fn connections(&self) -> anyhow::Result<i64> {
        let mut admin = self.database.admin_connection().await?;
        let count = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'",
        )
        .bind(&self.database.name)
        .fetch_one(&mut admin)
        .await?;
        admin.close().await?;
        Ok(count)
    }

    /// Kills every client connection whose `application_name` is like `pattern` (`%`: all). Returns
    /// how many.
    pub async fn terminate_connections(&self, pattern: &str) -> anyhow::Result<i64> {
        let mut admin = self.database.admin_connection().await?;
        let count = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where datname = $1 and backend_type = 'client backend' and application_name like $2",
        )
        .bind(&self.database.name)
        .bind(pattern)
        .fetch_one(&mut admin)
        .await?;
        admin.close().await?;
        Ok(count)
    }

    /// Opens or closes the database to new connections; closing also kills the present ones. For
    /// the clients it is as if the database were down.
    pub async fn allow_connections(&self, allow: bool) -> anyhow::Result<()> {
        let mut admin = self.database.admin_connection().await?;
        let name = &self.database.name;
        sqlx::raw_sql(AssertSqlSafe(format!("alter database {name} allow_connections {allow}")))
            .execute(&mut admin)
            .await?;
        admin.close().await?;
        if !allow {
            self.terminate_connections("%").await?;
        }
        Ok(())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let admin_url = self.admin_url.clone();
        // Drop is synchronous and may run inside a runtime: the statement gets a thread and a
        // runtime of its own.
        let dropper = std::thread::spawn(move || -> anyhow::Result<()> {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let mut admin = PgConnection::connect(&admin_url).await?;
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await?;
                Ok(())
            })
        });
        if !matches!(dropper.join(), Ok(Ok(()))) {
            tracing::warn!(database = %self.name, "could not drop the test database");
        }
    }
}

/// Makes the template of this build's migrations unless it is there. Returns its name.
async fn ensure_template(admin: &mut PgConnection, admin_url: &str) -> anyhow::Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
    for byte in migrate::MIGRATIONS.iter().flat_map(|migration| migration.checksum.iter()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let template = format!("procfleet_template_{hash:016x}");
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        if template_is_ready(admin, &template).await? {
            return Ok(template);
        }
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(TEMPLATE_LOCK)
            .fetch_one(&mut *admin)
            .await?;
        if locked {
            let made = make_template(admin, admin_url, &template).await;
            sqlx::query("select pg_advisory_unlock($1)")
                .bind(TEMPLATE_LOCK)
                .execute(&mut *admin)
                .await?;
            made?;
        } else if tokio::time::Instant::now() >= deadline {
            bail!("another process has been making {template} for a minute");
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn template_is_ready(admin: &mut PgConnection, template: &str) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from pg_database where datname = $1 and datistemplate)",
    )
    .bind(template)
    .fetch_one(admin)
    .await?)
}

async fn make_template(
    admin: &mut PgConnection,
    admin_url: &str,
    template: &str,
) -> anyhow::Result<()> {
    if template_is_ready(admin, template).await? {
        return Ok(());
    }
    // What an interrupted run left behind is not marked as a template.
    for statement in [
        format!("drop database if exists {template} with (force)"),
        format!("create database {template} template template0"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *admin).await?;
    }
    let mut connection = PgConnection::connect(&with_database(admin_url, template)?).await?;
    migrate::migrate(&mut connection).await.context("migrate the template database")?;
    connection.close().await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "alter database {template} with allow_connections false is_template true"
    )))
    .execute(&mut *admin)
    .await?;
    Ok(())
}

/// `url` with another database name.
fn with_database(url: &str, name: &str) -> anyhow::Result<String> {
    let (base, query) =
        url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (server, _) = base
        .rsplit_once('/')
        .filter(|(server, _)| !server.ends_with('/'))
        .context("the test database URL has the form postgres://user@host:port/database")?;
    Ok(match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    })
}

fn sqlstate(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap_or_default()
        .into_owned()
}
