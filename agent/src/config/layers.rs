//! Where keys come from: the agent's file, its variables, the centre; and what the host's limits do.
//!
//! File and variables are read once, when the agent starts: what the centre sets later is laid over
//! what was read then, so that a file that somebody is editing does not take part in it.

use std::fs;
use std::io;
use std::path::Path;

use config::{
    ConfigError as SourceError, Environment, File, FileFormat, Map, Source, Value, ValueKind,
};
use shared_model::Configuration;

use super::limits::HostLimits;
use super::{Config, ConfigError, DEFAULT_LIMITS_PATH, DEFAULT_PATH, ENVIRONMENT_PREFIX};

/// What an error of the centre's values names as their origin.
const CENTRE: &str = "the centre";

/// What the host itself says.
#[derive(Clone, Debug)]
pub struct Local {
    /// The file.
    pub(crate) file: config::Config,
    /// Variables.
    pub(crate) variables: config::Config,
    /// What the centre cannot exceed.
    pub limits: HostLimits,
    from: String,
}

/// What came of all layers.
#[derive(Clone, Debug)]
pub struct Effective {
    /// To work by.
    pub config: Config,
    /// Keys that are not at the centre's value.
    pub limited: Vec<&'static str>,
    /// Keys to which the limits added something.
    pub completed: Vec<&'static str>,
}

impl Local {
    /// See [`Config::load`]; and the limits that it names.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        if let Some(file) = file.filter(|file| !file.exists()) {
            return Err(ConfigError::Missing(file.to_owned()));
        }
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        let from = format!("{} and {ENVIRONMENT_PREFIX}_* variables", path.display());
        let variables = Environment::with_prefix(ENVIRONMENT_PREFIX)
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("endpoints")
            .with_list_parse_key("collect.disabled");
        let text = File::from(path).format(FileFormat::Toml).required(file.is_some());
        let (file, variables) = (one(text, &from)?, one(variables, &from)?);
        let mut local = Self { file, variables, limits: HostLimits::default(), from };
        local.limits = read_limits(&local.with(None)?.config.limits_file)?;
        Ok(local)
    }

    /// TOML and nothing else.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let from = "text".to_owned();
        let file = one(File::from_str(text, FileFormat::Toml), &from)?;
        let variables = config::Config::default();
        Ok(Self { file, variables, limits: HostLimits::default(), from })
    }

    /// All layers; without the centre's if the host takes nothing from there.
    pub fn with(&self, centre: Option<&Configuration>) -> Result<Effective, ConfigError> {
        let centre = centre.filter(|_| self.limits.remote_configuration);
        let mut builder = config::Config::builder()
            .add_source(self.file.clone())
            .add_source(self.variables.clone());
        let (mut from, mut limited) = (self.from.clone(), Vec::new());
        if let Some(centre) = centre {
            centre
                .check()
                .map_err(|error| ConfigError::Range { key: error.key, detail: error.detail })?;
            let bounded;
            (bounded, limited) = self.limits.bound(centre);
            builder = builder.add_source(layer(&bounded)?);
            from = format!("{from}, {CENTRE}");
        }
        let unusable = |source| ConfigError::Unusable { from, source: Box::new(source) };
        let mut config: Config =
            builder.build().and_then(config::Config::try_deserialize).map_err(unusable)?;
        config.check()?;
        let completed = self.limits.complete(&mut config);
        Ok(Effective { config, limited, completed })
    }
}

fn one(
    source: impl Source + Send + Sync + 'static,
    from: &str,
) -> Result<config::Config, ConfigError> {
    config::Config::builder()
        .add_source(source)
        .build()
        .map_err(|source| ConfigError::Unusable { from: from.to_owned(), source: Box::new(source) })
}

fn read_limits(path: &Path) -> Result<HostLimits, ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => HostLimits::parse(&text, &path.display().to_string()),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && path == Path::new(DEFAULT_LIMITS_PATH) =>
        {
            Ok(HostLimits::default())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ConfigError::Missing(path.to_owned()))
        }
        Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    }
}

/// What the centre sets, as a source that says so in errors.
pub(crate) fn layer(centre: &Configuration) -> Result<config::Config, ConfigError> {
    let json = serde_json::to_value(centre).map_err(ConfigError::Show)?;
    let ValueKind::Table(tables) = value(json).kind else { return Ok(config::Config::default()) };
    one(Layer(tables), CENTRE)
}

