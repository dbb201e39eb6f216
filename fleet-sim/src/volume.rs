//! A small volume that a test may fill: a tmpfs of its own. Needs root, as mounting does.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::child::Directory;

/// Written at a time while filling.
const PIECE: usize = 64 << 10;

/// A mounted tmpfs.
#[derive(Debug)]
pub struct SmallVolume {
    directory: Directory,
}

impl SmallVolume {
    /// Mounts one of `bytes`, writable for everybody.
    pub fn mount(bytes: u64) -> Result<Self> {
        let directory = Directory::create("volume")?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0777"), "tmpfs"])
            .arg(directory.path()))?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file until nothing fits any more.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast()).context("create the ballast")?;
        let piece = vec![0x55; PIECE];
        loop {
            match ballast.write_all(&piece) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("write the ballast"),
            }
        }
    }

    /// Removes that file.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("remove the ballast")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        // What still has files open here is a child that dies now; the mount goes when it is gone.
        drop(run(Command::new("umount").arg("-l").arg(self.directory.path())));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors} (mounting needs root)");
    Ok(())
}
