//! What a tick keeps: thresholds, top N and patterns.
//!
//! Passed with every tick, so that it can change between two ticks without a restart.

use serde::{Deserialize, Serialize};

/// A process is recorded if it crosses any threshold, **or** is among the top of any resource,
/// **or** matches a pattern. Everything else is summed into the residual row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// CPU, user and system, in cores: 1.0 is one core busy for the whole interval.
    pub cpu_cores: f64,
    /// Resident set, bytes.
    pub memory_bytes: u64,
    /// Disk, read plus write, bytes per second.
    pub disk_bytes_per_second: u64,
    /// Network, received plus transmitted, bytes per second.
    pub network_bytes_per_second: u64,
    /// How many of each resource's largest users are kept whatever they use.
    pub top: usize,
    /// Kept whatever they use: matched against the redacted command line.
    pub always_keep: Vec<Pattern>,
    /// Keep every process.
    pub keep_all: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            cpu_cores: 0.1,
            memory_bytes: 1 << 30,
            disk_bytes_per_second: 1 << 20,
            network_bytes_per_second: 1 << 20,
            top: 10,
            always_keep: Vec::new(),
            keep_all: false,
        }
    }
}

/// A regular expression of the configuration (linear time, no look-around), not anchored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(pub regex_lite::Regex);

impl Pattern {
    /// Whether it occurs in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

/// Two that are written the same.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = regex_lite::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        regex_lite::Regex::new(&text).map(Self)
    }
}
