//! `/proc/self/mountinfo` and statvfs(2): one row per mounted file system with storage of its own.
//!
//! Bind mounts, btrfs subvolumes and further mounts of one superblock (same `major:minor`) are one
//! row: the one that shows the root of the file system, then the shortest path. A mount that another one
//! covers is not a row: no path leads to it.
//!
//! statvfs of a dead network mount may hang for ever. File systems on a local block device are asked
//! in place, all others by `probe`, each with a time of its own: one that does not answer is a row of nulls.

pub mod mountinfo;
pub mod probe;

use std::collections::HashMap;
use std::path::Path;

use rustix::fs::{StatVfs, statvfs};
use serde::{Deserialize, Serialize};
use shared_model::FilesystemSample;
use shared_model::limits::{MAX_COUNTER, MAX_DEVICES, MAX_TEXT_BYTES};

use self::mountinfo::Mount;
use self::probe::Prober;
use super::{Batch, CollectError, Collector, Setup, Tick};
use crate::metrics::{DEVICES_SHED, FILESYSTEM_LATE};
use crate::procfs::{Reader, Root};
use crate::profile::Pattern;

/// `[filesystem]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Types that are not reported. Replaces the default: those without storage of their own.
    pub exclude_types: Vec<String>,
    /// Mount points that match one of these are not reported.
    pub exclude_mount_points: Vec<Pattern>,
}

/// Types without storage of their own: views of the kernel, of memory or of other file systems.
const EXCLUDED_TYPES: &[&str] = &[
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nfsd",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "xenfs",
];

impl Default for Options {
    fn default() -> Self {
        let exclude_types = EXCLUDED_TYPES.iter().map(|&name| name.to_owned()).collect();
        Self { exclude_types, exclude_mount_points: Vec::new() }
    }
}

/// See [`super::Registration::build`].
pub fn build(setup: &Setup) -> Box<dyn Collector> {
    Box::new(Filesystem {
        root: setup.root.clone(),
        reader: Reader::default(),
        prober: Prober::new(|path| Ok(statvfs(path)?)),
    })
}

struct Filesystem {
    root: Root,
    reader: Reader,
    prober: Prober<StatVfs>,
}

impl Collector for Filesystem {
    fn collect(&mut self, tick: &Tick, batch: &mut Batch) -> Result<(), CollectError> {
        let path = self.root.proc.join("self/mountinfo");
        let mounts = mountinfo::parse(self.reader.read(&path)?).map_err(|error| error.of(&path))?;
        let mut mounts = select(mounts, &tick.settings.filesystem);
        DEVICES_SHED.add(mounts.len().saturating_sub(MAX_DEVICES) as u64);
        mounts.truncate(MAX_DEVICES);
        self.prober.forget_all_but(&mounts);
        for mount in mounts {
            let path = Path::new(&mount.mount_point);
            let stat = if mount.is_local() { statvfs(path).ok() } else { self.prober.ask(path) };
            // A mount that answers "nothing" has no storage; one that does not answer may have.
            if stat.as_ref().is_none_or(|stat| stat.f_blocks > 0) {
                batch.filesystems.push(sample(mount, stat.as_ref()));
            }
        }
        FILESYSTEM_LATE.add(self.prober.take_late());
        if batch.filesystems.is_empty() { Err(CollectError::NoData) } else { Ok(()) }
    }
}

/// The mounts that are rows, in the order of the file.
fn select(mounts: Vec<Mount>, options: &Options) -> Vec<Mount> {
    // The last mount on a path covers those before it.
    let top: HashMap<String, usize> =
        mounts.iter().enumerate().map(|(at, mount)| (mount.mount_point.clone(), at)).collect();
    let mut chosen: HashMap<String, (usize, Mount)> = HashMap::new();
    for (at, mount) in mounts.into_iter().enumerate() {
        let excluded = options.exclude_types.contains(&mount.filesystem_type)
            || options.exclude_mount_points.iter().any(|p| p.is_match(&mount.mount_point))
            || mount.mount_point.len() > MAX_TEXT_BYTES;
        if excluded || top.get(&mount.mount_point) != Some(&at) {
            continue;
        }
        let rank = |mount: &Mount| (mount.root != "/", mount.mount_point.len());
        match chosen.get(&mount.device_number) {
            Some((_, other)) if rank(other) <= rank(&mount) => {}
            _ => {
                chosen.insert(mount.device_number.clone(), (at, mount));
            }
        }
    }
    let mut rows: Vec<(usize, Mount)> = chosen.into_values().collect();
    rows.sort_unstable_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, mount)| mount).collect()
}

