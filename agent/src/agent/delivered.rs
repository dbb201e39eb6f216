//! `procfleet-agent delivered`: what a server says that it has taken of this host's reports, also while the agent
//! runs: the spool is that one's, so only the stream's name is read, and a server asked.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::spool;
use crate::uplink::{Uplink, UplinkConfig, UplinkError};

use super::start;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Why it is not known, or not enough.
#[derive(Debug, thiserror::Error)]
pub enum DeliveredError {
    /// Not enrolled, or its identity is unreadable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The servers' addresses, or TLS.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Nobody answered.
    #[error(
        "no server says what it has taken of this host's reports: is one reachable, and the host let in?"
    )]
    Unknown,
    /// The time is over.
    #[error("no server took more than {taken} reports of this host within {} s: is the agent running, and what does its log say?", patience.as_secs())]
    NotEnough {
        /// What the servers say.
        taken: u64,
        /// How long was waited.
        patience: Duration,
    },
}

/// How many reports of the stream in use a server has taken: once there are more than `more_than`, within `patience`.
pub fn delivered(
    config: &Config,
    more_than: Option<u64>,
    patience: Duration,
) -> Result<u64, DeliveredError> {
    let identity = Identity::load(&config.identity_dir())?;
    let (endpoints, place) = (config.endpoints.clone(), start::place(config));
    let uplink =
        Uplink::new(&identity, UplinkConfig { endpoints, dead_dir: config.dead_dir(), place })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DeliveredError::Runtime)?;
    let began = Instant::now();
    runtime.block_on(async {
        loop {
            let taken = match spool::stream_in(&config.spool_dir()) {
                Some(stream_id) => uplink.cursor(stream_id).await,
                // It never ran.
                None => Some(0),
            };
            match (taken, more_than) {
                (Some(taken), None) => return Ok(taken),
                (Some(taken), Some(before)) if taken > before => return Ok(taken),
                (None, None) => return Err(DeliveredError::Unknown),
                (taken, Some(before)) if began.elapsed() >= patience => {
                    let taken = taken.unwrap_or(before);
                    return Err(DeliveredError::NotEnough { taken, patience });
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    })
}
