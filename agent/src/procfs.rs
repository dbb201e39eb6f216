//! Where the kernel's files are: every path goes through an injectable root.

use std::path::{Path, PathBuf};

/// Roots of the trees that collectors read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
}

impl Root {
    /// This host.
    pub fn system() -> Self {
        Self::at(Path::new("/"))
    }

    /// The captured tree `dir/proc`, `dir/sys`, `dir/etc`.
    pub fn at(dir: &Path) -> Self {
        Self { proc: dir.join("proc"), sys: dir.join("sys"), etc: dir.join("etc") }
    }
}
