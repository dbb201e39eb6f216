//! The simplest loops over the same files: what a tick could not go much below, or should not exceed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Opened, read and closed in every pass.
const OPENED: [&str; 4] = ["stat", "statm", "io", "cmdline"];
/// Opened once and read in every pass.
const KEPT: [&str; 3] = ["stat", "statm", "io"];
/// What fits every one of these files but long command lines.
const BUFFER_BYTES: usize = 8 << 10;

/// CPU time of one pass over all processes.
pub(super) struct Pass {
    pub(super) processes: usize,
    /// Listing `/proc`, and `stat`, `statm`, `io` and `cmdline` of each, opened, read and closed.
    pub(super) opened: Duration,
    /// `stat`, `statm` and `io` of each from descriptors that stay open, and no listing.
    pub(super) kept: Duration,
}

/// Descriptors that stay open between passes.
#[derive(Default)]
pub(super) struct Kept(HashMap<u32, Vec<File>>);

impl Kept {
    /// Reads every process there is in both ways. Nothing is parsed.
    pub(super) fn pass(&mut self) -> Result<Pass> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let started = own_cpu();
        let pids = list()?;
        for pid in &pids {
            for name in OPENED {
                // What is denied or gone costs what it costs.
                if let Ok(mut file) = File::open(format!("/proc/{pid}/{name}")) {
                    let _bytes = file.read(&mut buffer);
                }
            }
        }
        let opened = own_cpu().saturating_sub(started);
        self.open(&pids)?;
        let started = own_cpu();
        for file in self.0.values().flatten() {
            let _bytes = file.read_at(&mut buffer, 0);
        }
        let kept = own_cpu().saturating_sub(started);
        Ok(Pass { processes: pids.len(), opened, kept })
    }

    /// Opens what is new, closes what is gone.
    fn open(&mut self, pids: &[u32]) -> Result<()> {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
            .context("raise the limit of open files")?;
        self.0.retain(|pid, _| pids.contains(pid));
        for &pid in pids {
            self.0.entry(pid).or_insert_with(|| {
                let open = |name| File::open(format!("/proc/{pid}/{name}")).ok();
                KEPT.into_iter().filter_map(open).collect()
            });
        }
        Ok(())
    }
}

fn list() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// CPU time of this process, user and system.
fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
