//! Many processes that each wake once a second.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

/// Length of the first word of a child's command line.
const NAME_BYTES: usize = 300;

/// Killed and reaped by their ids at the end; they end by themselves when this process is gone.
pub(super) struct Children(Vec<Child>);

impl Children {
    pub(super) fn start(count: usize) -> Result<Self> {
        let mut children = Self(Vec::with_capacity(count));
        let parent = std::process::id();
        for index in 0..count {
            let child = Command::new("tail")
                .arg0(format!("waker-{index:0>width$}", width = NAME_BYTES - "waker-".len()))
                .args(["--follow", "--sleep-interval=1", &format!("--pid={parent}"), "/dev/null"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("start child {index} of {count}"))?;
            children.0.push(child);
        }
        Ok(children)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // What cannot be killed or reaped has ended.
        for child in &mut self.0 {
            child.kill().unwrap_or_default();
        }
        for child in &mut self.0 {
            drop(child.wait());
        }
    }
}
