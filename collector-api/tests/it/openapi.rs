//! The committed document is the handlers' document, and nothing is missing from it.

use std::path::Path;

use collector_api::document;
use serde_json::Value;

use crate::fleet::{Fleet, plain_client};

#[test]
fn the_committed_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.yaml");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == document::yaml(), "openapi.yaml is stale: run `cargo xtask openapi`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_door_serves_the_document_without_a_key() {
    let fleet = Fleet::create("openapi").await;
    let server = fleet.serve(&fleet.config()).await;
    let response = plain_client().get(server.operator_url("/openapi.yaml")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/yaml");
    assert!(response.text().await.unwrap() == document::yaml());
}

/// Every operation: method, path, its object.
pub(crate) fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_operation_is_documented_whole() {
    let document = serde_json::to_value(document::document()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to and not described");
    }
    let tags: Vec<&Value> =
        document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for (method, path, operation) in operations(&document) {
        let route = format!("{method} {path}");
        assert!(operation["summary"].is_string(), "{route} has no summary");
        assert!(tags.contains(&&operation["tags"][0]), "{route} has no tag");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{route}");
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
            let content = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(content, "#/components/schemas/Problem", "{route} {status}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{route} {}", parameter["name"]);
        }
        if operation["security"][0]["api_key"].is_array() {
            for status in ["401", "403", "500", "503"] {
                assert!(responses.contains_key(status), "{route} does not document {status}");
            }
        }
    }
    for (name, schema) in schemas {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let described = property["description"].is_string()
                || property["$ref"].is_string()
                || property["oneOf"].is_array();
            assert!(described, "{name}.{field} has no description");
        }
    }
}

/// utoipa's `routes!` registers a route and its documentation together; axum's own `route` would
/// leave the document behind.
#[test]
fn no_route_goes_round_the_document() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // The page's own files are for browsers, and no part of the interface.
            if path.ends_with("src/web.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for way in [".route(", ".route_service(", ".nest(", ".nest_service("] {
                assert!(!text.contains(way), "{} uses {way}", path.display());
            }
        }
    }
}
