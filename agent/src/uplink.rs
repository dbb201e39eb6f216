//! The way of the spool's records to the server: mutual TLS, one request in flight, in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::spool::Spool;

/// What an uplink needs to know.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// Endpoints in order of preference; empty: those of the identity.
    pub endpoints: Vec<String>,
    /// Where records go that a server cannot read (`<state_dir>/dead`). Bounded.
    pub dead_dir: PathBuf,
}

/// How delivery is going.
#[derive(Clone, Debug, Default)]
pub struct UplinkStatus {
    /// The endpoint in use.
    pub endpoint: Option<String>,
    /// When a server last took something or answered the cursor.
    pub last_success_at: Option<Instant>,
    /// Failures since then.
    pub consecutive_failures: u32,
    /// The last failure, in words.
    pub last_error: Option<String>,
}

/// Why there can be no uplink.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The identity's certificate, key or CA bundle is not usable.
    #[error("the host's identity cannot be used for TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The only part of the agent that speaks to a server.
#[derive(Debug)]
pub struct Uplink {}

impl Uplink {
    /// Builds the TLS configuration; contacts nobody.
    pub fn new(_identity: &Identity, _config: UplinkConfig) -> Result<Self, UplinkError> {
        unimplemented!()
    }

    /// Delivers until `stop`, then for at most 5 s more what is still in the spool.
    pub async fn run(&self, _spool: Arc<Spool>, _stop: CancellationToken) {
        unimplemented!()
    }

    /// How delivery is going, from any thread.
    pub fn status(&self) -> UplinkStatus {
        unimplemented!()
    }
}
