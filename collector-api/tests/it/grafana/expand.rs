//! Statements as Grafana sends them. The page puts in variables (`${name:sqlstring}`: in quotes, quotes
//! doubled) and the interval; the PostgreSQL data source then puts in its macros, whose arguments end
//! at the first closing bracket.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is chosen on a dashboard.
pub(super) struct Range {
    from: String,
    to: String,
    interval_ms: u32,
    pub(super) variables: BTreeMap<String, String>,
}

impl Range {
    pub(super) fn new(from: OffsetDateTime, to: OffsetDateTime, interval_ms: u32) -> Self {
        let text = |at: OffsetDateTime| at.format(&Rfc3339).unwrap();
        Self { from: text(from), to: text(to), interval_ms, variables: BTreeMap::new() }
    }

    pub(super) fn expand(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        for (name, value) in &self.variables {
            let quoted = format!("'{}'", value.replace('\'', "''"));
            sql = sql.replace(&format!("${{{name}:sqlstring}}"), &quoted);
        }
        sql = sql.replace("$__interval_ms", &self.interval_ms.to_string());
        while let Some(at) = sql.find("$__") {
            let rest = &sql[at..];
            let open = rest.find('(').unwrap();
            let close = rest.find(')').unwrap();
            let meaning = match (&rest[..open], &rest[open + 1..close]) {
                ("$__timeFrom", "") => format!("'{}'", self.from),
                ("$__timeTo", "") => format!("'{}'", self.to),
                ("$__timeFilter", column) => {
                    format!("{column} BETWEEN '{}' AND '{}'", self.from, self.to)
                }
                (name, _) => panic!("unknown macro {name}"),
            };
            sql.replace_range(at..=at + close, &meaning);
        }
        assert!(!sql.contains('$'), "something is not written out: {sql}");
        sql
    }
}

#[test]
fn statements_are_written_out_as_grafana_does() {
    let at = |second| OffsetDateTime::from_unix_timestamp(second).unwrap();
    let mut range = Range::new(at(0), at(60), 10_000);
    range.variables.insert("host".into(), "it's".into());
    assert_eq!(
        range
            .expand("${host:sqlstring} $__interval_ms $__timeFrom()::timestamptz $__timeFilter(t)"),
        "'it''s' 10000 '1970-01-01T00:00:00Z'::timestamptz t BETWEEN '1970-01-01T00:00:00Z' AND '1970-01-01T00:01:00Z'"
    );
}
