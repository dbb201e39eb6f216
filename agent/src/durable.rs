//! Files that are either the old or the new ones after a crash, and nobody else's to read unless they are to be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Replaces `path` by `content`, mode 0600: write beside it, sync, rename, sync the directory.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    write_mode(path, content, 0o600)
}

/// The same for what everybody may read: mode 0644, whatever the umask.
pub fn write_public(path: &Path, content: &[u8]) -> io::Result<()> {
    write_mode(path, content, 0o644)
}

fn write_mode(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = (|| {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // create_new: a file that someone else left here keeps its mode and its readers.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        rename(&temporary, path)
    })();
    if written.is_err() {
        // The error to tell is the first one.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Renames `from` to `to` in the same directory, durably.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory_of(to)
}

/// Removes `path` durably; that it is not there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Creates `dir` and what is missing above it, mode 0700.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
