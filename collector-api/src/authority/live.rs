//! The authorities in use, read again while the server runs: another replica, or an operator's
//! command, may have taken a rotation a step further. `app::keeper` reads them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Authorities;

/// How often the table is looked at.
pub const RELOAD: Duration = Duration::from_secs(10);
/// After this every replica works with what was stored, s: no step of a rotation follows another sooner.
pub const SETTLED_S: f64 = 60.0;

/// Those in use, now.
pub type LiveAuthorities = watch::Receiver<Arc<Authorities>>;
