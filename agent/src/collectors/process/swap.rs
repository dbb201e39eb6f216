//! What is swapped out, where only `/proc` tells it; see [`super`].

use std::time::Duration;

use super::Processes;
use super::files::Files;
use crate::procfs::amount_of;

/// How old the swap of a process without a row may be.
const SWAP_EVERY: Duration = Duration::from_mins(5);
/// Processes without a row whose swap is read in one tick.
const SWAP_READS_PER_TICK: usize = 512;

impl Processes {
    /// Adds what is swapped out to the rows; see the module.
    pub(super) fn add_swap(&mut self, files: &mut Files, now: Duration) {
        let Some(in_use) = self.swap_in_use() else { return };
        let mut reads = SWAP_READS_PER_TICK;
        for (row, pid) in self.rows.iter_mut().zip(&self.pids) {
            let Some(live) = self.table.get_mut(pid) else { continue };
            if in_use == 0 || live.is_kernel_thread {
                row.memory_swap_bytes = Some(0);
                live.swap = None;
                continue;
            }
            let is_fresh = live.swap.is_some_and(|(_, at)| now.saturating_sub(at) < SWAP_EVERY);
            if !is_fresh && reads > 0 {
                reads -= 1;
                live.swap = files.read_swap(*pid).map(|bytes| (bytes, now));
            }
            row.memory_swap_bytes = live.swap.map(|(bytes, _)| bytes);
        }
    }

    /// Swap that the host uses, bytes.
    fn swap_in_use(&mut self) -> Option<u64> {
        let file = self.reader.read(&self.root.proc.join("meminfo")).ok()?;
        amount_of(file, "SwapTotal")?.checked_sub(amount_of(file, "SwapFree")?)
    }
}
