//! `rollouts`: releases on their way to the fleet. What one is, and what operators and servers do to it.
//!
//! [`round`] is what servers do every few seconds; [`changes`] what operators do; [`releases`] what is known and wanted
//! of each host.

pub mod changes;
pub mod questions;
pub mod releases;
pub mod round;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Serialize};
use shared_model::UpdateState;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// A few hosts try it first.
    Canary,
    /// It goes to a growing share of the fleet.
    Rolling,
    /// An operator holds it: nobody is started.
    Paused,
    /// It does harm; it was stopped for good.
    Halted,
    /// Everybody has it; hosts that come later get it too.
    Done,
    /// An operator stopped it for good.
    Cancelled,
}

impl RolloutState {
    /// As in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Rolling => "rolling",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of a release on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It runs and works.
    Confirmed,
    /// It did not work; the release before runs again.
    RolledBack,
    /// It was not installed.
    Failed,
    /// Nothing was heard of the host since.
    Lost,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::RolledBack, Self::Failed, Self::Lost];

    /// As in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// A rollout, as a decision about it needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Its id.
    pub rollout_id: Uuid,
    /// The release.
    pub target_seq: i64,
    /// How far it is.
    pub state: RolloutState,
    /// Of the fleet; 0: canaries alone.
    pub percent: i16,
    /// How many canaries.
    pub canary_count: usize,
    /// Most hosts under way at once.
    pub max_in_flight: usize,
    /// How long each step is looked at before the next.
    pub soak: Duration,
    /// Whether an operator does not want to wait for the end of the soak.
    pub advance: bool,
    /// When this step began.
    pub step_entered_at: OffsetDateTime,
    /// Why it was halted, or what it waits for.
    pub reason: Option<String>,
}

/// A host, as a decision about it needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutHost {
    /// Its id.
    pub host_id: Uuid,
    /// When it counts as silent; none: it never reported.
    pub deadline_at: Option<OffsetDateTime>,
    /// Not active, or stopped and said so.
    pub is_gone: bool,
    /// Whether an operator decides for it alone.
    pub is_pinned: bool,
    /// Whether it may be a canary.
    pub is_selected: bool,
    /// The release that runs.
    pub installed_seq: Option<i64>,
    /// How far it is with [`tried_seq`](Self::tried_seq); none: its agent does not update itself.
    pub state: Option<UpdateState>,
    /// The release that it tried last, or tries.
    pub tried_seq: Option<i64>,
    /// Why that went wrong.
    pub reason: Option<String>,
    /// When it last said something else.
    pub changed_at: Option<OffsetDateTime>,
    /// None: this rollout has not started it.
    pub started: Option<Started>,
}

/// A host's part in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// When.
    pub at: OffsetDateTime,
    /// Whether as one of the first.
    pub is_canary: bool,
    /// None: under way.
    pub outcome: Option<Outcome>,
}

/// An outcome to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Of which host.
    pub host_id: Uuid,
    /// Which.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
}

/// What is to be done about a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Hosts to be told of the release from now on.
    pub start: Vec<Uuid>,
    /// Hosts that were started and are no part of it any more.
    pub withdraw: Vec<Uuid>,
    /// Outcomes.
    pub settle: Vec<Settled>,
    /// How far it is then.
    pub state: RolloutState,
    /// Of the fleet.
    pub percent: i16,
    /// Why, or what it waits for.
    pub reason: Option<String>,
}

/// A word of a table as what it stands for; the tables' checks hold the same words.
fn parse_word<T: DeserializeOwned>(word: &str) -> Result<T, sqlx::Error> {
    let word: StrDeserializer<'_, Error> = word.into_deserializer();
    T::deserialize(word).map_err(|error| sqlx::Error::Decode(error.into()))
}
