//! What programs that use the API rely on: `openapi.contract`, a line for each fact of the document.
//!
//! A line that is gone breaks somebody, and so does a new `requires` of an operation that was there: the test
//! fails. What is new is taken into the file with `PROCFLEET_BLESS=1 cargo nextest run -p collector-api contract`,
//! which refuses breaks; `PROCFLEET_BLESS=breaking` takes those too, for a release that says so in the changelog.
//!
//! Limits: ranges and patterns are no facts here, nor are values that answers may have; that an answer's
//! field may no longer be null, or a question's may be now, counts as a break although it is none.

use std::collections::BTreeSet;
use std::path::PathBuf;

use collector_api::document;
use serde_json::Value;

use crate::openapi::operations;

/// Deeper than any schema is nested.
const MAX_DEPTH: usize = 12;

struct Facts<'a> {
    document: &'a Value,
    lines: BTreeSet<String>,
}

impl Facts<'_> {
    fn of(document: &Value) -> BTreeSet<String> {
        let mut facts = Facts { document, lines: BTreeSet::new() };
        for (method, path, operation) in operations(document) {
            let name = format!("{method} {path}");
            facts.operation(&name, &operation);
        }
        facts.lines
    }

    fn operation(&mut self, name: &str, operation: &Value) {
        self.lines.insert(name.to_owned());
        for role in operation["security"][0]["api_key"].as_array().into_iter().flatten() {
            self.lines.insert(format!("{name} is for {}", role.as_str().unwrap()));
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let place = parameter["name"].as_str().unwrap();
            if parameter["required"] == true {
                self.lines.insert(format!("{name} requires {place}"));
            }
            self.schema(&format!("{name} takes {place}"), &parameter["schema"], true, 0);
        }
        for (media, content) in
            operation["requestBody"]["content"].as_object().into_iter().flatten()
        {
            self.schema(&format!("{name} takes {media}"), &content["schema"], true, 0);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            if !status.starts_with('2') {
                continue;
            }
            self.lines.insert(format!("{name} gives {status}"));
            for content in response["content"].as_object().into_iter().flat_map(|c| c.values()) {
                self.schema(&format!("{name} gives {status}"), &content["schema"], false, 0);
            }
        }
    }

    fn schema(&mut self, place: &str, schema: &Value, is_question: bool, depth: usize) {
        assert!(depth < MAX_DEPTH, "{place} has no end");
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix("#/components/schemas/").unwrap();
            let document = self.document;
            return self.schema(
                place,
                &document["components"]["schemas"][name],
                is_question,
                depth + 1,
            );
        }
        for part in ["oneOf", "allOf", "anyOf"] {
            for schema in schema[part].as_array().into_iter().flatten() {
                self.schema(place, schema, is_question, depth + 1);
            }
        }
        let types = match &schema["type"] {
            Value::Array(types) => {
                types.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
            }
            one => one.as_str().unwrap_or_default().to_owned(),
        };
        if !types.is_empty() {
            self.lines.insert(format!("{place}: {types}"));
        }
        for value in schema["enum"].as_array().into_iter().flatten().filter(|_| is_question) {
            self.lines.insert(format!("{place} = {value}"));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.schema(&format!("{place}.{name}"), property, is_question, depth + 1);
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // Those who ask must give it; those who are answered may count on it.
            let line = if is_question {
                format!("{}.{name}", place.replacen(" takes ", " requires ", 1))
            } else {
                format!("{place}.{name} always")
            };
            self.lines.insert(line);
        }
        if schema["items"].is_object() {
            self.schema(&format!("{place}[]"), &schema["items"], is_question, depth + 1);
        }
        if schema["additionalProperties"].is_object() {
            let values = &schema["additionalProperties"];
            self.schema(&format!("{place}.*"), values, is_question, depth + 1);
        }
    }
}

fn operation_of(line: &str) -> String {
    line.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// What of `now` breaks those who rely on `then`.
fn breaks(then: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let is_demand = |line: &str| line.contains(" requires ");
    let gone = then.difference(now).filter(|line| !is_demand(line));
    let demanded =
        now.difference(then).filter(|line| is_demand(line) && then.contains(&operation_of(line)));
    gone.map(|line| format!("gone: {line}"))
        .chain(demanded.map(|line| format!("new: {line}")))
        .collect()
}

fn now() -> Value {
    serde_json::to_value(document::document()).unwrap()
}

#[test]
fn nothing_that_programs_rely_on_is_gone() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../openapi.contract");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let then: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let now = Facts::of(&now());
    let broken = breaks(&then, &now);
    let bless = std::env::var("PROCFLEET_BLESS").unwrap_or_default();
    if bless == "breaking" || (bless == "1" && broken.is_empty()) {
        let lines: Vec<String> = now.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, lines.concat()).unwrap();
        return;
    }
    assert!(broken.is_empty(), "this breaks programs that use the API:\n{}", broken.join("\n"));
    assert!(then == now, "openapi.contract lacks what is new: see the top of this test's file");
}

#[test]
fn planted_breaks_are_found_and_additions_are_none() {
    let document = now();
    let then = Facts::of(&document);
    assert!(then.len() > 500, "{}", then.len());
    let after = |change: &dyn Fn(&mut Value)| {
        let mut changed = document.clone();
        change(&mut changed);
        breaks(&then, &Facts::of(&changed))
    };
    let object = |value: &mut Value, name: &str| value[name].as_object_mut().unwrap().clone();

    let gone = after(&|d| drop(d["paths"].as_object_mut().unwrap().remove("/v1/top")));
    assert!(gone.contains(&"gone: GET /v1/top".to_owned()), "{gone:?}");
    let field = after(&|d| {
        let schema = &mut d["components"]["schemas"]["Profile"];
        schema["properties"].as_object_mut().unwrap().remove("priority");
    });
    assert!(
        field.iter().any(|line| line.contains("/v1/profiles/{profile_id} gives 200.priority")),
        "{field:?}"
    );
    let kind = after(&|d| {
        d["components"]["schemas"]["Profile"]["properties"]["version"]["type"] = "string".into();
    });
    assert!(!kind.is_empty());
    let demand = after(&|d| {
        let required = &mut d["components"]["schemas"]["ProfileBody"]["required"];
        required.as_array_mut().unwrap().push("selector".into());
    });
    assert!(
        demand.iter().all(|line| line.starts_with("new: ")) && !demand.is_empty(),
        "{demand:?}"
    );
    let role = after(&|d| {
        d["paths"]["/v1/profiles"]["get"]["security"][0]["api_key"] = serde_json::json!(["admin"]);
    });
    assert_eq!(role, ["gone: GET /v1/profiles is for fleet:read"]);

    let added = after(&|d| {
        let path = object(&mut d["paths"], "/v1/top");
        d["paths"]["/v1/top-of-tomorrow"] = Value::Object(path);
        let schema = &mut d["components"]["schemas"]["Profile"]["properties"];
        schema["colour"] = serde_json::json!({ "type": "string" });
    });
    assert_eq!(added, Vec::<String>::new());
}
