//! A wrong clock for one process, by libfaketime (Debian: `faketime`): the machine's own is left alone.
//!
//! What the C library tells is faked: the wall clock. `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` are true, as they
//! are on a host whose wall clock was set.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::child::Directory;

/// How far the clock of the processes with [`Self::environment`] is off; true at first.
#[derive(Debug)]
pub struct FakeClock {
    directory: Directory,
}

impl FakeClock {
    /// A true clock.
    pub fn create() -> Result<Self> {
        let clock = Self { directory: Directory::create("clock")? };
        clock.set(0)?;
        Ok(clock)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// Sets it `seconds` ahead, also for processes that run.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // Renamed, so that no process reads half of it.
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).context("write the clock's offset")?;
        fs::rename(new, self.file()).context("set the clock's offset")
    }

    /// What a process needs to see it.
    pub fn environment(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("LD_PRELOAD", library()?.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ])
    }
}

fn library() -> Result<PathBuf> {
    let directories = fs::read_dir("/usr/lib").context("list /usr/lib")?;
    directories
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists())
        .context("libfaketime is not installed: install faketime, or run `cargo xtask test`")
}
