//! Keeps the authorities in memory, and the agent door's TLS, those of the database.

use std::path::PathBuf;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::authority::live::{LiveAuthorities, RELOAD};
use crate::authority::{self, Authorities, AuthorityError};
use crate::doors::tls::{AgentTls, Clients, LiveTls, TlsError};
use crate::error::Chain;
use crate::store::Store;
use crate::store::authorities::AuthorityRow;

/// What keeps them fresh.
pub struct AuthorityKeeper {
    store: Store,
    key_file: PathBuf,
    known: Vec<(Uuid, String)>,
    current: watch::Sender<Arc<Authorities>>,
    doors: Vec<AgentTls>,
}

impl AuthorityKeeper {
    /// Loads the authorities.
    pub async fn load(store: &Store, key_file: PathBuf) -> Result<Self, LoadError> {
        let rows = store.authorities().await.map_err(AuthorityError::from)?;
        let authorities = authority::open(&rows, &key_file)?;
        let (current, _) = watch::channel(Arc::new(authorities));
        Ok(Self {
            store: store.clone(),
            key_file,
            known: states(&rows),
            current,
            doors: Vec::new(),
        })
    }

    /// Those in use, for whoever signs or verifies.
    pub fn authorities(&self) -> LiveAuthorities {
        self.current.subscribe()
    }

    /// TLS of a door: issues its first certificate under `names`.
    pub fn tls(
        &mut self,
        names: Vec<String>,
        clients: Clients,
        now: OffsetDateTime,
    ) -> Result<LiveTls, TlsError> {
        let tls = AgentTls::new(&self.current.borrow(), names, clients, now)?;
        let live = tls.subscribe();
        self.doors.push(tls);
        Ok(live)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        while stop.run_until_cancelled(tokio::time::sleep(RELOAD)).await.is_some() {
            #[expect(clippy::disallowed_methods, reason = "the loop that owns the clock")]
            let now = OffsetDateTime::now_utc();
            match self.reload(now).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(error = %Chain(&error), "the authorities cannot be read again: those in memory are used");
                }
                Err(_) => {}
            }
            for door in &mut self.doors {
                if let Err(error) = door.renew(&self.current.borrow(), now) {
                    tracing::error!(error = %Chain(&error), "cannot renew a door's certificate");
                }
            }
        }
    }

    async fn reload(&mut self, now: OffsetDateTime) -> Result<(), LoadError> {
        let rows = self.store.authorities().await.map_err(AuthorityError::from)?;
        let states = states(&rows);
        if states == self.known {
            return Ok(());
        }
        let authorities = Arc::new(authority::open(&rows, &self.key_file)?);
        for door in &mut self.doors {
            door.replace(&authorities, now)?;
        }
        tracing::info!(trust.id = authorities.trust.id, "the authorities changed");
        self.current.send_replace(authorities);
        self.known = states;
        Ok(())
    }
}

/// Why the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// See there.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// See there.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn states(rows: &[AuthorityRow]) -> Vec<(Uuid, String)> {
    rows.iter().map(|row| (row.authority_id, row.state.clone())).collect()
}
