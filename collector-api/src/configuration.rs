//! What a host's agent is to use: profiles whose selector means the host, then what is set for the host
//! alone.
//!
//! Layers are compiled key by key: a later layer replaces the whole value of a key (lists are not
//! joined: what is in force can be read in one place), and a key that no layer sets stays what the
//! agent's own file says. Among profiles the higher `priority` comes later; of the same priority, the
//! larger id, so that every server compiles the same. The hash is SHA-256 of the keys in order with
//! their values, so it changes exactly if something the agent would see does.

pub mod agents;
pub mod live;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared_model::Configuration;
use shared_model::configuration::OutOfRange;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::selector::{Selector, SelectorError};
use crate::store::configurations::HostLayers;
use crate::store::profiles::{Profile, ProfileText};

/// Who set a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = ConfigurationOrigin)]
pub enum Origin {
    /// A profile.
    Profile {
        /// Its id.
        profile_id: Uuid,
        /// Its name.
        name: String,
        /// Its priority.
        priority: i32,
    },
    /// Set for this host alone.
    Host,
}

/// What one origin sets.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Who.
    pub origin: Origin,
    /// Which keys.
    pub values: Configuration,
}

/// What came of the layers.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// For the agent.
    pub values: Configuration,
    /// Which layer set a key that is set, the key with a dot between table and key.
    pub origins: BTreeMap<String, Origin>,
    /// SHA-256.
    pub hash: [u8; 32],
}

/// A configuration that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not the form of one.
    #[error("the configuration has another form than is known")]
    Form(#[source] serde_json::Error),
    /// A key that is none.
    #[error("{0} is no key")]
    UnknownKey(String),
    /// A value out of its range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// Not a regular expression.
    #[error("{key} holds {pattern:?}, which is no regular expression")]
    Pattern {
        /// Which key.
        key: &'static str,
        /// Which.
        pattern: String,
        /// Why.
        #[source]
        source: regex_lite::Error,
    },
    /// A profile's selector that cannot be read.
    #[error("the selector of profile {profile} cannot be read")]
    Selector {
        /// Its name.
        profile: String,
        /// Why.
        #[source]
        source: SelectorError,
    },
    /// Layers that are each within their ranges came to something that cannot be written.
    #[error("the layers cannot be joined")]
    Join(#[source] serde_json::Error),
}

/// A profile, its parts read.
#[derive(Clone, Debug)]
pub struct StoredProfile {
    /// Which one.
    pub origin: Origin,
    /// Which hosts.
    pub selector: Selector,
    /// Which keys.
    pub values: Configuration,
}

impl StoredProfile {
    /// Reads one as operators wrote it, checked.
    pub fn new(profile_id: Uuid, text: ProfileText) -> Result<Self, ConfigurationError> {
        let ProfileText { name, selector, priority, configuration } = text;
        let selector = match selector.as_deref().map(Selector::parse).transpose() {
            Ok(selector) => selector.unwrap_or_default(),
            Err(source) => return Err(ConfigurationError::Selector { profile: name, source }),
        };
        let values = serde_json::from_value(configuration).map_err(ConfigurationError::Form)?;
        Ok(Self { origin: Origin::Profile { profile_id, name, priority }, selector, values })
    }

    /// Its id.
    pub fn id(&self) -> Option<Uuid> {
        match self.origin {
            Origin::Profile { profile_id, .. } => Some(profile_id),
            Origin::Host => None,
        }
    }
}

/// Reads profiles as they are stored.
pub fn stored_profiles(profiles: Vec<Profile>) -> Result<Vec<StoredProfile>, ConfigurationError> {
    let read = |profile: Profile| {
        let Profile { profile_id, name, selector, priority, configuration, .. } = profile;
        let text = ProfileText { name, selector, priority, configuration };
        StoredProfile::new(profile_id, text)
    };
    profiles.into_iter().map(read).collect()
}

/// The layers of a host.
pub fn layers<'a>(
    profiles: impl IntoIterator<Item = &'a StoredProfile>,
    host: &HostLayers,
) -> Result<Vec<Layer>, ConfigurationError> {
    let mut layers: Vec<_> = profiles
        .into_iter()
        .filter(|profile| profile.selector.matches(&host.labels))
        .map(|profile| Layer { origin: profile.origin.clone(), values: profile.values.clone() })
        .collect();
    if let Some(own) = host.configuration.clone() {
        let values = serde_json::from_value(own).map_err(ConfigurationError::Form)?;
        layers.push(Layer { origin: Origin::Host, values });
    }
    Ok(layers)
}

/// Every key of a configuration that is set, with a dot between table and key.
pub fn keys(values: &Configuration) -> Result<BTreeMap<String, Value>, ConfigurationError> {
    let values = serde_json::to_value(values).map_err(ConfigurationError::Join)?;
    let mut keys = flatten(&values);
    // A table of which nothing is set.
    keys.retain(|_, value| !value.is_object());
    Ok(keys)
}

/// Reads what an operator sent: strict, with the engine that the agents run patterns with.
pub fn parse(value: Value) -> Result<Configuration, ConfigurationError> {
    // A list would be read as the values of the keys in their order.
    if !value.is_object() {
        let error = serde::de::Error::custom("it is no object");
        return Err(ConfigurationError::Form(error));
    }
    let asked = flatten(&value);
    let read: Configuration = serde_json::from_value(value).map_err(ConfigurationError::Form)?;
    let known = serde_json::to_value(&read).map_err(ConfigurationError::Form)?;
    let known = flatten(&known);
    if let Some((key, _)) = asked.iter().find(|(key, value)| {
        let is_table = value.as_object().is_some_and(Map::is_empty);
        !value.is_null() && !is_table && !known.contains_key(*key)
    }) {
        return Err(ConfigurationError::UnknownKey(key.clone()));
    }
    read.check()?;
    for (key, patterns) in read.patterns() {
        for pattern in patterns {
            regex_lite::Regex::new(pattern).map_err(|source| ConfigurationError::Pattern {
                key,
                pattern: pattern.clone(),
                source,
            })?;
        }
    }
    Ok(read)
}