/// One row; `None`: statvfs failed or was late.
fn sample(mount: Mount, stat: Option<&StatVfs>) -> FilesystemSample {
    let mut row = FilesystemSample {
        mount_point: mount.mount_point,
        device: cut(mount.source),
        filesystem_type: mount.filesystem_type,
        ..FilesystemSample::default()
    };
    if let Some(stat) = stat {
        // A FUSE file system may claim any size; one that no column can hold is no size.
        let bytes = |blocks: u64| blocks.checked_mul(stat.f_frsize).filter(|&n| n <= MAX_COUNTER);
        row.total_bytes = bytes(stat.f_blocks);
        row.used_bytes = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
        row.available_bytes = bytes(stat.f_bavail);
        if (1..=MAX_COUNTER).contains(&stat.f_files) {
            row.inodes_total = Some(stat.f_files);
            row.inodes_used = Some(stat.f_files.saturating_sub(stat.f_ffree));
        }
    }
    row
}

/// At most [`MAX_TEXT_BYTES`] of a mount's source, which is whatever mount(8) was told.
fn cut(mut source: String) -> String {
    source.truncate(source.floor_char_boundary(MAX_TEXT_BYTES));
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(lines: &str) -> Vec<String> {
        let mounts = mountinfo::parse(lines.as_bytes()).unwrap();
        select(mounts, &Options::default()).into_iter().map(|mount| mount.mount_point).collect()
    }

    #[test]
    fn pseudo_file_systems_are_not_rows() {
        let lines = "22 28 0:21 / /sys rw - sysfs sysfs rw\n28 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
                     30 28 0:5 / /dev rw - devtmpfs udev rw\n31 28 0:44 / /data rw - nfs4 nas:/x rw\n";
        assert_eq!(selected(lines), ["/", "/data"]);
    }

    #[test]
    fn one_row_per_superblock() {
        let lines = "28 1 254:1 /var/x /srv rw - ext4 /dev/vda1 rw\n29 1 254:1 / /long/mount/point rw - ext4 /dev/vda1 rw\n\
                     30 1 254:1 / /short rw - ext4 /dev/vda1 rw\n31 1 254:1 /b /b rw - ext4 /dev/vda1 rw\n";
        assert_eq!(selected(lines), ["/short"]);
    }

    #[test]
    fn a_covered_mount_is_not_a_row() {
        let lines =
            "28 1 254:1 / /mnt rw - ext4 /dev/vda1 rw\n29 28 254:2 / /mnt rw - xfs /dev/vdb1 rw\n";
        let mounts = select(mountinfo::parse(lines.as_bytes()).unwrap(), &Options::default());
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].filesystem_type, "xfs");
    }

    #[test]
    fn filters_of_the_configuration() {
        let options = Options {
            exclude_types: vec!["xfs".to_owned()],
            exclude_mount_points: vec![Pattern::try_from("^/snap/".to_owned()).unwrap()],
        };
        let lines = "1 1 1:1 / / rw - xfs /dev/a rw\n2 1 1:2 / /snap/x rw - ext4 /dev/b rw\n3 1 0:9 / /run rw - tmpfs t rw\n";
        let mounts = select(mountinfo::parse(lines.as_bytes()).unwrap(), &options);
        assert_eq!(mounts.into_iter().map(|m| m.mount_point).collect::<Vec<_>>(), ["/run"]);
    }
}
