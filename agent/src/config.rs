//! The agent's configuration: defaults, then a TOML file, then `PROCFLEET_AGENT_<KEY>` variables
//! (`__` between table and key: `PROCFLEET_AGENT_SPOOL__MAX_BYTES`), then what the centre sets, within
//! the host's own limits ([`layers`], [`limits`]). Strict: an unknown key is an error that names it.
//! `agent/agent.toml` documents every key and is parsed by a test.

pub mod layers;
pub mod limits;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared_model::limits::{MAX_INTERVAL_MS, MIN_INTERVAL_MS};

use crate::collectors::process::titles;
use crate::collectors::settings::Settings;
use crate::collectors::{REGISTRY, block_device, filesystem, network_interface};
use crate::profile::{Pattern, Profile};
use crate::{channel, update};

/// Read if it exists and no other file was asked for.
pub const DEFAULT_PATH: &str = "/etc/procfleet/agent.toml";
/// What every variable begins with.
const ENVIRONMENT_PREFIX: &str = "PROCFLEET_AGENT";
/// Read if it exists and no other file was named.
pub const DEFAULT_LIMITS_PATH: &str = "/etc/procfleet/limits.toml";
/// Smallest `[spool] max_bytes`: below, the spool could not hold a day's gap of one small host.
const MIN_SPOOL_BYTES: u64 = 1 << 20;

/// Every key, with its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Holds `identity/`, `spool/` and `dead/`; 0700.
    pub state_dir: PathBuf,
    /// What the centre cannot exceed. Must exist unless it is [`DEFAULT_LIMITS_PATH`].
    pub limits_file: PathBuf,
    /// With the enrolment token of a host that has no identity of its own; empty: `enroll` is run by hand.
    pub token_file: PathBuf,
    /// Where this machine's `/proc`, `/sys` and `/etc` are, for what tells it from others.
    pub facts_root: PathBuf,
    /// Time between two reports, ms.
    pub interval_ms: u32,
    /// Agent-door endpoints in order of preference; empty: those of the identity.
    pub endpoints: Vec<String>,
    /// How data is collected.
    pub collect: CollectConfig,
    /// What is recorded.
    pub profile: Profile,
    /// The queue on disk.
    pub spool: SpoolConfig,
    /// What is hidden.
    pub redaction: RedactionConfig,
    /// Which titles of processes are shortened.
    pub titles: titles::Options,
    /// Which file systems are reported.
    pub filesystem: filesystem::Options,
    /// Which block devices are reported.
    pub block_device: block_device::Options,
    /// Which interfaces are reported.
    pub network_interface: network_interface::Options,
    /// What the agent may cost.
    pub budget: BudgetConfig,
    /// Who is told when no server answers.
    pub fallback: channel::Options,
    /// Whether and how the agent becomes another release.
    pub update: update::Options,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/procfleet-agent"),
            limits_file: PathBuf::from(DEFAULT_LIMITS_PATH),
            token_file: PathBuf::new(),
            facts_root: PathBuf::from("/"),
            interval_ms: 30_000,
            endpoints: Vec::new(),
            collect: CollectConfig::default(),
            profile: Profile::default(),
            spool: SpoolConfig::default(),
            redaction: RedactionConfig::default(),
            titles: titles::Options::default(),
            filesystem: filesystem::Options::default(),
            block_device: block_device::Options::default(),
            network_interface: network_interface::Options::default(),
            budget: BudgetConfig::default(),
            fallback: channel::Options::default(),
            update: update::Options::default(),
        }
    }
}

/// `[collect]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// The best source that may be used.
    pub tier: CollectTier,
    /// Names of collectors that do not work: their parts of the reports are missing.
    pub disabled: Vec<String>,
}

/// What collectors may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectTier {
    /// BPF where the kernel has it, for each group of fields; procfs and netlink for the rest.
    #[default]
    Auto,
    /// Never BPF.
    Proc,
}

/// `[spool]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Most bytes on disk; the spool also stays within 5 % of the free space.
    pub max_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { max_bytes: 256 << 20 }
    }
}

/// `[redaction]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionConfig {
    /// Hidden in command lines beside what always is.
    pub patterns: Vec<Pattern>,
}

/// `[budget]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// CPU the agent may use, in cores, averaged. Above it the interval grows, up to four times.
    pub cpu_cores: f64,
    /// Resident memory the agent may use, bytes, averaged. Above it, the same.
    pub memory_bytes: u64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { cpu_cores: 0.01, memory_bytes: 64 << 20 }
    }
}

/// A configuration that cannot be used. The text names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file asked for is not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file of limits cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in force cannot be shown.
    #[error("the configuration cannot be written as JSON")]
    Show(#[source] serde_json::Error),
    /// Not TOML, an unknown key, or a value of another type.
    #[error("the configuration is not usable ({from})")]
    Unusable {
        /// Where it was read from.
        from: String,
        /// Which key, and why.
        #[source]
        source: Box<config::ConfigError>,
    },
    /// A value out of its range.
    #[error("{key} {detail}")]
    Range {
        /// Which key.
        key: &'static str,
        /// What is allowed.
        detail: String,
    },
}

