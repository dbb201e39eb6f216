//! Where records go that no server takes: for people to look at, and bounded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared_model::ProblemCode;
use uuid::Uuid;

/// Most files kept.
const MAX_FILES: usize = 32;
/// Most bytes kept.
const MAX_BYTES: u64 = 16 << 20;

/// Keeps a frame as `<stream>-<sequence>-<code>.json.zst`; the oldest files make room.
pub(super) fn keep(
    dir: &Path,
    (stream_id, sequence): (Uuid, u64),
    code: ProblemCode,
    frame: &[u8],
) -> io::Result<PathBuf> {
    crate::durable::create_dir(dir)?;
    let name = format!("{stream_id}-{sequence:020}-{}.json.zst", code.as_str());
    let path = dir.join(name);
    crate::durable::write(&path, frame)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        files.push((metadata.modified()?, entry.path(), metadata.len()));
    }
    files.sort_unstable();
    let mut bytes: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
    let mut count = files.len();
    for (_, other, size) in files {
        if count <= MAX_FILES && bytes <= MAX_BYTES {
            break;
        }
        if other != path {
            fs::remove_file(other)?;
            count -= 1;
            bytes -= size;
        }
    }
    Ok(path)
}
