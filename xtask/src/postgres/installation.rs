//! Where the programs of a database engine come from, and how they are run.
//!
//! TimescaleDB: Debian 13 and later package it; elsewhere a small Debian 13 root file system under
//! `.procfleet/rootfs` holds it, entered by chroot. Plain PostgreSQL: the distribution's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::apt;
use crate::progress::Step;
use crate::project::{Project, remove, require_space};
use crate::run::captured;

/// The release whose packages have TimescaleDB, and their names.
const TIMESCALEDB_DEBIAN: (u32, &str) = (13, "trixie");
const TIMESCALEDB_PACKAGES: [&str; 2] = ["postgresql-17", "postgresql-17-timescaledb"];
/// Below this the product does not run.
const OLDEST_POSTGRESQL: u32 = 15;

/// Which of the two engines that we support.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Engine {
    TimescaleDb,
    PostgreSql,
}

impl Engine {
    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::TimescaleDb => "TimescaleDB",
            Self::PostgreSql => "PostgreSQL",
        }
    }
}

/// PostgreSQL's programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Installation {
    /// The root file system that they are in; `None` for this machine's own.
    root: Option<PathBuf>,
    /// Their directory, as seen inside the root.
    bin: PathBuf,
    /// Has the extension's library.
    timescaledb: bool,
}

impl Installation {
    /// Finds or installs the engine.
    pub(crate) fn provide(project: &Project, engine: Engine) -> Result<Self> {
        if let Some(found) = Self::find(project, engine) {
            return Ok(found);
        }
        match engine {
            Engine::PostgreSql => {
                let package = match apt::debian_version() {
                    Some(12) => "postgresql-15",
                    _ => "postgresql",
                };
                apt::install(&[package], "the plain PostgreSQL that tests run on")?;
            }
            Engine::TimescaleDb
                if apt::debian_version().is_some_and(|version| version >= TIMESCALEDB_DEBIAN.0) =>
            {
                apt::install(&TIMESCALEDB_PACKAGES, "the database")?;
            }
            Engine::TimescaleDb => bootstrap(project)?,
        }
        Self::find(project, engine).with_context(|| {
            format!("{} was installed but its programs are not where Debian puts them (/usr/lib/postgresql/*/bin)", engine.title())
        })
    }

    /// What is already here; the newest for TimescaleDB, the oldest supported for plain.
    fn find(project: &Project, engine: Engine) -> Option<Self> {
        let own = Path::new("/");
        let rootfs = project.private("rootfs");
        match engine {
            Engine::PostgreSql => {
                majors(own).into_iter().min().map(|major| Self::at(None, major, false))
            }
            Engine::TimescaleDb => majors(own)
                .into_iter()
                .rev()
                .find(|major| has_timescaledb(own, *major))
                .map(|major| Self::at(None, major, true))
                .or_else(|| {
                    let major = majors(&rootfs).pop().filter(|_| apt::is_root())?;
                    Some(Self::at(Some(rootfs), major, true))
                }),
        }
    }

    fn at(root: Option<PathBuf>, major: u32, timescaledb: bool) -> Self {
        Self { root, bin: format!("/usr/lib/postgresql/{major}/bin").into(), timescaledb }
    }

    /// Whether clusters can load the extension.
    pub(crate) fn has_timescaledb(&self) -> bool {
        self.timescaledb
    }

