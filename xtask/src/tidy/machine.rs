//! Nothing of the machine it was written on: no local paths, no local package registry.

use super::Violation;
use super::source::Tree;

const RULE: &str = "machine";
/// Directories that exist on one machine only. Split, so that this file passes.
const PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/tmp/", "pf"), concat!("/home/", "user/")];
/// The only place that locked packages come from.
const REGISTRY: &str = "\"registry+https://github.com/rust-lang/crates.io-index\"";

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (file, text) in &tree.files {
        for (at, line) in text.lines().enumerate() {
            let mut add = |advice: String| {
                found.push(Violation { file: file.clone(), line: at + 1, rule: RULE, advice });
            };
            for path in PATHS.iter().filter(|path| begins_path(line, path)) {
                add(format!(
                    "{path} exists on one machine only: use a relative or an example path"
                ));
            }
            if file == "Cargo.lock" && line.starts_with("source = ") && !line.ends_with(REGISTRY) {
                add("locked to another registry: restore it and build with the public one".into());
            }
            if file.starts_with(".cargo/") && is_registry_section(line) {
                add("a registry is the business of each machine: put it into ~/.cargo/config.toml"
                    .into());
            }
        }
    }
    found
}

/// As the beginning of an absolute path, not as a part of a longer one.
fn begins_path(line: &str, path: &str) -> bool {
    line.match_indices(path)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.*}".contains(c)))
}

fn is_registry_section(line: &str) -> bool {
    ["[source", "[registr", "[net", "[http"].iter().any(|section| line.starts_with(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_and_registries_are_found() {
        let work = PATHS[0];
        let tree = Tree::of(&[
            ("a.md", &format!("see {work}x\nsee frame{work}x\n")),
            ("Cargo.lock", &format!("source = {REGISTRY}\nsource = \"registry+https://mirror\"\n")),
            (".cargo/config.toml", "[alias]\n[source.crates-io]\n"),
        ]);
        let found: Vec<(String, usize)> =
            check(&tree).into_iter().map(|found| (found.file, found.line)).collect();
        let expected = [(".cargo/config.toml", 2), ("Cargo.lock", 2), ("a.md", 1)];
        assert_eq!(found, expected.map(|(file, line)| (file.to_owned(), line)));
    }
}
