//! What the agent says of itself: its cost, its losses, and how each collector fared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::UpdateStatus;

/// Where a collector's data came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// eBPF.
    A,
    /// procfs, sysfs and netlink, as root.
    B,
    /// procfs without privileges: other users' fields are null.
    C,
}

/// How one run of a collector ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectorOutcome {
    /// It delivered.
    Ok,
    /// There is nothing of its kind on this host (no PSI, no block device).
    NoData,
    /// It passed its deadline; its part of this report is missing.
    Late,
    /// It failed; see `error`.
    Failed,
    /// The configuration says that it does not work: its part of this report is missing.
    Disabled,
}

/// One run of one collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorRun {
    /// The collector's name in the registry.
    pub collector: String,
    /// How it ended.
    pub outcome: CollectorOutcome,
    /// Where its data came from.
    pub tier: Tier,
    /// Wall-clock time it took, µs; the deadline where it was late.
    pub duration_us: u64,
    /// What failed, of which object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where one group of fields came from in this report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSource {
    /// The group: `processes`, `exits`, `connections`, ...
    pub fields: String,
    /// From where; null: nowhere, its fields are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What keeps it from a better tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The agent's own numbers over one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSample {
    /// CPU the agent used, user and system, delta, µs: getrusage(2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Its resident set, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_usage_bytes: Option<u64>,
    /// Reports in the spool that no server acknowledged yet, this one not counted.
    pub spool_reports: u64,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// Everything ever lost since the agent's start, by the name of its place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, u64>,
    /// How each collector fared in this tick.
    pub collectors: Vec<CollectorRun>,
    /// Where the fields came from whose source is not the same on every host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<FieldSource>,
    /// Where it stands with its own release; absent: it does not update itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,
}
