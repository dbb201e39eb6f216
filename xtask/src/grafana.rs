//! `cargo xtask grafana`: the dashboards under `grafana/dashboards/`, from a compact description.
//!
//! A panel is its title, how it is drawn, its unit and one statement; everything else that Grafana's
//! model wants (schema version 42, Grafana 12) is the same for all of a kind and is written here. In
//! statements `{window}`, `{day}`, `{host}`, `{hosts}`, `{step}` and `{fleet_step}` stand for what
//! `expand` says. Statements call functions and views that the role `procfleet_reader` may use.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::project::Project;

mod connections;
mod fleet;
mod host;
mod process;
mod server;

/// Every dashboard.
const DASHBOARDS: [&Dashboard; 5] =
    [&fleet::FLEET, &host::HOST, &process::PROCESS, &connections::CONNECTIONS, &server::SERVER];
const DIRECTORY: &str = "grafana/dashboards";
const SCHEMA_VERSION: u32 = 42;
const PLUGIN_VERSION: &str = "12.3.0";
/// Columns of Grafana's grid.
const GRID: u32 = 24;

/// One file.
struct Dashboard {
    /// Without `procfleet-`; the file's name, too.
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    from: &'static str,
    variables: &'static [Variable],
    rows: &'static [Row],
}

/// What is chosen at the top: the answer of a statement with columns `__text` and `__value`.
struct Variable {
    name: &'static str,
    label: &'static str,
    sql: &'static str,
    /// Whether the answer depends on the window.
    of_window: bool,
}

struct Row {
    title: &'static str,
    panels: &'static [Panel],
}

