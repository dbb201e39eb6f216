//! The database: the only module that holds SQL.

pub mod alertmanagers;
pub mod alerts;
pub mod api_keys;
pub mod audit;
pub mod authorities;
pub mod certificates;
pub mod channels;
pub mod clones;
pub mod collection;
pub mod compression;
pub mod configurations;
pub mod connections;
pub mod copy;
pub mod coverage;
pub mod cursors;
pub mod dialect;
pub mod dictionaries;
pub mod doctor;
pub mod enrollment;
pub mod ephemeral;
pub mod exits;
pub mod failure;
pub mod heartbeats;
pub mod hosts;
pub mod idempotency;
pub mod ids;
pub mod instances;
pub mod labels;
pub mod lifecycle;
pub mod machines;
pub mod maintenance;
pub mod migrate;
pub mod nodelay;
pub mod notifications;
pub mod pictures;
pub mod processes;
pub mod profiles;
pub mod progress;
pub mod purges;
pub mod question;
pub mod records;
pub mod replicas;
pub mod reports;
pub mod rollouts;
pub mod rollups;
pub mod rules;
pub mod runs;
pub mod samples;
pub mod scopes;
pub mod series;
pub mod sessions;
pub mod silence;
pub mod silences;
pub mod sizes;
pub mod usage;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};

/// A setting of ours that only a direct connection has.
const DIRECT: &str = "procfleet.direct";
/// Longest one attempt to reach the database.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest anybody waits for a connection: shorter than agents wait for an answer, so that all who come back at once
/// after an outage are told to come again instead of asking in vain.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest an operator's question may run.
pub const READER_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest an operator's question waits for a connection.
const READER_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the database said, or that it said nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A statement failed. The text names the operation, such as `insert_reports`.
    #[error("database operation {operation} failed")]
    Database {
        /// Which method of [`Store`].
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A pooler is in between (see [`Store::probe`]).
    #[error(
        "the database URL leads to a connection pooler (such as PgBouncer), not to PostgreSQL: it drops the settings of connections (statement_timeout, for one) and, in transaction mode, their prepared statements. Give PROCFLEET_DATABASE_URL the address of PostgreSQL itself; a server holds few connections, at most database.max_connections and a handful"
    )]
    Pooler,
}

impl StoreError {
    /// For `map_err`: `.map_err(StoreError::of("find_host"))`.
    pub fn of(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { operation, source }
    }

    /// Whether the statement ran into its timeout (see [`Store::connect_reader`]).
    pub fn is_timeout(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        source.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014"))
    }

    /// Whether the database was not there or not ready, so that the same request may succeed later.
    pub fn is_unavailable(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // What the driver reads where the connection was closed before its first answer: a balancer in front of the
            // database whose servers are all away.
            sqlx::Error::Protocol(words) => words.contains("SSLRequest: 0x00"),
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                    || ["25006", "40001", "40P01", "55000", "55P03"].contains(&code.as_ref())
            }),
            _ => false,
        }
    }
}

/// `PgBouncer`'s answer to a setting that it does not know.
fn is_refused_startup(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("08P01") && error.message().contains("startup parameter")
    })
}

/// Access to the database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: PgPool,
}

impl Store {
    /// Connects once, without a pool, and leaves: whether the database answers, without the patience of
    /// a pool, and whether it is PostgreSQL that answers. A pooler refuses settings given at connect, or
    /// ignores them if it is told to.
    pub async fn probe(url: &str) -> Result<(), StoreError> {
        let attempt = async {
            let options = PgConnectOptions::from_str(url)?.options([(DIRECT, "on")]);
            let mut connection = PgConnection::connect_with(&options).await?;
            let query = format!("/* store::probe */ select current_setting('{DIRECT}', true)");
            let direct: Option<(Option<String>,)> = sqlx::query_as(sqlx::AssertSqlSafe(query))
                .persistent(false)
                .fetch_optional(&mut connection)
                .await?;
            connection.close().await?;
            Ok(direct.and_then(|(value,)| value).as_deref() == Some("on"))
        };
        let answer = tokio::time::timeout(PROBE_TIMEOUT, attempt)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut));
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Pooler),
            Err(error) if is_refused_startup(&error) => Err(StoreError::Pooler),
            Err(error) => Err(StoreError::of("probe")(error)),
        }
    }

    /// Connects, with at most `max_connections`.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        Self::probe(url).await?;
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect(url)
            .await
            .map_err(StoreError::of("connect"))?;
        Ok(Self { pool })
    }

    /// Connects for questions only: read only, and no statement runs longer than
    /// [`READER_STATEMENT_TIMEOUT`].
    pub fn connect_reader(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        let timeout = READER_STATEMENT_TIMEOUT.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)
            .map_err(StoreError::of("connect_reader"))?
            .application_name("procfleet-reader")
            .options([
                ("statement_timeout", timeout.as_str()),
                ("default_transaction_read_only", "on"),
                // The window decides which chunks are read: a generic plan would not see it.
                ("plan_cache_mode", "force_custom_plan"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(READER_ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_balancer_without_a_database_is_a_database_that_is_away() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://nobody@{}/none", listener.local_addr().unwrap());
        // It reads the driver's question first: to close before that is a reset, another error.
        let closes = std::thread::spawn(move || {
            listener.accept().unwrap().0.read_exact(&mut [0; 8]).unwrap();
        });
        let source = PgConnection::connect(&url).await.unwrap_err();
        closes.join().unwrap();
        assert!(matches!(source, sqlx::Error::Protocol(_)), "{source:?}");
        let error = StoreError::Database { operation: "connect", source };
        assert!(error.is_unavailable(), "{error:?}");
    }
}
