//! What a program consists of: the crates that are linked into it, and what the web page has of npm.
//!
//! From `cargo metadata`, for the target's platform: dependencies of builds and tests are not shipped, and neither are
//! macros that run in the compiler. Features are those of the whole workspace, so there may be a crate too
//! much, never one too few.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::project::Project;
use crate::run::{captured, cargo};

/// Something that others wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) version: String,
    /// `cargo` or `npm`.
    pub(crate) registry: &'static str,
    /// An SPDX expression.
    pub(crate) licence: String,
    /// Where its sources are unpacked here.
    pub(crate) home: PathBuf,
    /// Of the archive in the registry; empty for npm.
    pub(crate) sha256: String,
    /// The package URLs of what it uses itself.
    pub(crate) uses: BTreeSet<String>,
}

impl Part {
    /// Its package URL.
    pub(crate) fn purl(&self) -> String {
        purl(self.registry, &self.name, &self.version)
    }
}

fn purl(registry: &str, name: &str, version: &str) -> String {
    // The only character of npm's names that a package URL wants escaped.
    let name = name.replace('@', "%40");
    format!("pkg:{registry}/{name}@{}", version.replace('+', "%2B"))
}

/// The parts of the program of this crate.
pub(crate) fn of(project: &Project, package: &str, target: &str) -> Result<Vec<Part>> {
    let mut command = cargo(project);
    command.args(["metadata", "--format-version=1", "--locked", "--filter-platform", target]);
    let metadata: Value =
        serde_json::from_str(&captured(&mut command)?).context("parse cargo metadata")?;
    let sums = checksums(&fs::read_to_string(project.root.join("Cargo.lock"))?);
    let mut parts = crates(&metadata, package, &sums)?;
    // The page that the server embeds.
    if package == "collector-api" {
        parts.extend(web(&project.root.join("web"))?);
    }
    parts.sort();
    Ok(parts)
}

fn crates(
    metadata: &Value,
    package: &str,
    sums: &BTreeMap<(String, String), String>,
) -> Result<Vec<Part>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let is_macro = |id: &str| {
        list(&packages[id]["targets"])
            .iter()
            .any(|target| list(&target["kind"]).contains(&"proc-macro".into()))
    };
    let used = |id: &str| -> Vec<String> {
        let linked =
            |link: &Value| list(&link["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let links = list(&nodes[id]["deps"]).into_iter().filter(linked);
        links.map(|link| text(&link["pkg"])).filter(|id| !is_macro(id)).collect()
    };
    let root = packages
        .iter()
        .find(|(_, found)| found["source"].is_null() && found["name"] == package)
        .with_context(|| format!("the workspace has no crate {package}"))?;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![root.0.clone()];
    while let Some(id) = waiting.pop() {
        if seen.insert(id.clone()) {
            waiting.extend(used(&id));
        }
    }
    let named = |id: &str| (text(&packages[id]["name"]), text(&packages[id]["version"]));
    let url = |id: &String| {
        let (name, version) = named(id);
        purl("cargo", &name, &version)
    };
    let part = |id: &String| {
        let found = &packages[id];
        let (name, version) = named(id);
        Part {
            licence: text(&found["license"]).replace('/', " OR "),
            home: Path::new(&text(&found["manifest_path"]))
                .parent()
                .map(Path::to_owned)
                .unwrap_or_default(),
            sha256: sums.get(&(name.clone(), version.clone())).cloned().unwrap_or_default(),
            registry: "cargo",
            uses: used(id).iter().map(url).collect(),
            name,
            version,
        }
    };
    let is_foreign = |id: &&String| !packages[*id]["source"].is_null();
    Ok(seen.iter().filter(is_foreign).map(part).collect())
}

/// Of `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |package: &str, key: &str| {
        let start = format!("{key} = \"");
        let line = package.lines().find_map(|line| line.strip_prefix(&start));
        line.map(|value| value.trim_end_matches('"').to_owned())
    };
    let sum = |package: &str| {
        Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
    };
    lock.split("[[package]]").filter_map(sum).collect()
}

/// What the page's own `dependencies` bring, with theirs.
fn web(web: &Path) -> Result<Vec<Part>> {
    let read = |path: &Path| -> Result<Value> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("read {}: run `cargo xtask web`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    };
    let names = |package: &Value| -> Vec<String> {
        package["dependencies"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    };
    let modules = web.join("node_modules");
    let mut waiting = names(&read(&web.join("package.json"))?);
    let mut packages: BTreeMap<String, Value> = BTreeMap::new();
    while let Some(name) = waiting.pop() {
        if let Entry::Vacant(unread) = packages.entry(name) {
            let package = read(&modules.join(unread.key()).join("package.json"))?;
            waiting.extend(names(&package));
            unread.insert(package);
        }
    }
    let text = |name: &str, key: &str| {
        let value = packages[name][key].as_str();
        value.map(str::to_owned).with_context(|| format!("{name} of npm says no {key}"))
    };
    let url = |name: String| Ok(purl("npm", &name, &text(&name, "version")?));
    packages
        .iter()
        .map(|(name, package)| {
            Ok(Part {
                name: name.clone(),
                version: text(name, "version")?,
                registry: "npm",
                licence: text(name, "license")?,
                home: modules.join(name),
                sha256: String::new(),
                uses: names(package).into_iter().map(url).collect::<Result<_>>()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(parts: &[Part], name: &str) -> bool {
        parts.iter().any(|part| part.name == name)
    }

    #[test]
    fn what_is_linked_is_a_part_and_what_builds_is_not() {
        let project = Project::locate().unwrap();
        let agent = of(&project, "agent", crate::dist::TARGET).unwrap();
        let server = of(&project, "collector-api", crate::dist::TARGET).unwrap();
        for name in ["ring", "aya", "zstd-sys", "tokio"] {
            assert!(named(&agent, name), "{name}");
        }
        // Macros, builds, tests, other platforms, the other program, and ourselves.
        for name in
            ["serde_derive", "cc", "proptest", "windows-sys", "sqlx", "agent", "shared-model"]
        {
            assert!(!named(&agent, name), "{name}");
        }
        for name in ["sqlx-postgres", "axum", "preact", "@preact/signals-core", "uplot"] {
            assert!(named(&server, name), "{name}");
        }
        assert!(!named(&server, "vite") && !named(&server, "aya"));
        let crates: Vec<_> =
            agent.iter().chain(&server).filter(|part| part.registry == "cargo").collect();
        for part in crates {
            assert_eq!(part.sha256.len(), 64, "{}", part.name);
        }
    }
}
