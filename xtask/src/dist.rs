//! `cargo xtask dist`: everything of a release, in `target/dist`: programs, packages, sums, what they consist of and
//! under which licences.
//!
//! Signing is not done here: the keys are not where builds run. docs/releasing.md says what follows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;

use crate::packages::{self, Content, Kind, Making, Programs};
use crate::project::{Project, remove};
use crate::run::captured;

pub(crate) mod licences;
pub(crate) mod parts;
pub(crate) mod sbom;

/// What is built here. Others: docs/releasing.md.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What is released: programs, and the crates that they are.
pub(crate) const PRODUCTS: [(&str, &str); 2] =
    [("procfleet-agent", "agent"), ("procfleet-server", "collector-api")];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    programs: Programs,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    vacate(project, &arguments.programs.out(project))?;
    let making = Making::new(project, &arguments.programs)?;
    let mut made = Vec::new();
    for product in PRODUCTS {
        let content = Content::gather(&making, product)?;
        made.extend(packages::make(&making, &content, Kind::value_variants())?);
        made.extend(beside(&making, &content)?);
    }
    made.push(sums(&making.out, &made)?);
    for file in made {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is released of a product beside its packages: the program itself, which `procfleet-server release` signs and
/// agents fetch, what it consists of, and the licences of that.
fn beside(making: &Making<'_>, content: &Content) -> Result<[PathBuf; 3]> {
    let product = content.product;
    let named = |rest: &str| making.out.join(format!("{product}-{}{rest}", making.version));
    let program = named(&format!("-{}-linux", content.architecture.name));
    fs::copy(making.binaries.join(product), &program)
        .with_context(|| format!("copy {product} to {}", program.display()))?;
    let write = |file: PathBuf, text: &str| -> Result<PathBuf> {
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    };
    let bill = sbom::write(product, &making.version, making.epoch, &content.parts)?;
    Ok([
        program,
        write(named(".cdx.json"), &bill)?,
        write(named(".THIRD-PARTY-LICENSES"), &content.licences)?,
    ])
}

/// What an older version left there is not of this release. Only our own directory is emptied.
fn vacate(project: &Project, out: &Path) -> Result<()> {
    if out == project.target().join("dist") {
        return remove(out);
    }
    let is_empty = !out.exists() || fs::read_dir(out)?.next().is_none();
    ensure!(is_empty, "{} is not empty: a release has a directory of its own", out.display());
    Ok(())
}

/// `SHA256SUMS`, as `sha256sum --check` reads it.
fn sums(out: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    names.sort();
    let text = captured(Command::new("sha256sum").current_dir(out).args(names))?;
    let file = out.join("SHA256SUMS");
    fs::write(&file, text)?;
    Ok(file)
}
