//! Paths of cgroups by their number in the unified hierarchy, which is the inode of their directory.
//!
//! For processes that are gone: those that live say theirs. A cgroup that is gone, too, when it is looked
//! for has no path.

use std::collections::HashMap;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

/// Directories looked at in one search.
const MAX_DIRECTORIES: usize = 16_384;
/// The root's number: nothing is said by being in it.
const ROOT: u64 = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// Where the hierarchy may be mounted: alone, or beside those of version 1.
    mounts: [PathBuf; 2],
    /// `None`: looked for and not found.
    paths: HashMap<u64, Option<String>>,
}

impl Cgroups {
    pub(super) fn new(sys: &Path) -> Self {
        let mounts = [sys.join("fs/cgroup"), sys.join("fs/cgroup/unified")];
        Self { mounts, paths: HashMap::new() }
    }

    /// Looks for those of `ids` that are not known.
    pub(super) fn find(&mut self, ids: impl Iterator<Item = u64>) {
        let unknown: Vec<u64> =
            ids.filter(|id| *id > ROOT && !self.paths.contains_key(id)).collect();
        if unknown.is_empty() {
            return;
        }
        let mount = self.mounts.iter().find(|mount| mount.join("cgroup.controllers").exists());
        // What is gone is forgotten with it.
        self.paths = unknown.iter().map(|id| (*id, None)).collect();
        let Some(mount) = mount.cloned() else { return };
        let mut open = vec![mount.clone()];
        let mut seen = 0;
        while let Some(directory) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.filter_map(Result::ok) {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                seen += 1;
                if seen > MAX_DIRECTORIES {
                    return;
                }
                let path = entry.path();
                if let Ok(below) = path.strip_prefix(&mount) {
                    let text = super::command_line::text(below.as_os_str().as_encoded_bytes());
                    self.paths.insert(entry.ino(), Some(format!("/{text}")));
                }
                open.push(path);
            }
        }
    }

    /// `None`: the root, gone, or on a host without the unified hierarchy.
    pub(super) fn path(&self, id: u64) -> Option<&str> {
        self.paths.get(&id)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_found_by_their_inode() {
        let sys = std::env::temp_dir().join(format!("procfleet-cgroups-{}", std::process::id()));
        let mount = sys.join("fs/cgroup/unified");
        std::fs::create_dir_all(mount.join("system.slice/a.service")).unwrap();
        std::fs::write(mount.join("cgroup.controllers"), "").unwrap();
        let mut cgroups = Cgroups::new(&sys);
        let inode = std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(mount.join("system.slice/a.service")).unwrap(),
        );
        cgroups.find([inode, u64::MAX].into_iter());
        assert_eq!(cgroups.path(inode), Some("/system.slice/a.service"));
        assert_eq!(cgroups.path(u64::MAX), None);
        std::fs::remove_dir_all(&sys).unwrap();
    }
}
