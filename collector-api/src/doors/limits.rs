//! How many connections a door holds.

use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::CONNECTIONS;

/// Limits of one door.
pub struct ConnectionLimits {
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    open: Gauge,
}

/// The right of one connection to exist. Dropped with it.
pub struct Admission {
    _all: OwnedSemaphorePermit,
    anonymous: Option<OwnedSemaphorePermit>,
    open: Gauge,
}

impl ConnectionLimits {
    /// At most `all` connections, of which at most `anonymous` without a verified certificate.
    pub fn new(door: &'static str, all: usize, anonymous: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            anonymous: Arc::new(Semaphore::new(anonymous.min(all))),
            open: metrics::gauge!(CONNECTIONS, "door" => door),
        }
    }

    /// Takes a place, or names the limit that is reached.
    pub fn admit(&self) -> Result<Admission, &'static str> {
        let all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| "connections")?;
        let anonymous =
            Arc::clone(&self.anonymous).try_acquire_owned().map_err(|_| "anonymous_connections")?;
        self.open.increment(1.0);
        Ok(Admission { _all: all, anonymous: Some(anonymous), open: self.open.clone() })
    }
}

impl Admission {
    /// The peer proved who it is: makes room for the next stranger.
    pub fn verified(&mut self) {
        self.anonymous = None;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}
