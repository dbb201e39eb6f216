//! Who may import whom (ARCHITECTURE, code map), and what each crate may depend on.
//!
//! A module is the first part of a file's path below `src/`. It may use itself, and what its line
//! in the table names. Test code and the crates' roots are free.

use super::Violation;
use super::source::{Tree, blank, is_test_file, is_word, production_lines};

const RULE: &str = "layering";

/// (module, the modules of its crate that it may use), the upper layers first.
type Layers = &'static [(&'static str, &'static [&'static str])];

const AGENT: Layers = &[
    ("cli", &["agent", "config", "enroll", "facts", "identity", "once", "procfs", "top"]),
    ("top", &["agent", "config", "procfs", "spool"]),
    ("once", &["agent", "collectors", "config", "procfs", "profile", "spool"]),
    (
        "agent",
        &[
            "bpf",
            "causes",
            "centre",
            "certificate",
            "collectors",
            "config",
            "durable",
            "enroll",
            "facts",
            "identity",
            "machine",
            "metrics",
            "procfs",
            "profile",
            "spool",
            "tls",
            "updater",
            "uplink",
        ],
    ),
    ("updates", &["agent", "cli", "config", "identity", "once", "update"]),
    ("updater", &["causes", "spool", "tls", "update", "uplink"]),
    ("update", &["causes", "durable"]),
    ("show", &["centre", "config", "once"]),
    ("centre", &["causes", "config", "durable", "tls", "uplink"]),
    ("config", &["channel", "collectors", "profile", "update"]),
    ("collectors", &["bpf", "causes", "metrics", "procfs", "profile", "sockets"]),
    ("sockets", &["bpf", "metrics", "procfs"]),
    ("bpf", &["causes", "metrics"]),
    ("spool", &["durable", "metrics"]),
    ("uplink", &["channel", "durable", "identity", "metrics", "spool", "tls"]),
    ("certificate", &["identity", "tls"]),
    ("enroll", &["durable", "identity", "tls"]),
    ("identity", &["durable"]),
    ("tls", &["identity"]),
    ("machine", &["durable", "facts", "procfs"]),
    ("facts", &["procfs"]),
    ("causes", &[]),
    ("profile", &[]),
    ("channel", &[]),
    ("procfs", &[]),
    ("durable", &[]),
    ("metrics", &[]),
];

const SERVER: Layers = &[
    (
        "cli",
        &[
            "app",
            "artifacts",
            "auth",
            "authority",
            "config",
            "document",
            "error",
            "lifecycle",
            "metrics",
            "store",
        ],
    ),
    (
        "app",
        &[
            "alerts",
            "api",
            "artifacts",
            "auth",
            "authority",
            "config",
            "configuration",
            "document",
            "doors",
            "enroll",
            "error",
            "health",
            "ingest",
            "lifecycle",
            "maintenance",
            "rollouts",
            "store",
            "web",
        ],
    ),
    ("document", &["api", "artifacts", "configuration", "enroll", "health", "ingest", "openapi"]),
    // What answers requests, side by side; each is handed what it needs.
    (
        "api",
        &[
            "alerts",
            "auth",
            "authority",
            "configuration",
            "error",
            "extract",
            "metrics",
            "openapi",
            "selector",
            "store",
        ],
    ),
    ("alerts", &["auth", "authority", "config", "error", "metrics", "selector", "store"]),
    ("configuration", &["auth", "error", "extract", "selector", "store"]),
    ("enroll", &["auth", "authority", "config", "doors", "error", "extract", "metrics", "store"]),
    ("artifacts", &["auth", "authority", "config", "error", "extract", "metrics"]),
    ("health", &["error", "metrics"]),
    ("web", &["auth"]),
    ("ingest", &["auth", "error", "extract", "metrics", "store"]),
    ("maintenance", &["error", "metrics", "store"]),
    ("rollouts", &["error", "metrics", "store"]),
    // What lets requests in.
    ("doors", &["auth", "authority", "config", "error", "lifecycle", "metrics"]),
    ("config", &["auth", "ingest"]),
    ("authority", &["auth", "store"]),
    ("auth", &["error", "metrics", "store"]),
    // The ground.
    ("extract", &["error"]),
    ("openapi", &["error"]),
    ("lifecycle", &["metrics"]),
    ("error", &["store"]),
    ("store", &["metrics", "selector"]),
    ("metrics", &[]),
    ("selector", &[]),
];

