//! What the centre cannot exceed on this host: `/etc/procfleet/limits.toml`, which only root writes.
//!
//! A value of the centre beyond a limit is not refused but bounded, and its key is told to the server.
//! The host's own file and variables are root's as well, so nothing bounds them. Read when the agent
//! starts. `agent/limits.toml` documents every key and is parsed by a test.

use config::{File, FileFormat};
use serde::Deserialize;
use shared_model::Configuration;
use shared_model::limits::{MAX_INTERVAL_MS, MIN_INTERVAL_MS};

use super::{Config, ConfigError, is_collector};
use crate::profile::Pattern;

/// See the module. What is not set does not limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostLimits {
    /// False: the centre sets nothing here.
    pub remote_configuration: bool,
    /// Shortest interval, ms.
    pub min_interval_ms: Option<u32>,
    /// `[profile]`.
    pub profile: ProfileLimits,
    /// `[budget]`.
    pub budget: BudgetLimits,
    /// `[collect]`.
    pub collect: CollectLimits,
    /// `[redaction]`.
    pub redaction: RedactionLimits,
}

/// `[profile]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileLimits {
    /// Largest `profile.top`.
    pub max_top: Option<u32>,
    /// False: `profile.keep_all` cannot be set.
    pub keep_all: Option<bool>,
}

/// `[budget]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetLimits {
    /// Largest `budget.cpu_cores`.
    pub max_cpu_cores: Option<f64>,
    /// Largest `budget.memory_bytes`.
    pub max_memory_bytes: Option<u64>,
}

/// `[collect]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectLimits {
    /// Collectors that always work.
    pub required: Vec<String>,
    /// Collectors that never work.
    pub disabled: Vec<String>,
}

/// `[redaction]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionLimits {
    /// Always hidden, whatever else is.
    pub patterns: Vec<Pattern>,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            remote_configuration: true,
            min_interval_ms: None,
            profile: ProfileLimits::default(),
            budget: BudgetLimits::default(),
            collect: CollectLimits::default(),
            redaction: RedactionLimits::default(),
        }
    }
}

