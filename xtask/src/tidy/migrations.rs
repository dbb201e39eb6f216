//! Applied migrations never change (ARCHITECTURE, invariant: the schema is append-only).
//!
//! A migration becomes immutable with the first release tag (`v*`) that contains it: databases
//! exist from then on that have applied it. Before the first tag there is nothing to compare with,
//! and in a shallow clone without tags neither; a clone with history compares with the latest tag
//! that is an ancestor of HEAD.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;

use super::Violation;
use crate::project::Project;
use crate::run::captured;

const RULE: &str = "migrations";
const DIRECTORY: &str = "migrations/";

pub(super) fn check(project: &Project) -> Result<Vec<Violation>> {
    let git = |arguments: &[&str]| {
        captured(Command::new("git").current_dir(&project.root).args(arguments))
    };
    let Ok(tag) = git(&["describe", "--tags", "--abbrev=0", "--match=v*"]) else {
        return Ok(Vec::new());
    };
    let tag = tag.trim();
    let mut released = BTreeMap::new();
    for path in git(&["ls-tree", "-r", "--name-only", tag, DIRECTORY])?.lines() {
        released.insert(path.to_owned(), git(&["show", &format!("{tag}:{path}")])?);
    }
    let mut present = BTreeMap::new();
    for entry in std::fs::read_dir(project.root.join(DIRECTORY))?.flatten() {
        let name = format!("{DIRECTORY}{}", entry.file_name().to_string_lossy());
        present.insert(name, std::fs::read_to_string(entry.path())?);
    }
    Ok(compare(tag, &released, &present))
}

fn compare(
    tag: &str,
    released: &BTreeMap<String, String>,
    present: &BTreeMap<String, String>,
) -> Vec<Violation> {
    let violation = |file: &str, advice: String| Violation {
        file: file.to_owned(),
        line: 1,
        rule: RULE,
        advice,
    };
    let changed =
        released.iter().filter(|(file, text)| present.get(*file) != Some(text)).map(|(file, _)| {
            violation(
                file,
                format!("released in {tag}, never changes: restore it and write a new migration"),
            )
        });
    let last = released.keys().next_back();
    let early = present
        .keys()
        .filter(|file| !released.contains_key(*file) && last.is_some_and(|last| *file < last))
        .map(|file| {
            violation(
                file,
                format!("comes before migrations that {tag} released: give it a later time"),
            )
        });
    changed.chain(early).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_migrations_are_immutable_and_new_ones_come_last() {
        let set = |files: &[(&str, &str)]| {
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let released = set(&[("m/1_a.sql", "a"), ("m/2_b.sql", "b"), ("m/3_c.sql", "c")]);
        let present =
            set(&[("m/0_x.sql", ""), ("m/1_a.sql", "a"), ("m/2_b.sql", "B"), ("m/4_d.sql", "d")]);
        let files: Vec<String> =
            compare("v1", &released, &present).into_iter().map(|found| found.file).collect();
        assert_eq!(files, ["m/2_b.sql", "m/3_c.sql", "m/0_x.sql"]);
    }
}
