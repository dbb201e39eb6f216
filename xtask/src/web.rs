//! `cargo xtask web`: builds the web page into `web/dist`, from where the server's build embeds it.
//!
//! Packages come from the lock file alone, without their install scripts. What is fresh is not
//! built again: the page is as new as the newest of its sources.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::progress::Step;
use crate::project::Project;
use crate::run::captured;

/// What the page is made of, below the root.
const SOURCES: [&str; 8] = [
    "web/index.html",
    "web/package-lock.json",
    "web/package.json",
    "web/public",
    "web/src",
    "web/tsconfig.json",
    "web/vite.config.ts",
    "openapi.yaml",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build even if nothing changed.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    if arguments.force || !is_fresh(project)? {
        build(project)?;
    } else {
        println!("web/dist is fresh");
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the page if it is older than its sources; its packages are there afterwards, for its tests.
pub(crate) fn ensure(project: &Project) -> Result<()> {
    if is_fresh(project)? { provide(project) } else { build(project) }
}

/// Types and texts, without building: for `tidy`.
pub(crate) fn check(project: &Project) -> Result<()> {
    provide(project)?;
    let step = Step::start("check the web page's types and texts");
    captured(npm(project).args(["run", "--silent", "check"]))?;
    step.done("");
    Ok(())
}

fn build(project: &Project) -> Result<()> {
    provide(project)?;
    let step = Step::start("build the web page");
    captured(npm(project).args(["run", "--silent", "build"]))?;
    step.done("");
    Ok(())
}

/// node, npm and the packages of the lock file.
fn provide(project: &Project) -> Result<()> {
    apt::ensure(&[("node", "nodejs"), ("npm", "npm")], "it builds the web page")?;
    let installed = project.root.join("web/node_modules/.package-lock.json");
    let lock = project.root.join("web/package-lock.json");
    if modified(&installed)? >= modified(&lock)? {
        return Ok(());
    }
    let step = Step::start("fetch the web page's packages");
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    captured(npm(project).args(arguments)).context("npm could not install the lock file")?;
    step.done("");
    Ok(())
}

fn npm(project: &Project) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(project.root.join("web"));
    command
}

fn is_fresh(project: &Project) -> Result<bool> {
    let built = modified(&project.root.join("web/dist/index.html"))?;
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in SOURCES {
        newest = newest.max(newest_below(&project.root.join(source))?);
    }
    Ok(built > newest)
}

fn newest_below(path: &Path) -> Result<SystemTime> {
    let mut newest = modified(path)?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
            newest = newest.max(newest_below(&entry?.path())?);
        }
    }
    Ok(newest)
}

/// When a file was changed last; the epoch if there is none.
fn modified(path: &Path) -> Result<SystemTime> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.modified()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(SystemTime::UNIX_EPOCH),
        Err(error) => bail!("{}: {error}", path.display()),
    }
}
