//! `procfleet-agent config show`: every key, its value, and where that comes from.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use shared_model::Configuration;

use crate::centre::kept::Kept;
use crate::config::ConfigError;
use crate::config::layers::{Local, layer};
use crate::once::Format;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The agent's file.
    File,
    /// A `PROCFLEET_AGENT_*` variable.
    Variable,
    /// A profile, or what is set for this host, on the server.
    Centre,
    /// The host's own limits, against the centre or beside everybody.
    Limit,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// With a dot between table and key.
    pub key: String,
    /// What is in force.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// What the host itself says; `effective`: what an agent works by, with what the centre told it.
pub fn show(local: &Local, effective: bool, format: Format) -> Result<String, ConfigError> {
    let path = local.with(None)?.config.centre_path();
    let kept = effective.then(|| Kept::read(&path));
    let told = kept.as_ref().and_then(Kept::in_force);
    let rows = rows(local, told.map(|told| &told.configuration))?;
    match format {
        Format::Table => Ok(table(&rows)),
        Format::Json => serde_json::to_string(&rows).map_err(ConfigError::Show),
    }
}

/// Every key with what `centre` sets, in the order of their names.
fn rows(local: &Local, centre: Option<&Configuration>) -> Result<Vec<Row>, ConfigError> {
    let effective = local.with(centre)?;
    let centre = centre.filter(|_| local.limits.remote_configuration).map(layer).transpose()?;
    let layers = [
        (Origin::File, keys_of(&local.file)?),
        (Origin::Variable, keys_of(&local.variables)?),
        (Origin::Centre, centre.as_ref().map(keys_of).transpose()?.unwrap_or_default()),
        (
            Origin::Limit,
            effective.limited.iter().chain(&effective.completed).map(|&key| key.into()).collect(),
        ),
    ];
    let values = serde_json::to_value(&effective.config).map_err(ConfigError::Show)?;
    let mut rows: Vec<Row> = flatten(&values)
        .map(|(key, value)| {
            let origin = layers.iter().rev().find(|(_, keys)| keys.contains(&key));
            let origin = origin.map_or(Origin::Default, |(origin, _)| *origin);
            Row { key, value: value.clone(), origin }
        })
        .collect();
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(rows)
}

/// For people: a line each.
fn table(rows: &[Row]) -> String {
    let value = |row: &Row| row.value.to_string();
    let width = rows.iter().map(|row| row.key.len()).max().unwrap_or(0);
    let line = |row: &Row| {
        let origin = format!("{:?}", row.origin).to_lowercase();
        format!("{:width$}  {origin:8}  {}", row.key, value(row))
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn keys_of(source: &config::Config) -> Result<BTreeSet<String>, ConfigError> {
    let values: Value = source.clone().try_deserialize().map_err(|source| {
        ConfigError::Unusable { from: "one source".to_owned(), source: Box::new(source) }
    })?;
    Ok(flatten(&values).map(|(key, _)| key).collect())
}

/// Every value that is no table, by its key.
fn flatten(values: &Value) -> impl Iterator<Item = (String, &Value)> {
    values.as_object().into_iter().flatten().flat_map(|(name, value)| match value.as_object() {
        Some(table) => {
            table.iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect::<Vec<_>>()
        }
        None => vec![(name.clone(), value)],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::limits::HostLimits;

    #[test]
    fn every_key_has_its_origin() {
        let mut local =
            Local::parse("interval_ms = 1000\n[profile]\ntop = 3\n[budget]\ncpu_cores = 1")
                .unwrap();
        local.variables = Local::parse("[profile]\ntop = 4\nkeep_all = true").unwrap().file;
        let limits = "[profile]\nkeep_all = false\n[redaction]\npatterns = [\"x\"]";
        local.limits = HostLimits::parse(limits, "here").unwrap();
        let set = json!({"interval_ms": 2000, "profile": {"keep_all": true}, "collect": {"disabled": []}});
        let set: Configuration = serde_json::from_value(set).unwrap();
        let rows = rows(&local, Some(&set)).unwrap();
        let of = |key: &str| {
            let row = rows.iter().find(|row| row.key == key).unwrap();
            (row.origin, row.value.clone())
        };
        assert_eq!(of("interval_ms"), (Origin::Centre, json!(2000)));
        assert_eq!(of("profile.top"), (Origin::Variable, json!(4)));
        assert_eq!(of("profile.keep_all"), (Origin::Limit, json!(false)));
        assert_eq!(of("redaction.patterns"), (Origin::Limit, json!(["x"])));
        assert_eq!(of("budget.cpu_cores"), (Origin::File, json!(1.0)));
        assert_eq!(of("collect.disabled"), (Origin::Centre, json!([])));
        assert_eq!(of("spool.max_bytes").0, Origin::Default);
        let table = table(&rows);
        assert!(table.contains("interval_ms"), "{table}");
        assert!(table.lines().any(|line| line.ends_with("  variable  4")), "{table}");
    }
}
