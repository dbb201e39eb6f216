//! What the centre sets on an agent.
//!
//! Every key may be missing: it is then what the agent's own file says, or its default. The same form
//! is a profile, an override of one host, and what is compiled from them for a host. Keys are those of
//! the agent's file, so that `profile.top` means the same in both. Unlike the file, an agent passes
//! over keys it does not know (a newer server may talk to it); a server refuses them.

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_INTERVAL_MS, MIN_INTERVAL_MS};

/// Most patterns of one list.
pub const MAX_PATTERNS: usize = 64;
/// Longest pattern, bytes.
pub const MAX_PATTERN_BYTES: usize = 512;
/// Most processes kept per resource because they are the largest.
pub const MAX_TOP: u32 = 1_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// Time between two reports, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// What is recorded.
    pub profile: ProfileKeys,
    /// What is hidden.
    pub redaction: RedactionKeys,
    /// What the agent may cost.
    pub budget: BudgetKeys,
}

/// `profile.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileKeys {
    /// CPU from which on a process is recorded, cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Resident set, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Disk, read plus write, bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes_per_second: Option<u64>,
    /// Network, received plus transmitted, bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_bytes_per_second: Option<u64>,
    /// How many of each resource's largest users are kept whatever they use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<u32>,
    /// Regular expressions on the redacted command line: kept whatever they use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_keep: Option<Vec<String>>,
    /// Keep every process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_all: Option<bool>,
}

/// `redaction.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedactionKeys {
    /// Regular expressions hidden in command lines beside what always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<String>>,
}

/// `budget.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetKeys {
    /// CPU the agent may use, cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Resident memory the agent may use, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {detail}")]
pub struct OutOfRange {
    /// Which key, with a dot between table and key.
    pub key: &'static str,
    /// What is allowed.
    pub detail: String,
}

impl Configuration {
    /// Whether every value is within its range. Patterns are only counted and measured here: whether
    /// they are regular expressions decides the engine that is to run them.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let no = |key, detail: String| Err(OutOfRange { key, detail });
        let intervals = MIN_INTERVAL_MS..=MAX_INTERVAL_MS;
        if self.interval_ms.is_some_and(|interval| !intervals.contains(&interval)) {
            let detail = format!("must lie between {MIN_INTERVAL_MS} and {MAX_INTERVAL_MS}");
            return no("interval_ms", detail);
        }
        if self.profile.cpu_cores.is_some_and(|cores| !(cores >= 0.0 && cores.is_finite())) {
            return no("profile.cpu_cores", "must be 0 or more".to_owned());
        }
        if self.profile.top.is_some_and(|top| top > MAX_TOP) {
            return no("profile.top", format!("must be at most {MAX_TOP}"));
        }
        if self.budget.cpu_cores.is_some_and(|cores| !(cores > 0.0 && cores.is_finite())) {
            return no("budget.cpu_cores", "must be more than 0".to_owned());
        }
        for (key, patterns) in [
            ("profile.always_keep", &self.profile.always_keep),
            ("redaction.patterns", &self.redaction.patterns),
        ] {
            let patterns = patterns.as_deref().unwrap_or_default();
            if patterns.len() > MAX_PATTERNS {
                return no(key, format!("holds more than {MAX_PATTERNS} patterns"));
            }
            if patterns.iter().any(|pattern| !(1..=MAX_PATTERN_BYTES).contains(&pattern.len())) {
                return no(key, format!("holds a pattern not of 1 to {MAX_PATTERN_BYTES} bytes"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration(value: serde_json::Value) -> Configuration {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_not_set_is_not_written() {
        let written = serde_json::to_value(configuration(json!({"profile": {"top": 3}}))).unwrap();
        assert_eq!(written, json!({"profile": {"top": 3}, "redaction": {}, "budget": {}}));
        assert_eq!(configuration(written).profile.top, Some(3));
    }

    #[test]
    fn a_newer_servers_keys_are_passed_over() {
        let read = configuration(json!({"later": 1, "profile": {"top": 3, "later": []}}));
        assert_eq!(read.profile.top, Some(3));
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        configuration(json!({})).check().unwrap();
        for (key, value) in [
            ("interval_ms", json!({"interval_ms": 1})),
            ("profile.cpu_cores", json!({"profile": {"cpu_cores": -0.5}})),
            ("profile.top", json!({"profile": {"top": MAX_TOP + 1}})),
            ("profile.always_keep", json!({"profile": {"always_keep": [""]}})),
            ("redaction.patterns", json!({"redaction": {"patterns": vec!["a"; MAX_PATTERNS + 1]}})),
            ("budget.cpu_cores", json!({"budget": {"cpu_cores": 0.0}})),
        ] {
            assert_eq!(configuration(value).check().unwrap_err().key, key);
        }
    }
}
