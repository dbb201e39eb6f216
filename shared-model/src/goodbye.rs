//! What an agent says when it stops.

use serde::{Deserialize, Serialize};

/// Why an agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goodbye {
    /// The host goes down.
    Shutdown,
    /// The agent was stopped while the host stays up: it is expected back.
    Restart,
    /// Another version takes over.
    Upgrade,
    /// It is removed for good.
    Uninstall,
}

impl Goodbye {
    /// As in JSON and in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
            Self::Uninstall => "uninstall",
        }
    }
}

/// Body of `POST /v1/goodbye`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoodbyeNote {
    /// Why.
    pub reason: Goodbye,
}
