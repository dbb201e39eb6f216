//! Fresh Debian systems to install things into: fetched once by `mmdebstrap` into `.procfleet/roots`, unpacked for each test.
//!
//! Programs run in them by chroot, with processes and mounts of their own, as root. Networks are the machine's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::child::{Directory, command};

/// What is in them beside Debian's essential packages and apt.
const INCLUDED: &str = "adduser,systemd";
/// What package managers and systemd write about their own work, whatever is installed; and memory.
const JOURNALS: [&str; 5] = ["/var/lib/dpkg/", "/var/log/", "/var/cache/", "/run/", "/tmp/"];

/// A system of the test's own, removed with it.
#[derive(Debug)]
pub struct Rootfs {
    directory: Directory,
}

impl Rootfs {
    /// Debian of this name, such as `bookworm`.
    pub fn debian(suite: &str) -> Result<Self> {
        let archive = fetch(suite)?;
        let directory = Directory::create(suite)?;
        let mut tar = command(Path::new("tar"));
        tar.arg("--extract").arg("--file").arg(&archive).arg("--directory");
        succeed(tar.arg(directory.path()))?;
        Ok(Self { directory })
    }

    /// Where a path of the system is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Brings a file into `/tmp`; returns its path in the system.
    pub fn bring(&self, file: &Path) -> Result<String> {
        let name = file.file_name().and_then(|name| name.to_str()).context("a file has a name")?;
        let inside = format!("/tmp/{name}");
        fs::copy(file, self.path(&inside)).with_context(|| file.display().to_string())?;
        Ok(inside)
    }

    /// Runs a shell's command in it, which must succeed; returns what it printed.
    pub fn run(&self, script: &str) -> Result<String> {
        let root = self.directory.path();
        let mut chroot = command(Path::new("unshare"));
        chroot.args(["--mount", "--pid", "--fork", "--kill-child"]);
        chroot.arg(format!("--mount-proc={}", self.path("/proc").display()));
        chroot.arg("chroot").arg(root).args(["/bin/sh", "-euc", script]).env_clear();
        chroot.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        chroot.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        succeed(&mut chroot).with_context(|| script.to_owned())
    }

    /// Everything in it, by path, with what tells it from another: kind, mode, owner, content. Journals and the backups
    /// of the users' files aside.
    pub fn tree(&self) -> Result<BTreeMap<String, String>> {
        let mut tree = BTreeMap::new();
        self.walk(self.directory.path(), &mut tree)?;
        Ok(tree)
    }

    fn walk(&self, dir: &Path, tree: &mut BTreeMap<String, String>) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let inside = format!("/{}", path.strip_prefix(self.directory.path())?.display());
            let is_backup = inside.starts_with("/etc/") && inside.ends_with('-');
            if is_backup || JOURNALS.iter().any(|journal| inside.starts_with(journal)) {
                continue;
            }
            let stat = fs::symlink_metadata(&path)?;
            let content = if stat.is_symlink() {
                fs::read_link(&path)?.display().to_string()
            } else if stat.is_file() {
                format!("{:x?}", &Sha256::digest(fs::read(&path)?)[..])
            } else {
                String::new()
            };
            let what = format!("{:o} {}:{} {content}", stat.mode(), stat.uid(), stat.gid());
            tree.insert(inside, what);
            if stat.is_dir() {
                self.walk(&path, tree)?;
            }
        }
        Ok(())
    }
}

/// The archive of a system; one test fetches it, others wait for that.
fn fetch(suite: &str) -> Result<PathBuf> {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.procfleet/roots");
    fs::create_dir_all(&roots)?;
    let archive = roots.join(format!("{suite}-{}.tar", INCLUDED.replace(',', "-")));
    let lock = File::create(roots.join(format!("{suite}.lock")))?;
    lock.lock().context("wait for the test that fetches the system")?;
    match fs::metadata(&archive) {
        Ok(_) => return Ok(archive),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| archive.display().to_string()),
    }
    let partial = roots.join(format!("{suite}.partial.tar"));
    let mut mmdebstrap = command(Path::new("mmdebstrap"));
    mmdebstrap.args(["--quiet", "--variant=minbase", &format!("--include={INCLUDED}"), suite]);
    succeed(mmdebstrap.arg(&partial)).context("fetch a Debian system: is there a mirror?")?;
    fs::rename(&partial, &archive)?;
    Ok(archive)
}

/// Runs to the end, which must be a success; returns what it printed.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
