//! Where the token comes from: a private file, the environment, or a person. Never the arguments:
//! every process of the host can read those.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use shared_model::JoinToken;
use shared_model::enrollment::MAX_JOIN_TOKEN_BYTES;

use super::EnrollError;

/// Environment variable with the enrolment token.
pub const TOKEN_VARIABLE: &str = "PROCFLEET_TOKEN";

/// Finds the token: in `file` (0600; remove it with [`remove_token`] after success), else in
/// `PROCFLEET_TOKEN`, else asks on the terminal without echo.
pub fn read_token(file: Option<&Path>) -> Result<JoinToken, EnrollError> {
    let paste = match (file, std::env::var(TOKEN_VARIABLE)) {
        (Some(file), _) => read_file(file)?,
        (None, Ok(paste)) if !paste.is_empty() => paste,
        (None, _) => ask()?,
    };
    Ok(paste.parse()?)
}

/// Removes the token file after success: the host has its own key now.
pub fn remove_token(file: &Path) -> Result<(), EnrollError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EnrollError::TokenFile {
            path: file.to_owned(),
            advice: format!("the host is enrolled, remove the file yourself ({error})"),
        }),
        _ => Ok(()),
    }
}

fn read_file(path: &Path) -> Result<String, EnrollError> {
    let refuse = |advice: String| EnrollError::TokenFile { path: path.to_owned(), advice };
    // O_NONBLOCK: a FIFO must not hang us before it is refused.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(
            |error| match error.raw_os_error() {
                Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                    refuse("it is a symbolic link: name the file itself".into())
                }
                _ => refuse(error.to_string()),
            },
        )?;
    let metadata = file.metadata().map_err(|error| refuse(error.to_string()))?;
    let owner = metadata.uid();
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".into()));
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(refuse(format!(
            "it belongs to user {owner}: chown it to the user that enrols"
        )));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!(
            "others may read it (mode {:04o}): chmod 0600, and if others may have read it, revoke the token",
            metadata.mode() & 0o7777
        )));
    }
    let mut paste = String::new();
    file.take(2 * MAX_JOIN_TOKEN_BYTES as u64)
        .read_to_string(&mut paste)
        .map_err(|error| refuse(error.to_string()))?;
    Ok(paste)
}

/// Asks on the terminal itself: standard input may be a script.
fn ask() -> Result<String, EnrollError> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Err(EnrollError::NoToken);
    };
    ask_on(&mut terminal).map_err(EnrollError::Terminal)
}

fn ask_on(terminal: &mut File) -> io::Result<String> {
    let before = tcgetattr(&*terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // Canonical mode holds 4095 bytes of a line; tokens with many endpoints are longer than that.
    silent.local_modes.remove(LocalModes::ICANON);
    terminal.write_all(b"Enrolment token (not shown): ")?;
    tcsetattr(&*terminal, OptionalActions::Flush, &silent)?;
    let mut paste = String::new();
    let read = BufReader::new(&*terminal)
        .take(2 * MAX_JOIN_TOKEN_BYTES as u64)
        .read_line(&mut paste)
        .map(|_| paste);
    tcsetattr(&*terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    read
}
