//! Where secrets go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::table::{Output, print_json};

/// Writes a secret and a newline to a file of mode 0600, replaced atomically, or to stdout.
pub fn write_secret(secret: &str, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        None => writeln!(io::stdout(), "{secret}").context("cannot write to stdout"),
        Some(path) => replace(path, format!("{secret}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Gives what was made to whom it is for: its secret alone to `file` or as the only line of stdout; or all of
/// it as JSON, without the secret if that is in a file.
pub fn give_secret(
    mut made: Value,
    field: &str,
    file: Option<&Path>,
    output: Output,
) -> anyhow::Result<()> {
    let secret = made[field].as_str().context("the answer holds no secret")?.to_owned();
    if file.is_some() || output == Output::Table {
        write_secret(&secret, file)?;
    }
    if output == Output::Table {
        return Ok(());
    }
    if let Some(made) = made.as_object_mut().filter(|_| file.is_some()) {
        made.remove(field);
    }
    print_json(&made)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        drop(std::fs::remove_file(&temporary));
    }
    written?;
    File::open(directory)?.sync_all()
}
