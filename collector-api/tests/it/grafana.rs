//! Every panel of the committed dashboards: its statement is written out as Grafana's PostgreSQL data
//! source writes it out, and run as the role of dashboards.

mod fill;
mod model;

use std::collections::BTreeSet;

use fleet_sim::database::Engine;
use fleet_sim::panels::{Chosen, dashboards, list, panels, text};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column as _, PgConnection, Row as _, TypeInfo as _, ValueRef as _};
use time::{Duration, OffsetDateTime};

/// Window and the interval that Grafana makes of it at 1,000 points a panel and at least 10 s.
const WINDOWS: [(Duration, u32); 3] = [
    (Duration::minutes(10), 10_000),
    (Duration::hours(24), 60_000),
    (Duration::days(30), 1_800_000),
];

/// Types whose values Grafana draws.
const NUMBERS: [&str; 6] = ["INT2", "INT4", "INT8", "FLOAT4", "FLOAT8", "NUMERIC"];

#[tokio::test]
async fn every_panel_answers_in_the_shape_it_is_drawn_from() {
    tokio::join!(every_panel(Engine::TimescaleDb), every_panel(Engine::PostgreSql));
}

async fn every_panel(engine: Engine) {
    let filled = fill::fill(engine).await;
    let mut reader = filled.database.connect().await.unwrap();
    let alerts = "insert into alerts (alert_id, fingerprint, rule, severity, host_id, began_at)
         select gen_random_uuid(), host_id::text, 'cpu busy', 'warning', host_id, $1 from hosts";
    let began_at = filled.until - Duration::minutes(5);
    sqlx::query(alerts).bind(began_at).execute(&mut reader).await.unwrap();
    sqlx::raw_sql("set role procfleet_reader; set default_transaction_read_only = on")
        .execute(&mut reader)
        .await
        .unwrap();
    for dashboard in dashboards().unwrap() {
        for (length, interval_ms) in WINDOWS {
            let to = filled.until;
            let mut chosen = Chosen::new(to - length, to, interval_ms).unwrap();
            chosen.choose(&mut reader, &dashboard).await.unwrap();
            for panel in panels(&dashboard) {
                let what =
                    format!("{engine:?}, {length}: {} / {}", dashboard["title"], panel["title"]);
                check(&mut reader, panel, &chosen, &what).await;
            }
            for annotation in list(&dashboard["annotations"]["list"]) {
                let what = format!("{engine:?}, {length}: {} / annotation", dashboard["title"]);
                annotates(&mut reader, annotation, &chosen, &what).await;
            }
        }
    }
}

/// The columns that Grafana reads annotations from.
async fn annotates(reader: &mut PgConnection, annotation: &Value, chosen: &Chosen, what: &str) {
    let sql = chosen.expand(text(&annotation["target"]["rawSql"])).unwrap();
    let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut *reader).await;
    let rows = rows.unwrap_or_else(|error| panic!("{what}: {error}\n{sql}"));
    assert!(!rows.is_empty(), "{what} has no rows\n{sql}");
    let columns: Vec<(&str, &str)> =
        rows[0].columns().iter().map(|c| (c.name(), c.type_info().name())).collect();
    let expected =
        [("time", "TIMESTAMPTZ"), ("timeend", "TIMESTAMPTZ"), ("text", "TEXT"), ("tags", "TEXT")];
    assert_eq!(columns, expected, "{what}");
}

async fn check(reader: &mut PgConnection, panel: &Value, chosen: &Chosen, what: &str) {
    for target in list(&panel["targets"]) {
        let sql = chosen.expand(text(&target["rawSql"])).unwrap();
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut *reader).await;
        let rows = rows.unwrap_or_else(|error| panic!("{what}: {error}\n{sql}"));
        assert!(!rows.is_empty(), "{what} has no rows\n{sql}");
        let columns: Vec<(&str, &str)> =
            rows[0].columns().iter().map(|c| (c.name(), c.type_info().name())).collect();
        let names: BTreeSet<&str> = columns.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), columns.len(), "{what}: columns of one name: {columns:?}");
        match text(&target["format"]) {
            "time_series" => series(&rows, &columns, what),
            "table" => table(panel, &rows, &columns, what),
            other => panic!("{what}: format {other}"),
        }
    }
}

/// A time that never goes back, perhaps the name of the line, numbers of which some are known.
fn series(rows: &[PgRow], columns: &[(&str, &str)], what: &str) {
    assert_eq!(columns[0], ("time", "TIMESTAMPTZ"), "{what}");
    let named = columns.contains(&("metric", "TEXT"));
    assert!(!named || columns.len() == 3, "{what}: {columns:?}");
    let values: Vec<&str> = columns
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !["time", "metric"].contains(name))
        .collect();
    for (name, kind) in columns.iter().filter(|(name, _)| values.contains(name)) {
        assert!(NUMBERS.contains(kind), "{what}: {name} is {kind}");
        let known = rows.iter().filter(|row| !row.try_get_raw(*name).unwrap().is_null()).count();
        assert!(known > 0, "{what}: {name} is never known");
    }
    let times: Vec<OffsetDateTime> = rows.iter().map(|row| row.get("time")).collect();
    assert!(times.is_sorted(), "{what}: times are not in order");
    if named {
        let mut seen = BTreeSet::new();
        for row in rows {
            let line: String = row.get("metric");
            assert!(
                seen.insert((row.get::<OffsetDateTime, _>("time"), line.clone())),
                "{what}: {line} twice at a time"
            );
        }
    }
}

/// What a stat or a table shows, and every column that the panel's settings speak of.
fn table(panel: &Value, rows: &[PgRow], columns: &[(&str, &str)], what: &str) {
    for (name, kind) in columns {
        assert!(
            NUMBERS.contains(kind) || ["TEXT", "BOOL", "TIMESTAMPTZ"].contains(kind),
            "{what}: {name} is {kind}"
        );
    }
    if panel["type"] == "stat" {
        assert_eq!((rows.len(), columns.len()), (1, 1), "{what}");
        assert!(NUMBERS.contains(&columns[0].1), "{what}: {columns:?}");
        assert!(!rows[0].try_get_raw(0).unwrap().is_null(), "{what} is not known");
    }
    for over in list(&panel["fieldConfig"]["overrides"]) {
        let name = text(&over["matcher"]["options"]);
        assert!(columns.iter().any(|(column, _)| *column == name), "{what}: no column {name}");
        for field in model::fields_of_links(over) {
            assert!(
                columns.iter().any(|(column, _)| *column == field),
                "{what}: no column {field}"
            );
        }
    }
}
