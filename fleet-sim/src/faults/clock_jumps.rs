//! The clock of an agent's host jumps an hour ahead and back, and an hour back and ahead, while it runs; as the agent
//! sees it, by libfaketime (Debian: `faketime`), so that the machine's own clock is left alone.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::real::{Real, options};
use super::{Done, Scale, Verdict};
use crate::agent::AgentOptions;
use crate::child::Directory;

/// Reports taken by each clock.
const REPORTS: u64 = 4;

pub(super) fn run(scale: Scale) -> Done<'static, Verdict> {
    Box::pin(async move {
        let directory = Directory::create("clock")?;
        let clock = directory.path().join("offset");
        fs::write(&clock, "+0\n")?;
        let environment = vec![
            ("LD_PRELOAD", library()?.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let jumping = AgentOptions { environment, ..options("jumping".into()) };
        let mut real = Real::start("clock-jumps", vec![jumping]).await?;
        for _ in 0..scale.repeats {
            for (offset, what) in [
                ("+3600", "a jump an hour ahead"),
                ("+0", "a jump back to the true time"),
                ("-3600", "a jump an hour back"),
                ("+0", "a jump ahead to the true time"),
            ] {
                fs::write(&clock, format!("{offset}\n"))?;
                real.progress(what, REPORTS).await?;
            }
        }
        let repeats = u64::from(scale.repeats);
        let verdict = real.finish().await?;
        let rejected = verdict.checked.rejected;
        ensure!(rejected + 2 >= REPORTS * repeats, "no clock was ahead: {verdict:?}");
        ensure!(verdict.totals["gaps"] == 0, "reports were lost: {verdict:?}");
        Ok(verdict)
    })
}

fn library() -> Result<PathBuf> {
    let directories = fs::read_dir("/usr/lib").context("list /usr/lib")?;
    directories
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists())
        .context("libfaketime is not installed: install faketime, or run `cargo xtask test`")
}
