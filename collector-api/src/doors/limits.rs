//! How many connections a door holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::metrics::CONNECTIONS;

/// Most connections of one host. Its agent needs one; the others are those that a network swallowed
/// and that have not timed out here. So no host, however hostile, takes the places of the fleet.
pub const MAX_HOST_CONNECTIONS: usize = 16;

/// Verified connections per host.
type Hosts = Arc<Mutex<HashMap<Uuid, usize>>>;

/// Limits of one door.
pub struct ConnectionLimits {
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    hosts: Hosts,
    open: Gauge,
}

/// The right of one connection to exist. Dropped with it.
pub struct Admission {
    _all: OwnedSemaphorePermit,
    anonymous: Option<OwnedSemaphorePermit>,
    hosts: Hosts,
    host: Option<Uuid>,
    open: Gauge,
}

impl ConnectionLimits {
    /// At most `all` connections, of which at most `anonymous` without a verified certificate.
    pub fn new(door: &'static str, all: usize, anonymous: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            anonymous: Arc::new(Semaphore::new(anonymous.min(all))),
            hosts: Arc::default(),
            open: metrics::gauge!(CONNECTIONS, "door" => door),
        }
    }

    /// Takes a place, or names the limit that is reached.
    pub fn admit(&self) -> Result<Admission, &'static str> {
        let all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| "connections")?;
        let anonymous =
            Arc::clone(&self.anonymous).try_acquire_owned().map_err(|_| "anonymous_connections")?;
        self.open.increment(1.0);
        Ok(Admission {
            _all: all,
            anonymous: Some(anonymous),
            hosts: Arc::clone(&self.hosts),
            host: None,
            open: self.open.clone(),
        })
    }
}

impl Admission {
    /// The peer is no stranger: makes room for the next one.
    pub fn known(&mut self) {
        self.anonymous = None;
    }

    /// The peer proved to be `host`, once. Makes room for the next stranger, or names the limit that
    /// is reached.
    pub fn verified(&mut self, host: Uuid) -> Result<(), &'static str> {
        {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let open = hosts.entry(host).or_default();
            if *open >= MAX_HOST_CONNECTIONS {
                return Err("host_connections");
            }
            *open += 1;
        }
        self.host = Some(host);
        self.known();
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.open.decrement(1.0);
        let Some(host) = self.host else { return };
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = hosts.get_mut(&host) {
            *open -= 1;
            if *open == 0 {
                hosts.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_cannot_take_the_places_of_the_others() {
        let limits = ConnectionLimits::new("agent", 100, 1);
        let (greedy, modest) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let connect = |host| {
            let mut admission = limits.admit().unwrap();
            admission.verified(host).map(|()| admission)
        };
        let mut held: Vec<_> =
            (0..MAX_HOST_CONNECTIONS).map(|_| connect(greedy).unwrap()).collect();
        assert_eq!(connect(greedy).err(), Some("host_connections"));
        drop(connect(modest).unwrap());
        held.pop();
        drop(connect(greedy).unwrap());
        held.clear();
        assert!(limits.hosts.lock().unwrap().is_empty());
        assert_eq!(limits.all.available_permits(), 100);
        assert_eq!(limits.anonymous.available_permits(), 1);
    }
}
