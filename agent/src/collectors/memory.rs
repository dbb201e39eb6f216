//! `/proc/meminfo`: memory and swap.
//!
//! `MemAvailable` exists since Linux 3.14 (and in the 3.10 of RHEL 7); before, what the kernel
//! would reclaim without pain is estimated as free + buffers + cached + reclaimable slab − shmem.

use super::{Batch, CollectError, Collector, Setup, Tick, text};
use crate::procfs::{ParseError, Reader, Root};

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(Memory { root: setup.root.clone(), reader: Reader::default() })
}

struct Memory {
    root: Root,
    reader: Reader,
}

/// What is used of `/proc/meminfo`, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meminfo {
    /// `MemTotal`.
    pub total: u64,
    /// `MemFree`.
    pub free: u64,
    /// `MemAvailable`, or the estimate.
    pub available: u64,
    /// `SwapTotal`; absent in a kernel without swap.
    pub swap_total: Option<u64>,
    /// `SwapFree`.
    pub swap_free: Option<u64>,
}

/// Reads `/proc/meminfo`. The error says what is missing.
pub fn parse(bytes: &[u8]) -> Result<Meminfo, ParseError> {
    let text = text(bytes)?;
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let kib = line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?;
            kib.trim_end().parse::<u64>().ok()?.checked_mul(1024)
        })
    };
    let free = field("MemFree").ok_or(ParseError("MemFree"))?;
    let estimate = || {
        let plus = ["Buffers", "Cached", "SReclaimable"].into_iter().filter_map(field);
        plus.fold(free, u64::saturating_add).saturating_sub(field("Shmem").unwrap_or(0))
    };
    Ok(Meminfo {
        total: field("MemTotal").ok_or(ParseError("MemTotal"))?,
        free,
        available: field("MemAvailable").unwrap_or_else(estimate),
        swap_total: field("SwapTotal"),
        swap_free: field("SwapFree"),
    })
}

impl Collector for Memory {
    fn collect(&mut self, _tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("meminfo");
        let now = parse(self.reader.read(&path)?).map_err(|error| error.of(&path))?;
        let host = &mut batch.host;
        host.memory_total_bytes = Some(now.total);
        host.memory_free_bytes = Some(now.free);
        host.memory_available_bytes = Some(now.available);
        host.memory_used_bytes = Some(now.total.saturating_sub(now.available));
        host.swap_total_bytes = now.swap_total;
        host.swap_used_bytes =
            now.swap_total.zip(now.swap_free).map(|(total, free)| total.saturating_sub(free));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_is_estimated_on_old_kernels() {
        let old = b"MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 300 kB\nSwapCached: 7 kB\nShmem: 50 kB\nSReclaimable: 30 kB\n";
        let meminfo = parse(old).unwrap();
        assert_eq!(meminfo.available, 400 * 1024);
        assert_eq!((meminfo.swap_total, meminfo.swap_free), (None, None));
    }

    #[test]
    fn available_is_the_kernels_where_it_says() {
        let new = b"MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 640 kB\nBuffers: 20 kB\nSwapTotal: 8 kB\nSwapFree: 3 kB\n";
        let meminfo = parse(new).unwrap();
        assert_eq!(meminfo.available, 640 * 1024);
        assert_eq!((meminfo.swap_total, meminfo.swap_free), (Some(8192), Some(3072)));
    }

    #[test]
    fn what_is_not_a_meminfo_file_says_so() {
        for bytes in [&b""[..], b"MemTotal: 1 kB", b"MemTotal: x kB\nMemFree: 1 kB", b"\xff"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
