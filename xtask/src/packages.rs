//! `cargo xtask packages`: deb, rpm and tarball of the agent and of the server.
//!
//! The programs are built before, and the manual's pages and the shells' completions are what they print. Each format is written by
//! its own system's tool (`dpkg-deb`, `rpmbuild`, `tar`), so that its rules are kept by those who make them; the
//! scripts, units and descriptions are files of `deploy/`. The sample configurations are those that the crates' tests hold to
//! the defaults, with every key commented out. The same sources and programs give the same bytes: times are
//! those of the commit, or `SOURCE_DATE_EPOCH`.
//!
//! Packages of another architecture take programs for it by `--binaries` and `--target`; those of this machine, which
//! print the manual, by `--documenters`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::apt;
use crate::progress::Step;
use crate::project::{Project, remove};
use crate::run::captured;

mod binary;
mod content;
mod deb;
mod rpm;
mod tarball;

use content::Content;

/// Who answers for the packages.
const MAINTAINER: &str = "Procfleet maintainers <maintainers@procfleet.example>";
/// With their Debian packages.
const TOOLS: [(&str, &str); 3] = [("readelf", "binutils"), ("gzip", "gzip"), ("rpmbuild", "rpm")];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory with `procfleet-agent` and `procfleet-server` [default: builds both for release]
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Directory with the same programs for this machine [default: those of --binaries]
    #[arg(long, value_name = "DIR")]
    documenters: Option<PathBuf>,
    /// What --binaries were built for
    #[arg(long, default_value = crate::dist::TARGET)]
    target: String,
    /// Where to [default: target/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to make; may be repeated [default: everything]
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// Compress little: for tests
    #[arg(long)]
    fast: bool,
}

/// Formats.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Deb,
    Rpm,
    Tarball,
}

/// What all packages of a run have in common.
pub(crate) struct Making<'a> {
    pub(crate) project: &'a Project,
    pub(crate) out: PathBuf,
    pub(crate) version: String,
    /// Rust's name of what the programs were built for.
    pub(crate) target: String,
    /// Seconds since 1970: of every file, and of the packages.
    pub(crate) epoch: u64,
    pub(crate) fast: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let binaries = match &arguments.binaries {
        Some(binaries) => binaries.clone(),
        None => crate::portable::make(project, &crate::dist::PRODUCTS)?,
    };
    let documenters = arguments.documenters.as_ref().unwrap_or(&binaries);
    let out = arguments.out.clone().unwrap_or_else(|| project.target().join("dist"));
    let making = Making::new(project, &out, &arguments.target, arguments.fast)?;
    let all = [Kind::Deb, Kind::Rpm, Kind::Tarball];
    let kinds = if arguments.only.is_empty() { &all[..] } else { &arguments.only };
    for made in make(&making, &binaries, documenters, kinds)? {
        println!("{}", made.display());
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Making<'a> {
    pub(crate) fn new(project: &'a Project, out: &Path, target: &str, fast: bool) -> Result<Self> {
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => captured(Command::new("git").current_dir(&project.root).args([
                "log",
                "-1",
                "--format=%ct",
            ]))
            .context("without git, SOURCE_DATE_EPOCH says of when the sources are")?,
        };
        let epoch = epoch.trim().parse().context("SOURCE_DATE_EPOCH is a number of seconds")?;
        std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
        let out = out.canonicalize()?;
        // The workspace's version is this program's.
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { project, out, version, target: target.to_owned(), epoch, fast })
    }

    /// A new empty directory for what is packed, removed by the caller.
    fn scratch(&self, name: &str) -> Result<PathBuf> {
        let dir = self.out.join(format!(".{name}.partial"));
        remove(&dir)?;
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }
}

/// Makes them; returns the files.
pub(crate) fn make(
    making: &Making<'_>,
    binaries: &Path,
    documenters: &Path,
    kinds: &[Kind],
) -> Result<Vec<PathBuf>> {
    apt::ensure(&TOOLS, "packages are made with it")?;
    let mut made = Vec::new();
    for (product, package) in crate::dist::PRODUCTS {
        let step = Step::start(format!("package {product}"));
        let content = Content::gather(making, (product, package), binaries, documenters)?;
        for kind in kinds {
            made.push(match kind {
                Kind::Deb => deb::make(making, &content)?,
                Kind::Rpm => rpm::make(making, &content)?,
                Kind::Tarball => tarball::make(making, &content)?,
            });
        }
        step.done("");
    }
    Ok(made)
}
