//! `THIRD-PARTY-LICENSES`: the texts of the licences of everything in a program, as its parts ship them.
//!
//! Texts that differ in spaces only are told once. A part without a text is an error: what its authors ask is
//! that their text goes with the program, and nobody else can write it for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::parts::Part;

/// How names of such files begin, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// Longest text that is one; the longest known has 35 KiB.
const LONGEST: usize = 128 << 10;

/// The text, the same for the same parts.
pub(crate) fn write(product: &str, parts: &[Part]) -> Result<String> {
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut out = format!(
        "{product} contains the works that are listed here. Below the list stand the texts of their licences, with what each is for.\n\n"
    );
    for part in parts {
        let title = format!("{} {}", part.name, part.version);
        ensure!(!part.licence.is_empty(), "{title} names no licence");
        writeln!(out, "{title} ({}): {}", part.registry, part.licence)?;
        let files = texts_of(&part.home)?;
        ensure!(
            !files.is_empty(),
            "{title} has no text of its licence in {}: it cannot be shipped; use another, or ask its authors for one",
            part.home.display()
        );
        for file in files {
            let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            ensure!(bytes.len() <= LONGEST, "{} is too long for a licence", file.display());
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let key = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (_, titles) = texts.entry(key).or_insert((text, Vec::new()));
            if !titles.contains(&title) {
                titles.push(title.clone());
            }
        }
    }
    // Linked into every program of Rust, and in no registry.
    writeln!(
        out,
        "The standard library of Rust: MIT OR Apache-2.0 (here: Apache-2.0; its text stands beside this file or below)"
    )?;
    for (text, titles) in texts.values() {
        write!(
            out,
            "\n{}\n{}\n{}\n\n{}\n",
            "=".repeat(80),
            titles.join(", "),
            "-".repeat(80),
            text.trim_end()
        )?;
    }
    Ok(out)
}

/// The files of a part that are texts of licences: at its top, and those of what it contains one level below.
fn texts_of(home: &Path) -> Result<Vec<PathBuf>> {
    let is_text = |path: &Path, names: &[&str]| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file()
            && names.iter().any(|start| name.starts_with(start))
            // A module of sources may be called so.
            && path.extension() != Some("rs".as_ref())
    };
    let list = |dir: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    let mut found = Vec::new();
    for path in list(home)? {
        if is_text(&path, &NAMES) {
            found.push(path);
        } else if path.ends_with("LICENSES") {
            // By the REUSE specification: one file for each.
            found.extend(list(&path)?);
        } else if path.is_dir() && !path.ends_with("node_modules") {
            // Of C sources that a crate contains. `COPYING` there is the GPL as the alternative that we do not choose.
            found.extend(list(&path)?.into_iter().filter(|below| is_text(below, &NAMES[..2])));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dist::{PRODUCTS, TARGET, parts};
    use crate::project::Project;

    #[test]
    fn every_part_of_every_program_has_its_text() {
        let project = Project::locate().unwrap();
        for (product, package) in PRODUCTS {
            let parts = parts::of(&project, package, TARGET).unwrap();
            let text = write(product, &parts).unwrap();
            assert_eq!(text, write(product, &parts).unwrap());
            for part in &parts {
                let line = format!("\n{} {} ({}): ", part.name, part.version, part.registry);
                assert!(text.contains(&line), "{line}");
            }
            // Told once for each way in which it is written, not once for each of the crates that have it.
            let apache = text.matches("TERMS AND CONDITIONS FOR USE, REPRODUCTION").count();
            let users = parts.iter().filter(|part| part.licence.contains("Apache-2.0")).count();
            assert!(apache * 4 < users, "{apache} times for {users} parts");
            // Of the C sources of zstd.
            assert!(text.contains("Meta Platforms, Inc. and affiliates"));
            assert!(!text.contains("GNU GENERAL PUBLIC LICENSE"));
        }
    }

    #[test]
    fn a_part_without_a_text_is_refused_by_name() {
        let home = Project::locate().unwrap().root.join("xtask/src/tidy");
        let part = Part {
            name: "bare".into(),
            version: "1.0.0".into(),
            registry: "cargo",
            licence: "MIT".into(),
            home,
            sha256: String::new(),
            uses: BTreeSet::new(),
        };
        let error = write("x", &[part]).unwrap_err().to_string();
        assert!(error.starts_with("bare 1.0.0 has no text of its licence"), "{error}");
    }
}