impl Config {
    /// Reads `file`, which must exist, or else [`DEFAULT_PATH`], which need not; then the environment. What
    /// the centre sets is not in it.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(layers::Local::load(file)?.with(None)?.config)
    }

    /// Reads TOML and nothing else.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(layers::Local::parse(text)?.with(None)?.config)
    }

    /// `<state_dir>/identity`.
    pub fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    /// `<state_dir>/spool`.
    pub fn spool_dir(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// `<state_dir>/dead`: records that no server could read.
    pub fn dead_dir(&self) -> PathBuf {
        self.state_dir.join("dead")
    }

    /// The part that may change while the agent runs, for collectors.
    pub fn settings(&self) -> Settings {
        Settings {
            profile: self.profile.clone(),
            redaction_patterns: self.redaction.patterns.clone(),
            disabled: self.collect.disabled.clone(),
            filesystem: self.filesystem.clone(),
            block_device: self.block_device.clone(),
            network_interface: self.network_interface.clone(),
        }
    }

    /// Between two reports.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.into())
    }

    /// `<state_dir>/configuration.json`: what the centre told, and what became of it.
    pub fn centre_path(&self) -> PathBuf {
        self.state_dir.join("configuration.json")
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |key, detail: String| Err(ConfigError::Range { key, detail });
        if !(MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&self.interval_ms) {
            return range(
                "interval_ms",
                format!("must lie between {MIN_INTERVAL_MS} and {MAX_INTERVAL_MS}"),
            );
        }
        if self.spool.max_bytes < MIN_SPOOL_BYTES {
            return range("spool.max_bytes", format!("must be at least {MIN_SPOOL_BYTES}"));
        }
        if !(self.budget.cpu_cores > 0.0 && self.budget.cpu_cores.is_finite()) {
            return range("budget.cpu_cores", "must be more than 0".to_owned());
        }
        if let Some(name) = self.collect.disabled.iter().find(|name| !is_collector(name)) {
            let known: Vec<_> = REGISTRY.iter().map(|line| line.name).collect();
            let known = known.join(", ");
            return range("collect.disabled", format!("holds {name:?}; there are {known}"));
        }
        if self.titles.rules.len() > titles::MAX_RULES {
            return range("titles.rules", format!("holds more than {} rules", titles::MAX_RULES));
        }
        if self.profile.cpu_cores.is_nan() || self.profile.cpu_cores < 0.0 {
            return range("profile.cpu_cores", "must be 0 or more".to_owned());
        }
        if !(5..=86_400).contains(&self.fallback.after_s) {
            return range("fallback.after_s", "must lie between 5 and 86400".to_owned());
        }
        if !self.state_dir.is_absolute() {
            return range("state_dir", "must be an absolute path".to_owned());
        }
        Ok(())
    }
}

fn is_collector(name: &str) -> bool {
    REGISTRY.iter().any(|line| line.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", anyhow::Error::from(Config::parse(text).unwrap_err()))
    }

    #[test]
    fn the_sample_holds_every_key_at_its_default() {
        let sample = Config::parse(include_str!("../agent.toml")).unwrap();
        assert_eq!(format!("{sample:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn nothing_is_the_default() {
        let config = Config::parse("").unwrap();
        assert_eq!(config.interval_ms, 30_000);
        assert_eq!(config.identity_dir(), Path::new("/var/lib/procfleet-agent/identity"));
    }

    #[test]
    fn unknown_keys_are_named() {
        assert!(
            error("intervall_ms = 1").contains("intervall_ms"),
            "{}",
            error("intervall_ms = 1")
        );
        assert!(error("[profile]\ncpu = 1").contains("`cpu`"), "{}", error("[profile]\ncpu = 1"));
        assert!(error("[filesystem]\ntypes = []").contains("`types`"));
    }

    #[test]
    fn wrong_values_name_their_key() {
        assert!(error("interval_ms = \"often\"").contains("interval_ms"));
        assert!(error("interval_ms = 5").contains("interval_ms"));
        assert!(error("[budget]\ncpu_cores = 0").contains("budget.cpu_cores"));
        assert!(error("[spool]\nmax_bytes = 12").contains("spool.max_bytes"));
        assert!(error("state_dir = \"here\"").contains("state_dir"));
        let unknown = error("[collect]\ndisabled = [\"process\", \"procces\"]");
        assert!(
            unknown.contains("collect.disabled holds \"procces\"; there are cpu, "),
            "{unknown}"
        );
        assert!(
            error("[redaction]\npatterns = [\"(\"]").contains("patterns"),
            "{}",
            error("[redaction]\npatterns = [\"(\"]")
        );
    }
}
