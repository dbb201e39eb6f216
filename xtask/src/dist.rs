//! `cargo xtask dist`: everything of a release, in `target/dist`: programs, packages, sums, what they consist of and
//! under which licences.
//!
//! Signing is not done here: the keys are not where builds run. docs/releasing.md says what follows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::packages::{Kind, Making, make};
use crate::portable;
use crate::progress::Step;
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
    /// Directory with `procfleet-agent` and `procfleet-server` [default: builds both for release]
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Directory with the same programs for this machine, which print the manual [default: those of --binaries]
    #[arg(long, value_name = "DIR")]
    documenters: Option<PathBuf>,
    /// What --binaries were built for
    #[arg(long, default_value = TARGET)]
    target: String,
    /// Where to [default: target/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Compress little: for tests
    #[arg(long)]
    fast: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        arguments.target == TARGET || arguments.binaries.is_some(),
        "programs for {} are not built here: name them by --binaries (docs/releasing.md says how they are built)",
        arguments.target
    );
    let out = arguments.out.clone().unwrap_or_else(|| project.target().join("dist"));
    vacate(project, &out)?;
    let making = Making::new(project, &out, &arguments.target, arguments.fast)?;
    let binaries = match &arguments.binaries {
        Some(binaries) => binaries.clone(),
        None => portable::make(project, &PRODUCTS)?,
    };
    let documenters = arguments.documenters.as_ref().unwrap_or(&binaries);
    let mut made = make(&making, &binaries, documenters, &[Kind::Deb, Kind::Rpm, Kind::Tarball])?;
    for (product, package) in PRODUCTS {
        let step = Step::start(format!("list what {product} consists of"));
        let parts = parts::of(project, package, &arguments.target)?;
        let bill = sbom::write(product, &making.version, making.epoch, &parts)?;
        let file = making.out.join(format!("{product}-{}.cdx.json", making.version));
        fs::write(&file, bill).with_context(|| format!("write {}", file.display()))?;
        made.push(file);
        let file = making.out.join(format!("{product}-{}.THIRD-PARTY-LICENSES", making.version));
        fs::write(&file, licences::write(product, &parts)?)?;
        made.push(file);
        made.push(program(&making, &binaries, product)?);
        step.done(&format!("{} parts", parts.len()));
    }
    made.push(sums(&making.out, &made)?);
    for file in made {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
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

/// The program itself: what `procfleet-server release` signs and agents fetch.
fn program(making: &Making<'_>, binaries: &Path, product: &str) -> Result<PathBuf> {
    let machine = making.target.split('-').next().unwrap_or_default();
    let file = making.out.join(format!("{product}-{}-{machine}-linux", making.version));
    fs::copy(binaries.join(product), &file)
        .with_context(|| format!("copy {product} to {}", file.display()))?;
    Ok(file)
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
