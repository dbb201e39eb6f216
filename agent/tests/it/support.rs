//! Directories, children and waiting, shared by the tests.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A directory of this test's own, removed at its end.
pub(crate) struct TestDir(pub PathBuf);

impl TestDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A run that was killed leaves its directories, and pids come back.
        loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("procfleet-agent-test-{}-{next}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Copies the files below `from` over those below `to`.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A helper of `tests/fixtures`, compiled by what also compiles our dependencies.
pub(crate) fn compiled(name: &str, directory: &Path) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let program = directory.join(name);
    let source = fixtures.join(name).with_extension("c");
    let status = Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(source).status();
    assert!(status.unwrap().success(), "cc is needed");
    program
}

/// Polls until `condition` answers; fails the test, saying what it waited for, if it never does.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
