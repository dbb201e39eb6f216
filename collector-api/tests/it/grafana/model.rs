//! The committed files against Grafana 12's dashboard model (`kinds/dashboard/dashboard_kind.cue`, the
//! panels' own schemas): what it demands, what would be dropped silently, and what the predecessor had.

use std::collections::BTreeSet;

use fleet_sim::panels::{dashboards, list, panels, text};
use serde_json::Value;

/// Columns that the links of an override speak of.
pub(super) fn fields_of_links(over: &Value) -> Vec<String> {
    over.to_string()
        .split("${__data.fields.")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()))
        .collect()
}

/// Units of Grafana that are used.
const UNITS: [&str; 6] = ["short", "percentunit", "bytes", "Bps", "bps", "s"];

#[test]
fn the_files_fit_grafanas_model() {
    let dashboards = dashboards().unwrap();
    let uids: BTreeSet<&str> = dashboards.iter().map(|dashboard| text(&dashboard["uid"])).collect();
    assert_eq!(uids.len(), dashboards.len());
    for dashboard in &dashboards {
        let title = text(&dashboard["title"]);
        assert_eq!(dashboard["schemaVersion"], 42, "{title}: the version of Grafana 12");
        assert!(dashboard.get("id").is_none(), "{title}: an id belongs to one Grafana");
        assert!((8..=40).contains(&text(&dashboard["uid"]).len()), "{title}: uid");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            let what = format!("{title} / {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{what}: id twice");
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{what}: outside the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{what}: upon another panel");
            }
        }
        for panel in panels(dashboard) {
            fits(panel, &format!("{title} / {}", panel["title"]));
        }
        for link in dashboard.to_string().split("/d/").skip(1) {
            let uid = link.split('?').next().unwrap();
            assert!(uids.contains(uid), "{title}: a link to {uid}");
        }
    }
}

fn fits(panel: &Value, what: &str) {
    assert_eq!(panel["datasource"]["type"], "grafana-postgresql-datasource", "{what}");
    assert_eq!(panel["datasource"]["uid"], "procfleet", "{what}");
    let targets = list(&panel["targets"]);
    assert!(!targets.is_empty(), "{what}");
    let drawn = text(&panel["type"]);
    for target in targets {
        assert_eq!(target["datasource"], panel["datasource"], "{what}");
        assert_eq!(target["rawQuery"], true, "{what}");
        assert_eq!(target["refId"], "A", "{what}");
        assert_eq!(
            target["format"],
            if drawn == "timeseries" { "time_series" } else { "table" },
            "{what}"
        );
    }
    let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
    assert!(UNITS.contains(&unit), "{what}: unit {unit}");
    match drawn {
        "timeseries" => {
            let legend = &panel["options"]["legend"];
            assert_eq!(legend["displayMode"], "table", "{what}");
            assert_eq!(
                legend["calcs"],
                serde_json::json!(["min", "max", "mean", "lastNotNull"]),
                "{what}"
            );
            assert_eq!(
                panel["fieldConfig"]["defaults"]["custom"]["spanNulls"], false,
                "{what}: a gap is a gap"
            );
        }
        "stat" => assert!(panel["options"]["reduceOptions"].is_object(), "{what}"),
        "table" => assert_eq!(panel["options"]["showHeader"], true, "{what}"),
        other => panic!("{what}: {other} is not in use"),
    }
}

/// The rows of the predecessor's dashboard and what they held.
const SEED: [(&str, &[&str]); 5] = [
    ("CPU", &["CPU cores", "CPU load", "CPU idle", "CPU wait"]),
    ("MEMORY", &["Memory total", "Memory used", "Memory free"]),
    (
        "DISK",
        &[
            "Disk total",
            "Disk used",
            "Disk free",
            "Disk write",
            "Disk read",
            "Disk queue length (avgqu-sz)",
            "Disk utilisation (util)",
        ],
    ),
    ("NET", &["Net speed", "Net total", "Net send", "Net receive"]),
    (
        "PROCESS",
        &[
            "Process CPU, of one core",
            "Process memory",
            "Process disk read",
            "Process disk write",
            "Process network in",
            "Process network out",
        ],
    ),
];

#[test]
fn nothing_of_the_predecessors_dashboard_is_missing() {
    let dashboards = dashboards().unwrap();
    let host = dashboards.iter().find(|dashboard| dashboard["uid"] == "procfleet-host").unwrap();
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for panel in list(&host["panels"]) {
        if panel["type"] == "row" {
            found.push((text(&panel["title"]), Vec::new()));
        } else {
            found.last_mut().unwrap().1.push(text(&panel["title"]));
        }
    }
    for (row, panels) in SEED {
        let (_, titles) = found.iter().find(|(title, _)| *title == row).unwrap();
        for panel in panels {
            assert!(titles.contains(panel), "{row}: {panel}");
        }
    }
}
