//! Names of users, from the host's own `/etc/passwd`.
//!
//! No NSS: a directory service would be a network request in the sampling loop, and a static binary
//! has none. Users that only a directory knows have an id and no name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::procfs::Reader;
use crate::procfs::passwd::parse_passwd;

/// The names, read again when the file changed.
#[derive(Debug)]
pub(super) struct Owners {
    path: PathBuf,
    read_at: Option<(SystemTime, u64)>,
    names: HashMap<u32, String>,
}

impl Owners {
    pub(super) fn new(etc: &Path) -> Self {
        Self { path: etc.join("passwd"), read_at: None, names: HashMap::new() }
    }

    /// Looks whether the file changed. Without a readable file nobody has a name.
    pub(super) fn refresh(&mut self, reader: &mut Reader) {
        let version =
            std::fs::metadata(&self.path).and_then(|file| Ok((file.modified()?, file.len()))).ok();
        if version.is_none() || version != self.read_at {
            self.names = reader.read(&self.path).map(parse_passwd).unwrap_or_default();
            self.read_at = version;
        }
    }

    pub(super) fn name(&self, user_id: u32) -> Option<&str> {
        self.names.get(&user_id).map(String::as_str)
    }
}