    /// One of the programs, ready to run as a user that may run it. Its paths are those `inside`.
    pub(crate) fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match &self.root {
            None if !apt::is_root() => Command::new(program),
            None => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
                command.arg(program);
                command
            }
            Some(root) if self.sees_shared_memory() => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation=private", "--", "sh", "-c"]);
                command.arg("mount --bind /dev/shm \"$0/dev/shm\" && exec chroot --userspec=postgres:postgres \"$0\" \"$@\"");
                command.arg(root).arg(program);
                command
            }
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg("--userspec=postgres:postgres").arg(root).arg(program);
                command
            }
        };
        command.current_dir("/").env("LC_ALL", "C.UTF-8");
        command
    }

    /// The machine's `/dev/shm` is at the same path for the programs. In a chroot that takes a
    /// private mount namespace, which containers may refuse.
    pub(crate) fn sees_shared_memory(&self) -> bool {
        self.root.is_none()
            || *PRIVATE_MOUNTS.get_or_init(|| {
                let script = "mount --bind /dev/shm /dev/shm";
                captured(Command::new("unshare").args([
                    "--mount",
                    "--propagation=private",
                    "--",
                    "sh",
                    "-c",
                    script,
                ]))
                .is_ok()
            })
    }

    /// A directory for data that survives, reachable for the user that the programs run as.
    pub(crate) fn data_home(&self, project: &Project) -> PathBuf {
        let private = project.private("clusters");
        match &self.root {
            Some(root) => root.join("srv/procfleet"),
            None if !apt::is_root() || others_may_traverse(&project.root) => private,
            // A checkout below a closed home directory: the user postgres cannot get there.
            None => {
                let name = project.root.to_string_lossy().replace('/', "-");
                Path::new("/var/lib/postgresql").join(format!("procfleet{name}"))
            }
        }
    }

    /// The path under which the programs see `path`.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => match path.strip_prefix(root) {
                Ok(below) => Path::new("/").join(below),
                Err(_) => path.to_owned(),
            },
            None => path.to_owned(),
        }
    }

    /// Makes a directory that only the programs' user may enter.
    pub(crate) fn create_dir(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let create = || -> Result<()> {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            self.give(path)
        };
        create().with_context(|| format!("create {}", path.display()))
    }

    /// Hands a file to the user that the programs run as.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        if apt::is_root() {
            let users = self.root.as_deref().unwrap_or(Path::new("/")).join("etc/passwd");
            let (user, group) = postgres_ids(&fs::read_to_string(&users)?)
                .with_context(|| format!("{} has no user postgres", users.display()))?;
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }
}

static PRIVATE_MOUNTS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();

/// Builds the root file system that has TimescaleDB; a half-built one is never used.
fn bootstrap(project: &Project) -> Result<()> {
    if !apt::is_root() {
        bail!(
            "TimescaleDB is not packaged for this system, and getting it (a small Debian 13 root file system, entered by chroot) needs root: run this command as root, or set PROCFLEET_DATABASE_URL to a PostgreSQL 15+ of yours, best with TimescaleDB"
        );
    }
    let rootfs = project.private("rootfs");
    require_space(&rootfs, 2, "The database's programs (.procfleet/rootfs)")?;
    apt::ensure(&[("mmdebstrap", "mmdebstrap")], "it fetches the database's root file system")?;
    let partial = project.private("rootfs.partial");
    remove(&partial)?;
    let step =
        Step::start(format!("fetch TimescaleDB (Debian {}, about 100 MB)", TIMESCALEDB_DEBIAN.1));
    captured(
        Command::new("mmdebstrap")
            .arg("--variant=apt")
            .arg(format!("--include={}", TIMESCALEDB_PACKAGES.join(",")))
            .arg(TIMESCALEDB_DEBIAN.1)
            .arg(&partial),
    )
    .context("the database's programs could not be fetched; is the network there? Otherwise set PROCFLEET_DATABASE_URL")?;
    fs::rename(&partial, &rootfs)?;
    step.done("");
    Ok(())
}

/// The packaged major versions that we support, ascending.
fn majors(root: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(root.join("usr/lib/postgresql")) else { return Vec::new() };
    let mut majors: Vec<u32> = entries
        .flatten()
        .filter(|entry| entry.path().join("bin/postgres").exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|major| *major >= OLDEST_POSTGRESQL)
        .collect();
    majors.sort_unstable();
    majors
}

fn has_timescaledb(root: &Path, major: u32) -> bool {
    root.join(format!("usr/share/postgresql/{major}/extension/timescaledb.control")).exists()
}

fn others_may_traverse(dir: &Path) -> bool {
    dir.ancestors().all(|dir| fs::metadata(dir).is_ok_and(|stat| stat.mode() & 0o001 != 0))
}

fn postgres_ids(passwd: &str) -> Option<(u32, u32)> {
    let mut fields = passwd.lines().find(|line| line.starts_with("postgres:"))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_translated_into_the_root() {
        let installation = Installation::at(Some("/x/rootfs".into()), 17, true);
        assert_eq!(installation.inside(Path::new("/x/rootfs/srv/a")), Path::new("/srv/a"));
        assert_eq!(installation.inside(Path::new("/dev/shm/a")), Path::new("/dev/shm/a"));
    }

    #[test]
    fn the_user_is_read() {
        let passwd = "root:x:0:0::/:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/:/bin/bash\n";
        assert_eq!(postgres_ids(passwd), Some((101, 104)));
        assert_eq!(postgres_ids("root:x:0:0::/:/bin/sh\n"), None);
    }
}
