//! The bill of materials: `CycloneDX` 1.5 as JSON.
//!
//! Written here: `cargo-cyclonedx` is a program of its own to be installed for minutes, knows nothing of the page's
//! packages, and lists what builds need, too. The form is a list of names, versions, sums and edges.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::parts::Part;
use crate::run::captured;

/// The document, the same for the same parts and time.
pub(crate) fn write(product: &str, version: &str, epoch: u64, parts: &[Part]) -> Result<String> {
    let time = captured(Command::new("date").args([
        "-u",
        "+%Y-%m-%dT%H:%M:%SZ",
        "-d",
        &format!("@{epoch}"),
    ]))?;
    let whole = format!("pkg:generic/{product}@{version}");
    let mut edges = vec![json!({
        "ref": whole,
        "dependsOn": parts.iter().map(Part::purl).collect::<Vec<_>>(),
    })];
    edges.extend(parts.iter().map(|part| json!({ "ref": part.purl(), "dependsOn": part.uses })));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.trim(),
            "component": {
                "type": "application",
                "bom-ref": whole,
                "name": product,
                "version": version,
                "licenses": [{ "license": { "id": "Apache-2.0" } }],
            },
        },
        "components": parts.iter().map(component).collect::<Vec<_>>(),
        "dependencies": edges,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn component(part: &Part) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": part.purl(),
        "name": part.name,
        "version": part.version,
        "purl": part.purl(),
        "licenses": [{ "expression": part.licence }],
    });
    if !part.sha256.is_empty() {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": part.sha256 }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dist::{PRODUCTS, TARGET, parts};
    use crate::project::Project;

    #[test]
    fn every_part_is_a_component_and_every_edge_ends_at_one() {
        let project = Project::locate().unwrap();
        for (product, package) in PRODUCTS {
            let parts = parts::of(&project, package, TARGET).unwrap();
            let text = write(product, "1.2.3", 1_700_000_000, &parts).unwrap();
            let document: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(document["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
            let components = document["components"].as_array().unwrap();
            assert_eq!(components.len(), parts.len());
            let mut known: BTreeSet<&str> =
                components.iter().map(|part| part["bom-ref"].as_str().unwrap()).collect();
            assert_eq!(known.len(), parts.len(), "references are unique");
            known.insert(document["metadata"]["component"]["bom-ref"].as_str().unwrap());
            let edges = document["dependencies"].as_array().unwrap();
            assert_eq!(edges.len(), parts.len() + 1);
            for edge in edges {
                assert!(known.contains(edge["ref"].as_str().unwrap()), "{edge}");
                for end in edge["dependsOn"].as_array().unwrap() {
                    assert!(known.contains(end.as_str().unwrap()), "{end}");
                }
            }
            // No reader of expressions takes the slash that registries had before.
            assert!(parts.iter().all(|part| !part.licence.contains('/')));
        }
    }
}