/// Joins layers, of which a later one prevails.
pub fn compile(mut layers: Vec<Layer>) -> Result<Compiled, ConfigurationError> {
    layers.sort_by_key(|layer| match layer.origin {
        Origin::Profile { priority, profile_id, .. } => (false, priority, profile_id),
        Origin::Host => (true, 0, Uuid::nil()),
    });
    let mut keys = BTreeMap::new();
    let mut origins = BTreeMap::new();
    for layer in layers {
        for (key, value) in self::keys(&layer.values)? {
            origins.insert(key.clone(), layer.origin.clone());
            keys.insert(key, value);
        }
    }
    let canonical = serde_json::to_vec(&keys).map_err(ConfigurationError::Join)?;
    let values = serde_json::from_value(unflatten(keys)).map_err(ConfigurationError::Join)?;
    Ok(Compiled { values, origins, hash: Sha256::digest(canonical).into() })
}

/// `{"a": {"b": 1}, "c": 2}` as `a.b` and `c`. No deeper: no key is.
fn flatten(value: &Value) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value.as_object().filter(|table| !table.is_empty()) {
            Some(table) => {
                for (key, value) in table {
                    keys.insert(format!("{name}.{key}"), value.clone());
                }
            }
            None => {
                keys.insert(name.clone(), value.clone());
            }
        }
    }
    keys
}

fn unflatten(keys: BTreeMap<String, Value>) -> Value {
    let mut tables = Map::new();
    for (key, value) in keys {
        let Some((name, key)) = key.split_once('.') else {
            tables.insert(key, value);
            continue;
        };
        let table = tables.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if let Some(table) = table.as_object_mut() {
            table.insert(key.to_owned(), value);
        }
    }
    Value::Object(tables)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile(id: u128, priority: i32, values: Value) -> Layer {
        let origin =
            Origin::Profile { profile_id: Uuid::from_u128(id), name: format!("p{id}"), priority };
        Layer { origin, values: parse(values).unwrap() }
    }

    fn host(values: Value) -> Layer {
        Layer { origin: Origin::Host, values: parse(values).unwrap() }
    }

    #[test]
    fn the_higher_priority_and_then_the_host_prevail_key_by_key() {
        let low = profile(
            2,
            1,
            json!({"interval_ms": 10_000, "profile": {"top": 1, "always_keep": ["a"]}}),
        );
        let high =
            profile(1, 5, json!({"profile": {"top": 2, "keep_all": false, "always_keep": ["b"]}}));
        let own = host(json!({"profile": {"keep_all": true}}));
        let layers = vec![own.clone(), high.clone(), low.clone()];
        let compiled = compile(layers).unwrap();
        let values = &compiled.values;
        assert_eq!(values.interval_ms, Some(10_000));
        assert_eq!(values.profile.top, Some(2));
        assert_eq!(values.profile.always_keep, Some(vec!["b".to_owned()]));
        assert_eq!(values.profile.keep_all, Some(true));
        assert_eq!(values.profile.memory_bytes, None);
        assert_eq!(compiled.origins["interval_ms"], low.origin);
        assert_eq!(compiled.origins["profile.top"], high.origin);
        assert_eq!(compiled.origins["profile.keep_all"], Origin::Host);
        assert_eq!(compiled.origins.len(), 4);
    }

    #[test]
    fn of_the_same_priority_the_larger_id_prevails_in_any_order() {
        let one = profile(1, 0, json!({"interval_ms": 10_000}));
        let two = profile(2, 0, json!({"interval_ms": 20_000}));
        for layers in [vec![one.clone(), two.clone()], vec![two.clone(), one.clone()]] {
            assert_eq!(compile(layers).unwrap().values.interval_ms, Some(20_000));
        }
    }

    #[test]
    fn the_hash_changes_exactly_with_what_the_agent_sees() {
        let hash = |layers| compile(layers).unwrap().hash;
        let ten = || profile(1, 0, json!({"interval_ms": 10_000}));
        let none = hash(Vec::new());
        assert_eq!(none, hash(vec![host(json!({"profile": {}}))]));
        assert_ne!(none, hash(vec![ten()]));
        assert_eq!(hash(vec![ten()]), hash(vec![host(json!({"interval_ms": 10_000}))]));
        assert_eq!(
            hash(vec![ten()]),
            hash(vec![ten(), profile(2, -1, json!({"interval_ms": 20_000}))])
        );
        assert_ne!(hash(vec![ten()]), hash(vec![host(json!({"interval_ms": 10_001}))]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        for (value, text) in [
            (json!({"intervall_ms": 1}), "intervall_ms is no key"),
            (json!({"profile": {"cpu": 1}}), "profile.cpu is no key"),
            (json!({"spool": {"max_bytes": 1}}), "spool.max_bytes is no key"),
            (json!({"interval_ms": 1}), "interval_ms must lie"),
            (json!({"redaction": {"patterns": ["("]}}), "redaction.patterns holds \"(\""),
            (json!({"interval_ms": "often"}), "the configuration has another form"),
            (json!([10_000]), "the configuration has another form"),
        ] {
            let error = parse(value).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        parse(json!({"interval_ms": null, "profile": {}})).unwrap();
    }
}
