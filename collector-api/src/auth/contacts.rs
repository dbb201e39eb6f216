//! Hosts that proved their identity a moment ago, whatever they were told: a server that sheds load
//! must not make its hosts look silent.
//!
//! Every authenticated request notes its host in a set; a stored report takes it out again, for its
//! transaction moves the heartbeat itself. What remains is written every [`PAUSE`], so an answer 429 or
//! 503 counts as much as a 200.
//!
//! Limits: at most [`MAX_WAITING`] hosts; more are counted as shed. A replica that is killed forgets
//! two seconds of contacts. While the database does not answer, the set waits for it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Chain;
use crate::metrics::CONTACTS_SHED;
use crate::store::Store;

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(2);
/// Hosts that wait to be written.
const MAX_WAITING: usize = 100_000;

/// Hosts heard of since the last write.
#[derive(Debug, Default)]
pub struct Contacts {
    waiting: Mutex<BTreeSet<Uuid>>,
}

impl Contacts {
    /// The host has just proved its identity.
    pub fn note(&self, host_id: Uuid) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING || waiting.contains(&host_id) {
            waiting.insert(host_id);
        } else {
            metrics::counter!(CONTACTS_SHED).increment(1);
        }
    }

    /// Its heartbeat was moved by what it sent.
    pub fn settle(&self, host_id: Uuid) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&host_id);
    }

    /// Writes what waits, until `stop` and once more then.
    pub async fn run(&self, store: &Store, stop: &CancellationToken) {
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => stopping = true,
            }
            self.flush(store).await;
        }
    }

    async fn flush(&self, store: &Store) {
        let hosts = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        if hosts.is_empty() {
            return;
        }
        let hosts: Vec<Uuid> = hosts.into_iter().collect();
        if let Err(error) = store.note_contacts(&hosts).await {
            tracing::debug!(error = %Chain(&error), hosts = hosts.len(), "contacts wait for the database");
            for host_id in hosts {
                self.note(host_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_is_not_written_again() {
        let contacts = Contacts::default();
        let (shed, stored) = (Uuid::new_v4(), Uuid::new_v4());
        contacts.note(shed);
        contacts.note(stored);
        contacts.settle(stored);
        let waiting: Vec<Uuid> = contacts.waiting.lock().unwrap().iter().copied().collect();
        assert_eq!(waiting, [shed]);
    }
}
