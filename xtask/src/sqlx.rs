//! `cargo xtask sqlx`: describes every checked query against a freshly migrated TimescaleDB and
//! keeps the descriptions in `.sqlx`, which builds without a database read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::postgres::TestClusters;
use crate::progress::Step;
use crate::project::{Project, remove};
use crate::run::{captured, cargo};

/// Crates that may contain checked queries (tidy's layering says so).
const CRATES: [&str; 2] = ["collector-api", "fleet-sim"];
/// Touched so that cargo runs the macros again.
const ROOTS: [&str; 3] = ["src/lib.rs", "src/main.rs", "tests/it/main.rs"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail if `.sqlx` is not what it should be.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let fresh = describe(project)?;
    let committed_dir = project.root.join(".sqlx");
    let committed = read(&committed_dir)?;
    let differences = differences(&committed, &fresh);
    if differences.is_empty() {
        println!(".sqlx is fresh: {} queries", fresh.len());
        return Ok(ExitCode::SUCCESS);
    }
    for (name, what) in &differences {
        println!(".sqlx/{name}: {what}");
    }
    if arguments.check {
        println!("Run `cargo xtask sqlx` and commit .sqlx.");
        return Ok(ExitCode::FAILURE);
    }
    fs::create_dir_all(&committed_dir)?;
    for name in committed.keys().filter(|name| !fresh.contains_key(*name)) {
        remove(&committed_dir.join(name))?;
    }
    for (name, content) in &fresh {
        fs::write(committed_dir.join(name), content)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// For `tidy`: what is wrong with the committed data.
pub(crate) fn stale(project: &Project) -> Result<Vec<(String, &'static str)>> {
    Ok(differences(&read(&project.root.join(".sqlx"))?, &describe(project)?))
}

/// Compiles the queries against a real database; file name → content.
fn describe(project: &Project) -> Result<BTreeMap<String, String>> {
    crate::test::outlive_interrupts()?;
    let clusters = TestClusters::start(project)?;
    let url = clusters.create_timescaledb("sqlx")?;
    let step = Step::start("migrate, and describe the queries");
    let output = project.private("sqlx");
    remove(&output)?;
    fs::create_dir_all(&output)?;
    let mut migrate = cargo(project);
    migrate.args(["run", "--quiet", "--locked", "--package=collector-api", "--", "migrate"]);
    captured(migrate.env("PROCFLEET_DATABASE_URL", &url)).context("migrate")?;
    touch(project)?;
    let mut check = cargo(project);
    check
        .args(["check", "--quiet", "--locked", "--all-targets"])
        .args(CRATES.map(|name| format!("--package={name}")))
        .env("DATABASE_URL", &url)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &output);
    captured(&mut check).context("describe the queries")?;
    // The next ordinary build must not take this one's answers for its own.
    touch(project)?;
    step.done("");
    read(&output)
}

fn touch(project: &Project) -> Result<()> {
    let existing = |path: &PathBuf| path.is_file();
    for root in CRATES
        .iter()
        .flat_map(|name| ROOTS.map(|file| project.root.join(name).join(file)))
        .filter(existing)
    {
        #[expect(clippy::disallowed_methods, reason = "a file's time must be the wall clock's")]
        let now = std::time::SystemTime::now();
        File::options().write(true).open(&root)?.set_modified(now)?;
    }
    Ok(())
}

fn read(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok(files) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("query-") {
            bail!("{} is no query description: delete it", entry.path().display());
        }
        files.insert(name, fs::read_to_string(entry.path())?);
    }
    Ok(files)
}

fn differences(
    committed: &BTreeMap<String, String>,
    fresh: &BTreeMap<String, String>,
) -> Vec<(String, &'static str)> {
    let missing_or_changed = fresh.iter().filter_map(|(name, content)| match committed.get(name) {
        None => Some((name.clone(), "missing")),
        Some(old) if old.trim() != content.trim() => Some((name.clone(), "outdated")),
        Some(_) => None,
    });
    let stale = committed.keys().filter(|name| !fresh.contains_key(*name));
    missing_or_changed.chain(stale.map(|name| (name.clone(), "no query of ours"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named() {
        let set = |files: &[(&str, &str)]| {
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let committed = set(&[("same", "1\n"), ("changed", "1"), ("gone", "1")]);
        let fresh = set(&[("same", "1"), ("changed", "2"), ("new", "1")]);
        let mut found = differences(&committed, &fresh);
        found.sort();
        let expected = [("changed", "outdated"), ("gone", "no query of ours"), ("new", "missing")];
        assert_eq!(found, expected.map(|(name, what)| (name.to_owned(), what)));
    }
}
