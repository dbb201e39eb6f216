//! The schema's way forward: embedded migrations, applied by one process at a time.
//!
//! The lock is polled (`pg_try_advisory_lock`), never waited for: a blocked `pg_advisory_lock`
//! holds a snapshot for as long as it waits. It belongs to the session, so a process that dies
//! releases it.
//!
//! `serve` refuses a schema that is behind or that differs from what this program was built with.
//! A schema that is ahead is accepted: migrations only add, so the previous release can be started
//! again after a roll-out that went wrong.
//!
//! What the role of dashboards may read is granted after the migrations, every time
//! (`migrate/readers.sql`).

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::{Store, StoreError};

/// Every migration, as it was when this program was built.
pub static MIGRATIONS: Migrator = Migrator { locking: false, ..sqlx::migrate!("../migrations") };

/// What `procfleet_reader` may see: one statement, repeatable.
const READERS: &str = include_str!("migrate/readers.sql");

/// Key of the session lock that one migrating process holds.
const MIGRATION_LOCK: i64 = 0x7072_6f63_666c_6565;
/// How often a process asks whether another is done migrating.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// How long it asks.
const LOCK_PATIENCE: Duration = Duration::from_mins(2);

/// Why the schema is not what this program needs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A migration failed; those before it are applied.
    #[error("a migration failed")]
    Migration(#[source] MigrateError),
    /// Another process has been migrating all the while.
    #[error("another process has been migrating the database for {} s; wait for it or stop it", LOCK_PATIENCE.as_secs())]
    Busy,
    /// Migrations of this program are not applied.
    #[error(
        "the database schema is behind: migration {first_missing} is not applied; run `procfleet-server migrate`"
    )]
    Behind {
        /// The oldest missing.
        first_missing: i64,
    },
    /// An applied migration is not the one this program has under that version.
    #[error("migration {version} in the database is not the one this program was built with")]
    Changed {
        /// Which.
        version: i64,
    },
    /// The server runs an edition that cannot read what another edition compressed.
    #[error(
        "the database holds compressed chunks but TimescaleDB runs with timescaledb.license = apache, which cannot read them; set it to timescale"
    )]
    CompressedUnderApache,
}

impl Store {
    /// Brings the schema up to this program's. Waits while another process does so.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        let mut connection =
            self.pool.acquire().await.map_err(StoreError::of("migrate.connect"))?.detach();
        migrate(&mut connection).await?;
        connection.close().await.map_err(StoreError::of("migrate.close"))?;
        Ok(())
    }

    /// Checks what `serve` needs before its first request.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut connection =
            self.pool.acquire().await.map_err(StoreError::of("check_schema.connect"))?;
        check_compression(&mut connection).await?;
        let applied = applied_migrations(&mut connection).await?;
        for migration in MIGRATIONS.iter() {
            match applied.iter().find(|(version, _)| *version == migration.version) {
                None => return Err(SchemaError::Behind { first_missing: migration.version }),
                Some((version, checksum)) if **checksum != *migration.checksum => {
                    return Err(SchemaError::Changed { version: *version });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Applies what is missing, under the lock.
pub async fn migrate(connection: &mut PgConnection) -> Result<(), SchemaError> {
    lock(connection).await?;
    let migrated = apply(connection).await;
    sqlx::query_scalar!("/* store::migrate */ select pg_advisory_unlock($1)", MIGRATION_LOCK)
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::of("migrate.unlock"))?;
    migrated
}

async fn lock(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        let locked = sqlx::query_scalar!(
            "/* store::migrate::lock */ select pg_try_advisory_lock($1)",
            MIGRATION_LOCK
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::of("migrate.lock"))?;
        if locked == Some(true) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(SchemaError::Busy);
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

async fn apply(connection: &mut PgConnection) -> Result<(), SchemaError> {
    // A setting of the library's own says that it is loaded: who is no superuser may not read which libraries are.
    let preloaded = sqlx::query_scalar!(
        r#"/* store::migrate::apply */
        select exists (select from pg_available_extensions where name = 'timescaledb')
            and exists (select from pg_settings where name = 'timescaledb.disable_load')
            and not exists (select from pg_extension where extname = 'timescaledb') as "preloaded!""#
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::of("migrate.find_timescaledb"))?;
    // A database that already has plain series stays plain: its tables cannot change engine.
    if preloaded && applied_migrations(connection).await?.is_empty() {
        sqlx::query("/* store::migrate::apply */ create extension if not exists timescaledb")
            .execute(&mut *connection)
            .await
            .map_err(StoreError::of("migrate.create_timescaledb"))?;
    }
    check_compression(connection).await?;
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
    let ahead = applied_migrations(connection).await?.iter().any(|(v, _)| Some(*v) > newest);
    if ahead {
        tracing::warn!("the database schema is newer than this program; nothing to migrate");
        return Ok(());
    }
    MIGRATIONS.run(&mut *connection).await.map_err(SchemaError::Migration)?;
    sqlx::raw_sql(READERS)
        .execute(connection)
        .await
        .map_err(StoreError::of("migrate.grant_readers"))?;
    Ok(())
}

/// Version and checksum of every migration that was applied.
async fn applied_migrations(
    connection: &mut PgConnection,
) -> Result<Vec<(i64, Vec<u8>)>, SchemaError> {
    // Not checked at compile time: the table is the migrator's, absent before the first run.
    let exists: bool = sqlx::query_scalar(
        "/* store::migrate::applied_migrations */ select to_regclass('_sqlx_migrations') is not null",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::of("migrate.find_applied"))?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "/* store::migrate::applied_migrations */
        select version, checksum from _sqlx_migrations where success order by version",
    )
    .fetch_all(connection)
    .await
    .map_err(|error| StoreError::of("migrate.read_applied")(error).into())
}

/// Before TimescaleDB 2.26 the Apache edition silently skips compressed rows.
async fn check_compression(connection: &mut PgConnection) -> Result<(), SchemaError> {
    // Not checked at compile time: the setting and the view exist on TimescaleDB only.
    let apache: bool = sqlx::query_scalar(
        "/* store::migrate::check_compression */
        select exists (select from pg_extension where extname = 'timescaledb')
            and coalesce(current_setting('timescaledb.license', true), '') = 'apache'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::of("migrate.read_license"))?;
    if !apache {
        return Ok(());
    }
    let compressed: bool = sqlx::query_scalar(
        "/* store::migrate::check_compression */
        select exists (select from timescaledb_information.chunks where is_compressed)",
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::of("migrate.find_compressed"))?;
    if compressed { Err(SchemaError::CompressedUnderApache) } else { Ok(()) }
}