#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, SourceError> {
        Ok(self.0.clone())
    }
}

fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => ValueKind::Nil,
        Json::Bool(is) => ValueKind::Boolean(is),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => ValueKind::I64(number),
            (None, Some(number)) => ValueKind::U64(number),
            (None, None) => number.as_f64().map_or(ValueKind::Nil, ValueKind::Float),
        },
        Json::String(text) => ValueKind::String(text),
        Json::Array(list) => ValueKind::Array(list.into_iter().map(value).collect()),
        Json::Object(table) => {
            ValueKind::Table(table.into_iter().map(|(key, json)| (key, value(json))).collect())
        }
    };
    Value::new(Some(&CENTRE.to_owned()), kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "interval_ms = 20000\nstate_dir = \"/here\"\n\
        [profile]\ntop = 3\nalways_keep = [\"sshd\"]\n[redaction]\npatterns = [\"a\"]";

    fn centre(json: serde_json::Value) -> Configuration {
        serde_json::from_value(json).unwrap()
    }

    fn error(json: serde_json::Value) -> String {
        let error = Local::parse(FILE).unwrap().with(Some(&centre(json))).unwrap_err();
        format!("{:#}", anyhow::Error::from(error))
    }

    #[test]
    fn the_centre_prevails_key_by_key_and_replaces_lists() {
        let local = Local::parse(FILE).unwrap();
        let set = json!({"profile": {"always_keep": [], "memory_bytes": u64::MAX, "cpu_cores": 1},
            "budget": {"cpu_cores": 0.25}, "filesystem": {"exclude_types": ["xfs"]},
            "collect": {"disabled": ["load"]}, "block_device": {"exclude": ["^sd"]}});
        let Config { interval_ms, profile, budget, redaction, filesystem, collect, .. } =
            local.with(Some(&centre(set))).unwrap().config;
        assert_eq!((interval_ms, profile.top), (20_000, 3), "what it does not set stays");
        assert_eq!((profile.memory_bytes, profile.cpu_cores), (u64::MAX, 1.0));
        assert_eq!((profile.always_keep.len(), redaction.patterns.len()), (0, 1));
        assert_eq!((budget.cpu_cores, budget.memory_bytes), (0.25, 64 << 20));
        assert_eq!(
            (filesystem.exclude_types, collect.disabled),
            (vec!["xfs".to_owned()], vec!["load".to_owned()])
        );
    }

    #[test]
    fn nothing_from_the_centre_is_nothing_changed() {
        let local = Local::parse(FILE).unwrap();
        let (without, with) = (local.with(None), local.with(Some(&Configuration::default())));
        assert_eq!(format!("{:?}", without.unwrap()), format!("{:?}", with.unwrap()));
    }

    #[test]
    fn what_cannot_be_applied_names_its_key() {
        assert!(error(json!({"collect": {"disabled": ["gpu"]}})).starts_with("collect.disabled"));
        assert!(error(json!({"interval_ms": 1})).starts_with("interval_ms"));
        let pattern = error(json!({"redaction": {"patterns": ["a", "("]}}));
        assert!(pattern.contains("redaction.patterns") && pattern.contains(CENTRE), "{pattern}");
    }

    #[test]
    fn limits_bound_the_centre_alone() {
        let mut local = Local::parse(FILE).unwrap();
        let text = "min_interval_ms = 30000\n[redaction]\npatterns = [\"b\"]";
        local.limits = HostLimits::parse(text, "here").unwrap();
        let own = local.with(None).unwrap();
        assert_eq!((own.config.interval_ms, own.limited.len()), (20_000, 0));
        assert_eq!(own.completed, ["redaction.patterns"]);
        let set = centre(json!({"interval_ms": 10000, "redaction": {"patterns": []}}));
        let bounded = local.with(Some(&set)).unwrap();
        assert_eq!((bounded.config.interval_ms, bounded.limited), (30_000, vec!["interval_ms"]));
        assert_eq!(bounded.config.redaction.patterns[0].0.as_str(), "b");

        local.limits = HostLimits::parse("remote_configuration = false", "here").unwrap();
        assert_eq!(local.with(Some(&set)).unwrap().config.interval_ms, 20_000);
    }
}
