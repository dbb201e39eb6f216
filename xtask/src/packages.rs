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

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;

use crate::apt;
use crate::dist::{PRODUCTS, TARGET};
use crate::portable;
use crate::progress::Step;
use crate::project::{Project, remove};
use crate::run::captured;

mod binary;
mod content;
mod deb;
mod rpm;
mod tarball;

pub(crate) use content::Content;

/// Who answers for the packages.
const MAINTAINER: &str = "Procfleet maintainers <maintainers@procfleet.example>";
/// With their Debian packages.
const TOOLS: [(&str, &str); 3] = [("readelf", "binutils"), ("gzip", "gzip"), ("rpmbuild", "rpm")];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// What to make; may be repeated [default: everything]
    #[arg(long, value_enum)]
    only: Vec<Kind>,
}

/// Which programs are packed, and where to.
#[derive(clap::Args)]
pub(crate) struct Programs {
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

impl Programs {
    pub(crate) fn out(&self, project: &Project) -> PathBuf {
        self.out.clone().unwrap_or_else(|| project.target().join("dist"))
    }
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
    pub(crate) binaries: PathBuf,
    documenters: PathBuf,
    /// Rust's name of what the programs were built for.
    pub(crate) target: String,
    /// Seconds since 1970: of every file, and of the packages.
    pub(crate) epoch: u64,
    fast: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let making = Making::new(project, &arguments.programs)?;
    let kinds =
        if arguments.only.is_empty() { Kind::value_variants() } else { &arguments.only[..] };
    for product in PRODUCTS {
        for made in make(&making, &Content::gather(&making, product)?, kinds)? {
            println!("{}", made.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Making<'a> {
    /// Builds the programs, unless they are named.
    pub(crate) fn new(project: &'a Project, programs: &Programs) -> Result<Self> {
        let target = programs.target.clone();
        ensure!(
            target == TARGET || programs.binaries.is_some(),
            "programs for {target} are not built here: name them by --binaries (docs/releasing.md says how they are built)"
        );
        apt::ensure(&TOOLS, "packages are made with it")?;
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
        let out = programs.out(project);
        std::fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
        let out = out.canonicalize()?;
        let binaries = match &programs.binaries {
            Some(binaries) => binaries.clone(),
            None => portable::make(project)?,
        };
        let documenters = programs.documenters.clone().unwrap_or_else(|| binaries.clone());
        // The workspace's version is this program's.
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let fast = programs.fast;
        Ok(Self { project, out, version, binaries, documenters, target, epoch, fast })
    }

    /// A new empty directory for what is packed, removed by the caller.
    fn scratch(&self, name: &str) -> Result<PathBuf> {
        let dir = self.out.join(format!(".{name}.partial"));
        remove(&dir)?;
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }
}

/// Makes these packages of a product; returns the files.
pub(crate) fn make(making: &Making<'_>, content: &Content, kinds: &[Kind]) -> Result<Vec<PathBuf>> {
    let step = Step::start(format!("package {}", content.product));
    let mut made = Vec::new();
    for kind in kinds {
        made.push(match kind {
            Kind::Deb => deb::make(making, content)?,
            Kind::Rpm => rpm::make(making, content)?,
            Kind::Tarball => tarball::make(making, content)?,
        });
    }
    step.done("");
    Ok(made)
}
