//! Banned packages and licences, from `cargo metadata`. The same lists are in `deny.toml`, for CI
//! elsewhere; a test holds the two together.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Violation;
use crate::project::Project;
use crate::run::{captured, cargo};

const RULE: &str = "packages";

/// Nowhere in the tree, with what to use.
const BANNED: [(&str, &str); 6] = [
    ("openssl", "rustls with ring"),
    ("openssl-sys", "rustls with ring"),
    ("native-tls", "rustls with ring"),
    ("aws-lc-rs", "ring: one cryptography library"),
    ("aws-lc-sys", "ring: one cryptography library"),
    ("chrono", "time: one calendar"),
];

/// Direct dependencies that only these of our crates may have.
const CONFINED: [(&str, &[&str]); 4] = [
    ("sqlx", &["collector-api", "fleet-sim"]),
    ("axum", &["collector-api", "fleet-sim"]),
    ("tokio", &["agent", "collector-api", "fleet-sim"]),
    ("reqwest", &["agent", "collector-api", "fleet-sim"]),
];

/// Licences whose terms an Apache-2.0 product can meet by a notice.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(super) fn check(project: &Project) -> Result<Vec<Violation>> {
    let mut command = cargo(project);
    let text = captured(command.args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).context("parse cargo metadata")?;
    Ok(find(&metadata))
}

fn find(metadata: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |file: &str, advice| {
        found.push(Violation { file: file.to_owned(), line: 1, rule: RULE, advice });
    };
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let is_ours = package["source"].is_null();
        if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            add(
                "Cargo.lock",
                format!(
                    "{name} is banned: use {instead} (`cargo tree -i {name}` shows who wants it)"
                ),
            );
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_ours && !is_acceptable(licence) {
            add(
                "Cargo.lock",
                format!(
                    "{name} has the licence {licence}: find another package, or add the licence to xtask/src/tidy/packages.rs and deny.toml"
                ),
            );
        }
        for dependency in
            package["dependencies"].as_array().into_iter().flatten().filter(|_| is_ours)
        {
            let wanted = dependency["name"].as_str().unwrap_or_default();
            if let Some((_, homes)) = CONFINED.iter().find(|(confined, _)| *confined == wanted)
                && !homes.contains(&name)
            {
                add(
                    &format!("{name}/Cargo.toml"),
                    format!("{wanted} belongs to {} only", homes.join(", ")),
                );
            }
        }
    }
    found
}

/// An SPDX expression: one alternative of every conjunction must be on our list.
fn is_acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    if let Some(parts) = split(expression, " OR ") {
        return parts.into_iter().any(is_acceptable);
    }
    if let Some(parts) = split(expression, " AND ") {
        return parts.into_iter().all(is_acceptable);
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_acceptable(inner),
        None => LICENCES.contains(&expression),
    }
}

/// Splits at an operator outside parentheses; `None` if there is none.
fn split<'a>(expression: &'a str, operator: &str) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in expression.match_indices(operator) {
        let before = &expression[..at];
        if before.matches('(').count() == before.matches(')').count() {
            parts.push(&expression[start..at]);
            start = at + operator.len();
        }
    }
    if parts.is_empty() {
        return None;
    }
    parts.push(&expression[start..]);
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_expressions() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR GPL-3.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ] {
            assert!(is_acceptable(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none", "(MIT OR ISC) AND OpenSSL"] {
            assert!(!is_acceptable(bad), "{bad}");
        }
    }

    #[test]
    fn banned_confined_and_unlicensed_packages_are_found() {
        let metadata = serde_json::json!({"packages": [
            {"name": "shared-model", "source": null, "license": "Apache-2.0", "dependencies": [{"name": "tokio"}]},
            {"name": "openssl", "source": "x", "license": "MIT", "dependencies": []},
            {"name": "left", "source": "x", "license": "AGPL-3.0", "dependencies": [{"name": "tokio"}]},
        ]});
        let files: Vec<String> = find(&metadata).into_iter().map(|found| found.file).collect();
        assert_eq!(files, ["shared-model/Cargo.toml", "Cargo.lock", "Cargo.lock"]);
    }

    #[test]
    fn deny_toml_says_the_same() {
        let deny = include_str!("../../../deny.toml");
        for (name, _) in BANNED {
            assert!(
                deny.contains(&format!("crate = \"{name}\"")),
                "{name} is not banned in deny.toml"
            );
        }
        for licence in LICENCES {
            assert!(
                deny.contains(&format!("\"{licence}\"")),
                "{licence} is not allowed in deny.toml"
            );
        }
    }
}
