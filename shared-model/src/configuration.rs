//! What the centre sets on an agent, and what the agent says became of it.
//!
//! Every key may be missing: it is then what the agent's own file says, or its default. The same form
//! is a profile, an override of one host, and what is compiled from them for a host. Keys are those of
//! the agent's file, so that `profile.top` means the same in both. Unlike the file, an agent passes
//! over keys it does not know (a newer server may talk to it); a server refuses them.
//!
//! Every answer to a host names the hash of what is in force for it in [`CONFIGURATION_HEADER`]. An agent
//! that has another one sends its [`ConfigurationStatus`] to `PUT /v1/configuration`, is answered with
//! [`ConfigurationAnswer`], and sends its status again when it has applied or refused it.

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_INTERVAL_MS, MIN_INTERVAL_MS};

/// Names, in every answer to a host, the hash of the configuration in force for it.
pub const CONFIGURATION_HEADER: &str = "procfleet-configuration";
/// Length of that hash: SHA-256, lower-case hex.
pub const HASH_LENGTH: usize = 64;
/// Longest `error` of a status, bytes; an agent cuts it.
pub const MAX_ERROR_BYTES: usize = 512;
/// Most keys in `limited` of a status.
pub const MAX_LIMITED: usize = 64;

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
    /// Which collectors work.
    pub collect: CollectKeys,
    /// Which file systems are reported.
    pub filesystem: FilesystemKeys,
    /// Which block devices are reported.
    pub block_device: ExcludeKeys,
    /// Which network interfaces are reported.
    pub network_interface: ExcludeKeys,
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

/// `collect.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectKeys {
    /// Names of collectors that do not work. One that the agent does not have is an error there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Vec<String>>,
}

/// `filesystem.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilesystemKeys {
    /// Types that are not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_types: Option<Vec<String>>,
    /// Regular expressions on mount points that are not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_mount_points: Option<Vec<String>>,
}

/// `block_device.*`, `network_interface.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExcludeKeys {
    /// Regular expressions on names that are not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<String>>,
}

/// Body of `PUT /v1/configuration`: what became of what the agent was told. Hashes, each null: none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// The last one that the agent read.
    pub received: Option<String>,
    /// The one it works by.
    pub applied: Option<String>,
    /// The last one that it could not apply, or went back from.
    pub failed: Option<String>,
    /// Why, at most [`MAX_ERROR_BYTES`].
    pub error: Option<String>,
    /// Keys of `applied` that the host's own limits kept from their value, at most [`MAX_LIMITED`].
    #[serde(default)]
    pub limited: Vec<String>,
}

/// 200 to `PUT /v1/configuration`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationAnswer {
    /// Of `configuration`.
    pub hash: String,
    /// What the agent is to use.
    pub configuration: Configuration,
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
        for (key, texts) in self.lists() {
            if texts.len() > MAX_PATTERNS {
                return no(key, format!("holds more than {MAX_PATTERNS} texts"));
            }
            if texts.iter().any(|text| !(1..=MAX_PATTERN_BYTES).contains(&text.len())) {
                return no(key, format!("holds a text not of 1 to {MAX_PATTERN_BYTES} bytes"));
            }
        }
        Ok(())
    }

    /// Every list that is set and holds regular expressions, with its key.
    pub fn patterns(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [
            ("profile.always_keep", &self.profile.always_keep),
            ("redaction.patterns", &self.redaction.patterns),
            ("filesystem.exclude_mount_points", &self.filesystem.exclude_mount_points),
            ("block_device.exclude", &self.block_device.exclude),
            ("network_interface.exclude", &self.network_interface.exclude),
        ]
        .into_iter()
        .filter_map(|(key, list)| Some((key, list.as_deref()?)))
    }

    fn lists(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let names = [
            ("collect.disabled", &self.collect.disabled),
            ("filesystem.exclude_types", &self.filesystem.exclude_types),
        ];
        let names = names.into_iter().filter_map(|(key, list)| Some((key, list.as_deref()?)));
        self.patterns().chain(names)
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
        assert_eq!(written["profile"], json!({"top": 3}));
        assert!(!written.to_string().contains("null"), "{written}");
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
