//! The kernel's file trees: where they are, how they are read, and parsers over their bytes.
//!
//! Everything goes through a [`Root`], so that tests point at captured trees. A [`Reader`] owns one
//! buffer that every read reuses: a tick allocates nothing per file. Parsers are pure functions of
//! bytes in the submodules, one file of the kernel each; parsers of host-wide files stand in the
//! collector that needs them. No input makes a parser panic: a file that does not hold what its
//! documentation says is a [`ParseError`], never a zero.

pub mod boot;
pub mod cgroup;
pub mod passwd;
pub mod pid;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Largest file read, bytes: `/proc/stat` and `mountinfo` of very large hosts stay well below.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// What a reader's buffer begins with: every single-record file of `/proc/<pid>` fits.
const FIRST_BUFFER_BYTES: usize = 8 << 10;

/// Where the kernel's trees, and the host's configuration, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// procfs.
    pub proc: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
}

impl Root {
    /// The running host's.
    pub fn system() -> Self {
        Self::at(Path::new("/"))
    }

    /// A tree with `proc`, `sys` and `etc` below `directory`: a fixture, or a host mounted into a container.
    pub fn at(directory: &Path) -> Self {
        Self {
            proc: directory.join("proc"),
            sys: directory.join("sys"),
            etc: directory.join("etc"),
        }
    }
}

/// A file that could not be had or understood.
#[derive(Debug, thiserror::Error)]
pub enum ProcfsError {
    /// Opening or reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// It does not hold what the kernel documents.
    #[error("cannot understand {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ParseError,
    },
}

impl ProcfsError {
    /// Whether the file, or the process it described, does not exist: not an error for what is optional.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Read { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(Errno::SRCH.raw_os_error())
            }
            Self::TooLarge { .. } | Self::Parse { .. } => false,
        }
    }

    /// Whether privileges are missing.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The field of a file that is missing or malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or malformed")]
pub struct ParseError(
    /// Name of the field as the kernel documents it.
    pub &'static str,
);

impl ParseError {
    /// The same, knowing which file.
    pub fn of(self, path: impl Into<PathBuf>) -> ProcfsError {
        ProcfsError::Parse { path: path.into(), source: self }
    }
}

/// Reads small kernel files into one buffer that grows to the largest of them and stays.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Length of the last record read.
    record: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; FIRST_BUFFER_BYTES], record: 0 }
    }
}

impl Reader {
    /// The whole of `path`, read to its end.
    pub fn read(&mut self, path: &Path) -> Result<&[u8], ProcfsError> {
        let failed = |errno: Errno| ProcfsError::Read { path: path.into(), source: errno.into() };
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        match self.fill(&file).map_err(failed)? {
            Some(length) => Ok(&self.buffer[..length]),
            None => Err(ProcfsError::TooLarge { path: path.into() }),
        }
    }

    /// The whole of a file that the kernel produces in one piece (everything of `/proc/<pid>` but
    /// lists), from its start, by one `pread`: for descriptors that stay open between ticks.
    pub fn read_record(&mut self, file: impl AsFd) -> Result<&[u8], Errno> {
        self.record = 0;
        self.record = rustix::io::pread(file, &mut self.buffer[..], 0)?;
        Ok(self.record())
    }

    /// The record read last.
    pub fn record(&self) -> &[u8] {
        &self.buffer[..self.record]
    }

    /// [`Self::read_record`] of `name` in an open directory.
    pub fn read_record_at(&mut self, directory: impl AsFd, name: &CStr) -> Result<&[u8], Errno> {
        let file = open_at(directory, name)?;
        self.read_record(&file)
    }

    /// Bytes read, or `None` where the file exceeds [`MAX_FILE_BYTES`].
    fn fill(&mut self, file: &OwnedFd) -> Result<Option<usize>, Errno> {
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= MAX_FILE_BYTES {
                    return Ok(None);
                }
                self.buffer.resize(length * 2, 0);
            }
            match rustix::io::read(file, &mut self.buffer[length..]) {
                Ok(0) => return Ok(Some(length)),
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Opens `name` in an open directory for reading.
pub fn open_at(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Lines without their ends; no empty line after the last one.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|&byte| byte == b'\n')
}

/// Fields between runs of ASCII white space.
pub fn fields(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

/// An unsigned decimal number and nothing else.
pub fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(digit.into()) }
    })
}

/// The value of `key` in a file of `Key:   value [unit]` lines (`meminfo`, `status`, `io`).
pub fn value_of<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    lines(bytes).find_map(|line| {
        line.strip_prefix(key.as_bytes())?.strip_prefix(b":").map(<[u8]>::trim_ascii)
    })
}

/// [`value_of`] a number, its unit `kB` applied: bytes for `kB`, the number itself without a unit.
pub fn amount_of(bytes: &[u8], key: &str) -> Option<u64> {
    let mut value = fields(value_of(bytes, key)?);
    let amount = parse_u64(value.next()?)?;
    match value.next() {
        None => Some(amount),
        Some(b"kB") => amount.checked_mul(1024),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(parse_u64(b"0"), Some(0));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1.0"] {
            assert_eq!(parse_u64(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn values_are_found_by_their_whole_key() {
        let status = b"Vm:\t1 kB\nVmSwap:\t    12 kB\nThreads:\t3\nName:\n";
        assert_eq!(amount_of(status, "VmSwap"), Some(12 << 10));
        assert_eq!(amount_of(status, "Threads"), Some(3));
        assert_eq!(amount_of(status, "VmRSS"), None);
        assert_eq!(value_of(status, "Name"), Some(&b""[..]));
        assert_eq!(amount_of(b"Key: 1 MB\n", "Key"), None);
    }

    #[test]
    fn a_reader_grows_to_the_file_and_is_reused() {
        let mut reader = Reader::default();
        let large = reader.read(Path::new("/proc/self/mountinfo")).unwrap().to_vec();
        assert_eq!(large, std::fs::read("/proc/self/mountinfo").unwrap());
        let stat = reader.read(Path::new("/proc/self/stat")).unwrap();
        assert!(stat.ends_with(b"\n"));
    }

    #[test]
    fn what_is_absent_and_what_is_denied_can_be_told() {
        let error = Reader::default().read(Path::new("/proc/none")).unwrap_err();
        assert!(error.is_absent() && !error.is_denied());
        assert_eq!(error.to_string(), "cannot read /proc/none");
    }
}