impl HostLimits {
    /// Reads TOML. `from` says where it is from, in errors.
    pub fn parse(text: &str, from: &str) -> Result<Self, ConfigError> {
        let limits: Self = config::Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|source| ConfigError::Unusable {
                from: from.to_owned(),
                source: Box::new(source),
            })?;
        limits.check()?;
        Ok(limits)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |key, detail: String| Err(ConfigError::Range { key, detail });
        let intervals = MIN_INTERVAL_MS..=MAX_INTERVAL_MS;
        if self.min_interval_ms.is_some_and(|interval| !intervals.contains(&interval)) {
            let detail = format!("must lie between {MIN_INTERVAL_MS} and {MAX_INTERVAL_MS}");
            return range("min_interval_ms", detail);
        }
        if self.budget.max_cpu_cores.is_some_and(|cores| !(cores > 0.0 && cores.is_finite())) {
            return range("budget.max_cpu_cores", "must be more than 0".to_owned());
        }
        for (key, names) in [
            ("collect.required", &self.collect.required),
            ("collect.disabled", &self.collect.disabled),
        ] {
            if let Some(name) = names.iter().find(|name| !is_collector(name)) {
                return range(key, format!("holds {name:?}, which is no collector"));
            }
        }
        Ok(())
    }

    /// What is left of what the centre sets, and which keys are not at its value.
    pub fn bound(&self, centre: &Configuration) -> (Configuration, Vec<&'static str>) {
        let mut bounded = centre.clone();
        let least = self.min_interval_ms;
        bounded.interval_ms = bounded.interval_ms.map(|set| set.max(least.unwrap_or(set)));
        let profile = &mut bounded.profile;
        let most = self.profile.max_top;
        profile.top = profile.top.map(|set| set.min(most.unwrap_or(set)));
        if self.profile.keep_all == Some(false) && profile.keep_all == Some(true) {
            profile.keep_all = Some(false);
        }
        let (budget, limits) = (&mut bounded.budget, &self.budget);
        budget.cpu_cores = budget.cpu_cores.map(|set| set.min(limits.max_cpu_cores.unwrap_or(set)));
        budget.memory_bytes =
            budget.memory_bytes.map(|set| set.min(limits.max_memory_bytes.unwrap_or(set)));
        if let Some(disabled) = &mut bounded.collect.disabled {
            disabled.retain(|name| !self.collect.required.contains(name));
        }
        let limited = [
            ("interval_ms", bounded.interval_ms != centre.interval_ms),
            ("profile.top", bounded.profile.top != centre.profile.top),
            ("profile.keep_all", bounded.profile.keep_all != centre.profile.keep_all),
            ("budget.cpu_cores", bounded.budget.cpu_cores != centre.budget.cpu_cores),
            ("budget.memory_bytes", bounded.budget.memory_bytes != centre.budget.memory_bytes),
            ("collect.disabled", bounded.collect.disabled != centre.collect.disabled),
        ];
        let limited = limited.iter().filter(|(_, is)| *is).map(|(key, _)| *key).collect();
        (bounded, limited)
    }

    /// Adds to `config` what always applies. Which keys that changed.
    pub fn complete(&self, config: &mut Config) -> Vec<&'static str> {
        let mut completed = Vec::new();
        let add = |list: &mut Vec<Pattern>, pattern: &Pattern| {
            let is_new = !list.contains(pattern);
            list.extend(is_new.then(|| pattern.clone()));
            is_new
        };
        let patterns = self.redaction.patterns.iter();
        if patterns.filter(|pattern| add(&mut config.redaction.patterns, pattern)).count() > 0 {
            completed.push("redaction.patterns");
        }
        let disabled = &mut config.collect.disabled;
        let before = disabled.len();
        for name in &self.collect.disabled {
            if !disabled.contains(name) {
                disabled.push(name.clone());
            }
        }
        if disabled.len() > before {
            completed.push("collect.disabled");
        }
        completed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(text: &str) -> String {
        let error = HostLimits::parse(text, "here").unwrap_err();
        format!("{:#}", anyhow::Error::from(error))
    }

    fn bound(limits: &str, centre: serde_json::Value) -> (serde_json::Value, Vec<&'static str>) {
        let limits = HostLimits::parse(limits, "here").unwrap();
        let (bounded, limited) = limits.bound(&serde_json::from_value(centre).unwrap());
        (serde_json::to_value(bounded).unwrap(), limited)
    }

    #[test]
    fn the_sample_limits_nothing_and_each_of_its_examples_is_a_key() {
        let sample = include_str!("../../limits.toml");
        let none = HostLimits::parse(sample, "the sample").unwrap();
        assert_eq!(format!("{none:?}"), format!("{:?}", HostLimits::default()));
        let examples: Vec<_> =
            sample.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        let all = HostLimits::parse(&examples.join("\n"), "the examples").unwrap();
        assert!(!format!("{all:?}").contains("None"), "every key has an example: {all:?}");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        assert!(error("interval_ms = 3").contains("`interval_ms`"));
        assert!(error("[budget]\ncpu_cores = 3").contains("`cpu_cores`"));
        assert!(error("min_interval_ms = 3").starts_with("min_interval_ms"));
        assert!(error("[collect]\nrequired = [\"all\"]").starts_with("collect.required"));
    }

    #[test]
    fn what_exceeds_is_bounded_and_named_and_nothing_else() {
        let limits = "min_interval_ms = 5000\n[profile]\nmax_top = 20\nkeep_all = false\n\
            [budget]\nmax_cpu_cores = 0.1\nmax_memory_bytes = 100\n\
            [collect]\nrequired = [\"process\"]";
        let beyond = json!({"interval_ms": 1000, "profile": {"top": 21, "keep_all": true},
            "budget": {"cpu_cores": 0.2, "memory_bytes": 101},
            "collect": {"disabled": ["process", "load"]}});
        let (bounded, limited) = bound(limits, beyond);
        assert_eq!(bounded["interval_ms"], 5000);
        assert_eq!(bounded["profile"], json!({"top": 20, "keep_all": false}));
        assert_eq!(bounded["budget"], json!({"cpu_cores": 0.1, "memory_bytes": 100}));
        assert_eq!(bounded["collect"], json!({"disabled": ["load"]}));
        assert_eq!(limited.len(), 6);

        let within = json!({"interval_ms": 5000, "profile": {"top": 20, "keep_all": false},
            "budget": {"cpu_cores": 0.1, "memory_bytes": 100}, "collect": {"disabled": ["load"]}});
        let unset = json!({});
        for allowed in [within, unset] {
            let (bounded, limited) = bound(limits, allowed.clone());
            assert_eq!(limited, [""; 0]);
            let centre: Configuration = serde_json::from_value(allowed).unwrap();
            assert_eq!(bounded, serde_json::to_value(centre).unwrap());
        }
    }

    #[test]
    fn what_always_applies_is_added_once() {
        let text =
            "[redaction]\npatterns = [\"a\", \"b\"]\n[collect]\ndisabled = [\"load\", \"cpu\"]";
        let limits = HostLimits::parse(text, "here").unwrap();
        let mut config =
            Config::parse("[redaction]\npatterns = [\"b\"]\n[collect]\ndisabled = [\"cpu\"]")
                .unwrap();
        assert_eq!(limits.complete(&mut config), ["redaction.patterns", "collect.disabled"]);
        assert_eq!(config.redaction.patterns.len(), 2);
        assert_eq!(config.collect.disabled, ["cpu", "load"]);
        assert_eq!(limits.complete(&mut config), [""; 0]);
    }
}
