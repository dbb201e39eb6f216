//! The database: the only module that holds SQL.

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

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
}

impl StoreError {
    /// For `map_err`: `.map_err(StoreError::of("find_host"))`.
    pub fn of(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { operation, source }
    }

    /// Whether the database was not there or not ready, so that the same request may succeed later.
    pub fn is_unavailable(&self) -> bool {
        let Self::Database { source, .. } = self;
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                    || ["25006", "40001", "40P01", "55P03"].contains(&code.as_ref())
            }),
            _ => false,
        }
    }
}

/// Access to the database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: PgPool,
}

impl Store {
    /// Connects, with at most `max_connections`.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .connect(url)
            .await
            .map_err(StoreError::of("connect"))?;
        Ok(Self { pool })
    }
}
