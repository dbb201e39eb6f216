//! Which release a host's agent is, which one it should be, and what became of getting there.
//!
//! The server names a release in every answer to reports ([`RELEASE_HEADER`]); the agent says in every report where it
//! stands ([`UpdateStatus`]). Nothing else is exchanged, so that nothing can be lost between the two: a server that did
//! not hear of a confirmation hears it again.

use serde::{Deserialize, Serialize};

/// Header of the answer to reports: the [`Manifest::seq`](crate::release::Manifest::seq) of the release that this
/// host's agent should be, decimal. Absent: it stays what it is.
pub const RELEASE_HEADER: &str = "procfleet-release";

/// Most bytes of [`UpdateStatus::reason`]; longer ones are cut by the agent.
pub const MAX_REASON_BYTES: usize = 500;

/// How far the agent is with a release. From [`Requested`](Self::Requested) to [`Probation`](Self::Probation) it is
/// under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Nothing was ever tried.
    Idle,
    /// The host's administrator does not want it: `[update] enabled = false`.
    Off,
    /// Another release was named, nothing of it is here yet.
    Requested,
    /// Its binary is on its way.
    Downloading,
    /// It is handed to the installer, which has not answered yet.
    Staged,
    /// It runs and has to show that it works.
    Probation,
    /// It runs and works.
    Confirmed,
    /// It did not work: the release before runs again. It is not tried again.
    RolledBack,
    /// It was not installed. Tried again if nothing is wrong with the release itself.
    Failed,
}

impl UpdateState {
    /// As in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Off => "off",
            Self::Requested => "requested",
            Self::Downloading => "downloading",
            Self::Staged => "staged",
            Self::Probation => "probation",
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
        }
    }

    /// Neither here nor there.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Requested | Self::Downloading | Self::Staged | Self::Probation)
    }
}

/// Where the agent stands; absent from the report of an agent that cannot update itself (of a package, in a container).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// The release that runs; none: it was installed without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_seq: Option<u64>,
    /// What became of [`target_seq`](Self::target_seq).
    pub state: UpdateState,
    /// The release that was tried last, or is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_seq: Option<u64>,
    /// Why it was rolled back or failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