struct Panel {
    title: &'static str,
    draw: Draw,
    /// Of Grafana's units; empty: a plain number.
    unit: &'static str,
    sql: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Draw {
    /// Lines over time, half the width.
    Lines,
    /// Areas upon each other over time, the whole width.
    Stack,
    /// The last value of each column, an eighth of the width.
    Stat,
    /// Rows and columns, the whole width.
    Table(&'static [Column]),
}

/// How a table's column is shown that is not shown as it is.
#[derive(Clone, Copy, PartialEq)]
enum Column {
    Unit(&'static str, &'static str),
    /// Leads to the dashboard of the host in column `host_id`.
    Host(&'static str),
    /// Leads to the dashboard of the process in column `process_id`, on this row's host.
    Process(&'static str),
    /// Needed by links only.
    Hidden(&'static str),
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail if a file is not what it should be.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let stale = stale(project)?;
    if arguments.check && !stale.is_empty() {
        println!("outdated: run `cargo xtask grafana` and commit {}", stale.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    std::fs::create_dir_all(project.root.join(DIRECTORY))?;
    for dashboard in DASHBOARDS {
        let path = project.root.join(file(dashboard));
        std::fs::write(&path, text(dashboard)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    println!("{} dashboards, {} of them changed", DASHBOARDS.len(), stale.len());
    Ok(ExitCode::SUCCESS)
}

/// Files that are not what the description says, for `tidy`.
pub(crate) fn stale(project: &Project) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for dashboard in DASHBOARDS {
        let name = file(dashboard);
        let fresh = text(dashboard)?;
        if !std::fs::read_to_string(project.root.join(&name)).is_ok_and(|found| found == fresh) {
            stale.push(name);
        }
    }
    Ok(stale)
}

fn file(dashboard: &Dashboard) -> String {
    format!("{DIRECTORY}/{}.json", dashboard.uid)
}

fn text(dashboard: &Dashboard) -> Result<String> {
    Ok(serde_json::to_string_pretty(&model(dashboard))? + "\n")
}

fn model(dashboard: &Dashboard) -> Value {
    let mut variables: Vec<Value> = dashboard.variables.iter().map(variable).collect();
    variables.push(json!({
        "type": "constant", "name": "web", "label": "Procfleet's own page", "hide": 2,
        "query": "http://127.0.0.1:7080", "skipUrlSync": true
    }));
    json!({
        "uid": format!("procfleet-{}", dashboard.uid),
        "title": format!("Procfleet / {}", dashboard.title),
        "description": dashboard.description,
        "tags": ["procfleet"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": { "from": dashboard.from, "to": "now" },
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "annotations": { "list": annotations(dashboard) },
        "links": links(dashboard),
        "templating": { "list": variables },
        "panels": panels(dashboard),
    })
}

/// Alerts, from when they began to when they were over: of the host, or of the fleet.
fn annotations(dashboard: &Dashboard) -> Value {
    let of = match dashboard.uid {
        "host" => "host_id = {host} and ",
        "fleet" => "",
        _ => return json!([]),
    };
    let sql = format!(
        "select began_at as \"time\", coalesce(resolved_at, now()) as \"timeend\",
            concat_ws(' ', host_name, rule, object) as \"text\", severity as \"tags\"
        from procfleet_alerts
        where {of}began_at <= $__timeTo()::timestamptz and coalesce(resolved_at, now()) >= $__timeFrom()::timestamptz
        order by 1 desc limit 200"
    );
    json!([{
        "name": "Alerts", "enable": true, "hide": false, "iconColor": "red", "datasource": datasource(),
        "target": {
            "refId": "Anno", "format": "table", "editorMode": "code", "rawQuery": true, "rawSql": expand(&sql),
        },
    }])
}

/// To the other dashboards, with the same window; and to the same view of the built-in page.
fn links(dashboard: &Dashboard) -> Value {
    let path = match dashboard.uid {
        "host" | "connections" => "/host/${host}",
        "process" => "/process/${process}",
        "server" => "/server",
        _ => "/",
    };
    json!([
        {
            "title": "Procfleet", "type": "dashboards", "tags": ["procfleet"], "icon": "dashboard",
            "tooltip": "", "url": "", "asDropdown": true, "targetBlank": false, "includeVars": true, "keepTime": true
        },
        {
            "title": "Built-in page", "type": "link", "tags": [], "icon": "external link",
            "tooltip": "The same window in Procfleet's own page", "asDropdown": false, "targetBlank": true,
            "includeVars": false, "keepTime": false,
            "url": format!("${{web}}{path}?from=${{__from:date:iso}}&to=${{__to:date:iso}}")
        }
    ])
}

fn variable(variable: &Variable) -> Value {
    let sql = expand(variable.sql);
    json!({
        "type": "query", "name": variable.name, "label": variable.label, "hide": 0,
        "datasource": datasource(), "query": sql,
        "refresh": if variable.of_window { 2 } else { 1 },
        "sort": 0, "multi": false, "includeAll": false, "regex": "", "skipUrlSync": false
    })
}

fn datasource() -> Value {
    json!({ "type": "grafana-postgresql-datasource", "uid": "procfleet" })
}

/// Rows below each other; in a row panels from left to right.
fn panels(dashboard: &Dashboard) -> Vec<Value> {
    let mut found = Vec::new();
    let mut y = 0;
    for row in dashboard.rows {
        found.push(json!({
            "type": "row", "id": found.len() + 1, "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": GRID, "h": 1 }
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for panel in row.panels {
            let (w, h) = size(panel.draw);
            if x + w > GRID {
                y += height;
                x = 0;
            }
            height = h;
            found.push(json!({
                "type": kind(panel.draw), "id": found.len() + 1, "title": panel.title,
                "pluginVersion": PLUGIN_VERSION,
                "gridPos": { "x": x, "y": y, "w": w, "h": h },
                "datasource": datasource(), "interval": "10s",
                "targets": [target(panel)], "fieldConfig": field_config(panel), "options": options(panel.draw),
            }));
            x += w;
        }
        y += height;
    }
    found
}

fn size(draw: Draw) -> (u32, u32) {
    match draw {
        Draw::Lines => (12, 9),
        Draw::Stack => (24, 11),
        Draw::Stat => (3, 4),
        Draw::Table(_) => (24, 10),
    }
}

fn kind(draw: Draw) -> &'static str {
    match draw {
        Draw::Lines | Draw::Stack => "timeseries",
        Draw::Stat => "stat",
        Draw::Table(_) => "table",
    }
}

fn target(panel: &Panel) -> Value {
    let format = if kind(panel.draw) == "timeseries" { "time_series" } else { "table" };
    json!({
        "refId": "A", "datasource": datasource(), "format": format,
        "editorMode": "code", "rawQuery": true, "rawSql": expand(panel.sql)
    })
}

/// Writes out what is said shortly in a statement.
fn expand(sql: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        (
            "{step}",
            "procfleet_step({host}, $__timeFrom()::timestamptz, $__timeTo()::timestamptz, $__interval_ms)",
        ),
        (
            "{fleet_step}",
            "procfleet_step(null, $__timeFrom()::timestamptz, $__timeTo()::timestamptz, $__interval_ms)",
        ),
        ("{window}", "$__timeFrom()::timestamptz, $__timeTo()::timestamptz"),
        (
            "{day}",
            "greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '1 day'), $__timeTo()::timestamptz",
        ),
        ("{host}", "${host:sqlstring}::uuid"),
        (
            "{hosts}",
            "case when ${label:sqlstring} <> 'all' then procfleet_hosts_with(jsonb_build_object(split_part(${label:sqlstring}, '=', 1), substr(${label:sqlstring}, strpos(${label:sqlstring}, '=') + 1))) end",
        ),
    ];
    let one_line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    WORDS.iter().fold(one_line, |sql, (word, meaning)| sql.replace(word, meaning))
}

fn field_config(panel: &Panel) -> Value {
    let mut defaults = json!({
        "unit": if panel.unit.is_empty() { "short" } else { panel.unit },
        "color": { "mode": "palette-classic" },
        "mappings": [],
        "thresholds": { "mode": "absolute", "steps": [{ "color": "green", "value": null }] },
    });
    let mut overrides = Vec::new();
    match panel.draw {
        Draw::Lines | Draw::Stack => {
            let stacked = panel.draw == Draw::Stack;
            defaults["min"] = json!(0);
            defaults["custom"] = json!({
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1,
                "fillOpacity": if stacked { 60 } else { 5 }, "gradientMode": "none",
                "showPoints": "auto", "pointSize": 3, "spanNulls": false,
                "stacking": { "mode": if stacked { "normal" } else { "none" }, "group": "A" },
                "axisPlacement": "auto", "axisLabel": "", "scaleDistribution": { "type": "linear" },
                "hideFrom": { "legend": false, "tooltip": false, "viz": false },
                "thresholdsStyle": { "mode": "off" }
            });
            if panel.sql.contains("{host}") {
                defaults["links"] = json!([{
                    "title": "What ran at that moment", "targetBlank": true,
                    "url": "${web}/host/${host}?from=${__from:date:iso}&to=${__to:date:iso}&at=${__value.time:date:iso}"
                }]);
            }
        }
        Draw::Stat => defaults["color"] = json!({ "mode": "thresholds" }),
        Draw::Table(columns) => {
            defaults["custom"] = json!({ "align": "auto", "cellOptions": { "type": "auto" }, "inspect": true, "filterable": true });
            overrides = columns.iter().map(column).collect();
        }
    }
    json!({ "defaults": defaults, "overrides": overrides })
}

fn column(column: &Column) -> Value {
    let link = |title: &str, url: &str| json!([{ "id": "links", "value": [{ "title": title, "url": url, "targetBlank": false }] }]);
    let (name, properties) = match column {
        Column::Unit(name, unit) => (name, json!([{ "id": "unit", "value": unit }])),
        Column::Hidden(name) => (name, json!([{ "id": "custom.hideFrom.viz", "value": true }])),
        Column::Host(name) => (
            name,
            link(
                "Host",
                "/d/procfleet-host?var-host=${__data.fields.host_id}&from=${__from}&to=${__to}",
            ),
        ),
        Column::Process(name) => (
            name,
            link(
                "Process",
                "/d/procfleet-process?var-host=${__data.fields.host_id}&var-process=${__data.fields.process_id}&from=${__from}&to=${__to}",
            ),
        ),
    };
    json!({ "matcher": { "id": "byName", "options": name }, "properties": properties })
}

fn options(draw: Draw) -> Value {
    match draw {
        Draw::Lines | Draw::Stack => json!({
            "legend": { "showLegend": true, "displayMode": "table", "placement": "bottom",
                "calcs": ["min", "max", "mean", "lastNotNull"], "sortBy": "Mean", "sortDesc": true },
            "tooltip": { "mode": "multi", "sort": "desc" }
        }),
        Draw::Stat => json!({
            "reduceOptions": { "values": false, "calcs": ["lastNotNull"], "fields": "" },
            "orientation": "auto", "textMode": "auto", "wideLayout": true, "colorMode": "value",
            "graphMode": "none", "justifyMode": "auto", "showPercentChange": false, "percentChangeColorMode": "standard"
        }),
        Draw::Table(_) => json!({ "showHeader": true, "cellHeight": "sm", "frameIndex": 0 }),
    }
}
