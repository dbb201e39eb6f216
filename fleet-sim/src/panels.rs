//! The committed dashboards' statements, as Grafana sends them: for their test and their benchmark.
//!
//! The page puts in variables (`${name:sqlstring}`: in quotes, quotes doubled) and the interval; the
//! PostgreSQL data source then puts in its macros, whose arguments end at the first closing bracket.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Every committed dashboard, by the files' names.
pub fn dashboards() -> Result<Vec<Value>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana/dashboards");
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .with_context(|| format!("read {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    paths.iter().map(|path| Ok(serde_json::from_slice(&std::fs::read(path)?)?)).collect()
}

/// The elements of a list; none of anything else.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty for anything else.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Panels of a dashboard that show data.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row")
}

/// What is chosen on a dashboard.
#[derive(Clone, Debug)]
pub struct Chosen {
    from: String,
    to: String,
    interval_ms: u32,
    /// Values of variables by name.
    pub variables: BTreeMap<String, String>,
}

impl Chosen {
    /// A window, and the interval that Grafana makes of it.
    pub fn new(from: OffsetDateTime, to: OffsetDateTime, interval_ms: u32) -> Result<Self> {
        let (from, to) = (from.format(&Rfc3339)?, to.format(&Rfc3339)?);
        Ok(Self { from, to, interval_ms, variables: BTreeMap::new() })
    }

    /// Gives every variable of a dashboard that has no value yet the last one that it offers.
    pub async fn choose(&mut self, reader: &mut PgConnection, dashboard: &Value) -> Result<()> {
        for variable in list(&dashboard["templating"]["list"]) {
            let (name, query) = (text(&variable["name"]), text(&variable["query"]));
            if self.variables.contains_key(name) {
                continue;
            }
            let value = if variable["type"] == "constant" {
                query.to_owned()
            } else {
                let sql = self.expand(query)?;
                let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                    .fetch_all(&mut *reader)
                    .await
                    .with_context(|| format!("variable {name}: {sql}"))?;
                let row = rows.last().with_context(|| format!("{name} offers nothing: {sql}"))?;
                row.try_get::<String, _>("__text")?;
                row.try_get("__value")?
            };
            self.variables.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// A statement written out.
    pub fn expand(&self, sql: &str) -> Result<String> {
        let mut sql = sql.to_owned();
        for (name, value) in &self.variables {
            let quoted = format!("'{}'", value.replace('\'', "''"));
            sql = sql.replace(&format!("${{{name}:sqlstring}}"), &quoted);
        }
        sql = sql.replace("$__interval_ms", &self.interval_ms.to_string());
        while let Some(at) = sql.find("$__") {
            let (name, rest) = sql[at..].split_once('(').context("a macro without brackets")?;
            let (argument, _) = rest.split_once(')').context("a macro that does not end")?;
            let meaning = match (name, argument) {
                ("$__timeFrom", "") => format!("'{}'", self.from),
                ("$__timeTo", "") => format!("'{}'", self.to),
                ("$__timeFilter", column) => {
                    format!("{column} BETWEEN '{}' AND '{}'", self.from, self.to)
                }
                _ => bail!("unknown macro {name}"),
            };
            sql.replace_range(at..at + name.len() + argument.len() + 2, &meaning);
        }
        ensure!(!sql.contains("${"), "a variable has no value: {sql}");
        Ok(sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_written_out_as_grafana_does() -> Result<()> {
        let at = |second| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second);
        let mut chosen = Chosen::new(at(0), at(60), 10_000)?;
        chosen.variables.insert("host".into(), "it's".into());
        assert_eq!(
            chosen.expand(
                "${host:sqlstring} $__interval_ms $__timeFrom()::timestamptz $__timeFilter(t)"
            )?,
            "'it''s' 10000 '1970-01-01T00:00:00Z'::timestamptz t BETWEEN '1970-01-01T00:00:00Z' AND '1970-01-01T00:01:00Z'"
        );
        chosen.expand("$__timeGroup(t, '5m')").unwrap_err();
        chosen.expand("${process:sqlstring}").unwrap_err();
        Ok(())
    }
}