/// External crates that only these places may name; `packages` holds the same between crates.
const CONFINED: [(&str, &[&str]); 3] = [
    ("sqlx", &["collector-api/src/store", "fleet-sim/"]),
    (
        "reqwest",
        &[
            "agent/src/uplink",
            "agent/src/certificate",
            "agent/src/enroll",
            "agent/src/tls",
            "collector-api/src/alerts",
            "collector-api/src/cli",
            "fleet-sim/",
        ],
    ),
    (
        "anyhow",
        &["agent/src/main.rs", "collector-api/src/main.rs", "collector-api/src/cli", "fleet-sim/"],
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| !is_test_file(path)) {
        let code = blank(text);
        let production = production_lines(text);
        for (at, line) in code.lines().take(production).enumerate() {
            let mut add = |advice| {
                found.push(Violation { file: path.into(), line: at + 1, rule: RULE, advice });
            };
            for target in imports(line) {
                add_import(path, target, &mut add);
            }
            for (name, places) in CONFINED {
                let elsewhere = !path.starts_with("xtask/")
                    && names_crate(line, name)
                    && !places.iter().any(|place| path.starts_with(place));
                if elsewhere {
                    add(format!(
                        "{name} belongs to {}: go through what is there",
                        places.join(", ")
                    ));
                }
            }
        }
    }
    found
}

fn add_import(path: &str, target: &str, add: &mut impl FnMut(String)) {
    let Some((layers, module)) = layers_of(path) else { return };
    let Some((_, allowed)) = layers.iter().find(|(name, _)| *name == module) else {
        add(format!(
            "the module {module} has no line in xtask/src/tidy/layering.rs: give it its place"
        ));
        return;
    };
    let is_module = layers.iter().any(|(name, _)| *name == target);
    if is_module && target != module && !allowed.contains(&target) {
        add(format!(
            "{module} must not use {target}: move what both need below them, or hand it in from above"
        ));
    }
}

/// The table of the crate and the module that a file belongs to; roots are free.
fn layers_of(path: &str) -> Option<(Layers, &str)> {
    let tables = [("agent/src/", AGENT), ("collector-api/src/", SERVER)];
    let (rest, layers) = tables
        .into_iter()
        .find_map(|(prefix, layers)| Some((path.strip_prefix(prefix)?, layers)))?;
    let module = rest.split(['/', '.']).next()?;
    (!["lib", "main", "testing"].contains(&module)).then_some((layers, module))
}

/// What follows `crate::` in a line, grouped imports included.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| is_word(c) || c == '$') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group.split([',', '}']).map(first_word).filter(|name| !name.is_empty()));
        } else {
            found.push(first_word(rest));
        }
    }
    found
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !is_word(c)).unwrap_or(text.len())]
}

/// `name::` as a path's beginning.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        line[at + name.len()..].starts_with("::")
            && !line[..at].ends_with(|c: char| is_word(c) || c == ':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)])).iter().map(|found| found.line).collect()
    }

    #[test]
    fn siblings_do_not_see_each_other() {
        assert_eq!(
            lines("agent/src/spool.rs", "use crate::metrics::X;\nuse crate::uplink::Y;\n"),
            [2]
        );
        assert_eq!(lines("agent/src/collectors/cpu.rs", "use crate::{procfs, spool::A};\n"), [1]);
        assert_eq!(lines("collector-api/src/api/hosts.rs", "use crate::ingest;\n"), [1]);
        assert_eq!(lines("collector-api/src/api/hosts.rs", "use crate::api::params;\n"), NONE);
    }

    #[test]
    fn roots_tests_and_comments_are_free() {
        assert_eq!(lines("agent/src/lib.rs", "use crate::uplink;\n"), NONE);
        assert_eq!(lines("agent/src/spool/tests.rs", "use crate::uplink;\n"), NONE);
        assert_eq!(
            lines(
                "agent/src/spool.rs",
                "// use crate::uplink;\n#[cfg(test)]\nmod tests {\nuse crate::uplink;\n}\n"
            ),
            NONE
        );
    }

    #[test]
    fn a_new_module_needs_a_place() {
        assert_eq!(lines("agent/src/extra.rs", "use crate::metrics;\n"), [1]);
    }

    #[test]
    fn sql_stays_in_the_store() {
        assert_eq!(lines("collector-api/src/api/hosts.rs", "fn f() { sqlx::query(); }\n"), [1]);
        assert_eq!(lines("collector-api/src/store/hosts.rs", "use sqlx::PgPool;\n"), NONE);
        assert_eq!(lines("agent/src/spool.rs", "use reqwest::Client;\n"), [1]);
    }
}
