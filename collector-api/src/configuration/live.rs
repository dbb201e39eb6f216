//! What is in force for each host, as one replica remembers it.
//!
//! Every answer to a host names the hash of its configuration. It is compiled when the host is first
//! answered and remembered until [`Store::configuration_revision`] grows, which is looked at every
//! [`PAUSE`]: a change is told to a host with its next answer after that. While the database does not
//! answer, what is remembered is told, and hosts not remembered are told nothing: they go on with what
//! they have.
//!
//! Limits: [`MAX_HOSTS`] hosts are remembered; beyond, all are forgotten and compiled again. At most
//! [`COMPILING`] are compiled at the same time, so that a change of the whole fleet's configuration
//! does not take the database from the reports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Compiled, ConfigurationError, StoredProfile, compile, layers, stored_profiles};
use crate::error::Chain;
use crate::store::{Store, StoreError};

/// Between two looks at the revision.
const PAUSE: Duration = Duration::from_secs(1);
/// Hosts remembered.
const MAX_HOSTS: usize = 200_000;
/// Hosts compiled at the same time.
const COMPILING: usize = 2;

/// See the module; cheap to clone.
#[derive(Clone, Debug)]
pub struct LiveConfigurations {
    store: Store,
    known: Arc<Mutex<Known>>,
    turns: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Known {
    /// Read before everything else here; 0: nothing was read yet.
    revision: i64,
    profiles: Arc<Vec<StoredProfile>>,
    hosts: HashMap<Uuid, [u8; 32]>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be read: made by a newer server, or by hand.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
}

impl LiveConfigurations {
    /// Nothing remembered.
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default(), turns: Arc::new(Semaphore::new(COMPILING)) }
    }

    /// Looks at the revision until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = %Chain(&error), "the hosts' configurations cannot be looked at");
            }
        }
    }

    /// The hash to tell a host: from memory if possible. `None`: it is not known.
    pub async fn hash(&self, host_id: Uuid) -> Option<[u8; 32]> {
        if let Some(hash) = self.known().hosts.get(&host_id) {
            return Some(*hash);
        }
        let turn = self.turns.acquire().await.ok()?;
        let compiled = self.compiled(host_id).await;
        drop(turn);
        match compiled {
            Ok(compiled) => compiled.map(|compiled| compiled.hash),
            Err(error) => {
                tracing::debug!(host.id = %host_id, error = %Chain(&error), "its configuration is not known");
                None
            }
        }
    }

    /// What is in force for a host now. `None`: there is no such host.
    pub async fn now(&self, host_id: Uuid) -> Result<Option<Compiled>, LiveError> {
        self.refresh().await?;
        self.compiled(host_id).await
    }

    async fn compiled(&self, host_id: Uuid) -> Result<Option<Compiled>, LiveError> {
        if self.known().revision == 0 {
            self.refresh().await?;
        }
        let (revision, profiles) = {
            let known = self.known();
            (known.revision, Arc::clone(&known.profiles))
        };
        let Some(host) = self.store.host_layers(host_id).await? else { return Ok(None) };
        let compiled = compile(layers(profiles.iter(), &host)?)?;
        let mut known = self.known();
        // Of an older revision it must not be remembered: nobody would look at it again.
        if known.revision == revision {
            if known.hosts.len() >= MAX_HOSTS {
                known.hosts.clear();
            }
            known.hosts.insert(host_id, compiled.hash);
        }
        Ok(Some(compiled))
    }

    /// Forgets everything if the revision is another.
    async fn refresh(&self) -> Result<(), LiveError> {
        // Before the profiles: they may be newer than it says, and are then read once more, never older.
        let revision = self.store.configuration_revision().await?;
        if self.known().revision == revision {
            return Ok(());
        }
        let profiles = stored_profiles(self.store.profiles().await?)?;
        let mut known = self.known();
        // Two that refresh at the same time: the later reading stays. A restored database may have a
        // smaller one, and the next look finds what is of now.
        *known = Known { revision, profiles: Arc::new(profiles), hosts: HashMap::new() };
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
