//! One question of an operator: a read-only transaction with a time limit, cancelled when nobody
//! waits for its answer any more.
//!
//! Everything of one question is asked in one snapshot, so that the parts of its answer agree. The
//! limits are set within the transaction and not on the connection, so that they also hold behind a
//! pooler that hands each transaction another connection.
//!
//! Cancelling: a handler whose client left is dropped where it waits, and its [`Question`] with it.
//! A question dropped before [`Question::answered`] closes its connection; the database notices
//! within [`CLIENT_CHECK_INTERVAL`] that nobody listens and stops the query. The connection is never
//! used again, so nothing can be cancelled in its place.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};

use super::{Store, StoreError};

/// How soon a running query notices that its client left.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a statement may run: by what it may have to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Dictionaries, or the newest of one host.
    Lookup,
    /// One host or one process over a window.
    Window,
    /// Many hosts over a window.
    Fleet,
}

impl Class {
    /// Longest a statement of the class runs; it then ends with `query_timeout`.
    pub const fn statement_timeout(self) -> Duration {
        match self {
            Self::Lookup => Duration::from_secs(5),
            Self::Window => Duration::from_secs(10),
            Self::Fleet => Duration::from_secs(30),
        }
    }
}

/// An open question. Ends with [`Question::answered`]; dropped before, it is cancelled.
#[derive(Debug)]
pub struct Question {
    /// `None` only once it is answered.
    connection: Option<PoolConnection<Postgres>>,
}

impl Store {
    /// Begins a question of `class` on a connection of the pool.
    pub async fn question(&self, class: Class) -> Result<Question, StoreError> {
        let connection = self.pool.acquire().await.map_err(StoreError::of("question.connect"))?;
        let mut question = Question { connection: Some(connection) };
        // Numbers from constants: nothing from outside.
        let begin = format!(
            "/* question.begin */ begin isolation level repeatable read read only;
            set local statement_timeout = {}; set local client_connection_check_interval = {};
            set local plan_cache_mode = force_custom_plan",
            class.statement_timeout().as_millis(),
            CLIENT_CHECK_INTERVAL.as_millis()
        );
        sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(question.connection()?)
            .await
            .map_err(StoreError::of("question.begin"))?;
        Ok(question)
    }
}

impl Question {
    /// Where its statements go.
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        // Only `answered` takes it, and that consumes the question.
        self.connection
            .as_deref_mut()
            .ok_or(sqlx::Error::PoolClosed)
            .map_err(StoreError::of("question"))
    }

    /// Ends the transaction and gives the connection back.
    pub async fn answered(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("/* question.end */ commit")
            .execute(self.connection()?)
            .await
            .map_err(StoreError::of("question.end"))?;
        self.connection = None;
        Ok(())
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Detached from the pool and dropped: the socket closes now.
            drop(connection.detach());
        }
    }
}
