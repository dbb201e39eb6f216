//! What to do after a failed group, by SQLSTATE. An error nobody foresaw is never a reason to
//! discard: it is answered "retry later" and shouted about.

use super::StoreError;

/// What a database error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Lost against another transaction: the same group again, here.
    Contention,
    /// The connection or the server is gone, read-only or about to be: a new connection.
    Connection,
    /// The server is out of disk, memory or connections: later.
    Exhausted,
    /// A row has no partition yet: make it, then again.
    MissingPartition,
    /// Some row is one the database refuses: find it.
    BadData,
    /// Nobody foresaw it: later, and loudly.
    Unknown,
}

impl StoreError {
    /// Which kind of failure this is.
    pub fn failure(&self) -> Failure {
        let Self::Database { source, .. } = self else { return Failure::Connection };
        let sqlx::Error::Database(error) = source else {
            return match source {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Failure::Connection,
                _ => Failure::Unknown,
            };
        };
        let code = error.code().unwrap_or_default();
        match (&*code, code.get(..2).unwrap_or_default()) {
            // A partitioned table reports a missing partition as a violated check without a name.
            ("23514", _) if error.constraint().is_none() => Failure::MissingPartition,
            ("40001" | "40P01" | "55P03" | "57014", _) => Failure::Contention,
            ("25006" | "25P03" | "25P04" | "3D000" | "55000", _) | (_, "08" | "57" | "28") => {
                Failure::Connection
            }
            (_, "53") => Failure::Exhausted,
            (_, "22" | "23") => Failure::BadData,
            _ => Failure::Unknown,
        }
    }

    /// Whether it is unknown if the transaction was committed.
    pub fn is_commit(&self) -> bool {
        matches!(self, Self::Database { operation: "insert_reports.commit", .. })
    }
}
