//! Where things are: the workspace, and `.procfleet/` inside it (git-ignored, 0700).

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The workspace that this xtask was built from.
pub(crate) struct Project {
    /// Directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
}

impl Project {
    /// The workspace around this crate's manifest.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask stands below the workspace")?.to_owned();
        if !root.join("Cargo.toml").is_file() {
            bail!("{} is not the workspace: run this as `cargo xtask`", root.display());
        }
        Ok(Self { root })
    }

    /// A path below `.procfleet/`.
    pub(crate) fn private(&self, name: &str) -> PathBuf {
        self.root.join(".procfleet").join(name)
    }

    /// A log file below `.procfleet/log/`.
    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.private("log").join(format!("{part}.log"))
    }

    /// The build directory, also when the caller moved it.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    /// Makes `.procfleet/` and its sub-directories, closed to others. The top is traversable:
    /// the database's own user must reach its data below it.
    pub(crate) fn prepare(&self) -> Result<()> {
        for (name, mode) in [("", 0o711), ("log", 0o700)] {
            let dir = self.private(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&dir)
                .with_context(|| format!("create {}", dir.display()))?;
        }
        Ok(())
    }

    /// One command at a time changes `.procfleet/`. Waits for nothing: says who holds it.
    pub(crate) fn lock(&self) -> Result<File> {
        self.prepare()?;
        let path = self.private("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                bail!(
                    "another `cargo xtask` command (pid {}) is changing .procfleet/: wait for it, or stop it",
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock .procfleet/lock"),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(file)
    }
}

/// Writes a file that only its owner may read; either the whole new content or the old is there.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Removes a file or a tree; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Fails with what to do when the file system of `path` has less than `gibibytes` left.
pub(crate) fn require_space(path: &Path, gibibytes: u64, purpose: &str) -> Result<()> {
    let free = free_bytes(path)?;
    if free < gibibytes << 30 {
        bail!(
            "{purpose} needs {gibibytes} GiB, but {} has {} MiB left: free some space, or move the checkout to a larger disk",
            path.display(),
            free >> 20
        );
    }
    Ok(())
}

/// What an unprivileged user may still write there.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let there = path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statvfs(there).with_context(|| format!("statvfs {}", there.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// 128 random bits, for passwords and names.
pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}
