//! From the bytes of `/proc/<pid>/cmdline` to the text that is hashed: one definition of what a
//! *process* is.
//!
//! 1. Trailing NULs are dropped (processes that rewrite their title leave many); NUL separates arguments.
//! 2. Invalid UTF-8 becomes U+FFFD; so do characters that turn the direction of text, which could
//!    make a line read as another in a terminal or a page. Every other control character (C0, DEL,
//!    C1: newlines, tabs, escape sequences) becomes a space.
//! 3. Secrets are hidden ([`Redactor`]), and arguments joined by single spaces.
//! 4. The end is trimmed, and the line cut to [`MAX_COMMAND_LINE_BYTES`] on a character boundary.
//!
//! Nothing left, as with kernel threads, zombies and processes that erased their arguments: `[comm]`.

use std::borrow::Cow;

use shared_model::limits::{MAX_COMMAND_LINE_BYTES, MAX_TEXT_BYTES};

use super::redaction::Redactor;

/// Bytes of `cmdline` read: what is cut off here cannot hide the end of a secret from the
/// redaction of what is kept, because four times more than is kept is looked at.
pub const MAX_RAW_BYTES: usize = 4 * MAX_COMMAND_LINE_BYTES;

/// The command line that the bytes of `cmdline` (at most [`MAX_RAW_BYTES`]) stand for; `None` if
/// they hold no text.
pub fn render(raw: &[u8], redactor: &Redactor) -> Option<String> {
    let end = raw.iter().rposition(|&byte| byte != 0)? + 1;
    let mut raw = &raw[..end];
    if raw.len() == MAX_RAW_BYTES {
        raw = without_cut_url(raw);
    }
    let arguments: Vec<_> = raw.split(|&byte| byte == 0).map(|argument| clean(argument)).collect();
    let mut line = redactor.redact(arguments.iter().map(|argument| &**argument));
    cut(&mut line, MAX_COMMAND_LINE_BYTES);
    line.truncate(line.trim_end().len());
    (!line.is_empty()).then_some(line)
}

/// The last word of `raw` is cut. Of a URL the end tells that what comes before is a password.
pub(super) fn without_cut_url(raw: &[u8]) -> &[u8] {
    let last = raw.iter().rposition(|&byte| byte == 0 || byte.is_ascii_whitespace());
    let last = last.map_or(0, |separator| separator + 1);
    let url = raw[last..].windows(3).position(|scheme| scheme == b"://");
    &raw[..url.map_or(raw.len(), |scheme| last + scheme)]
}

/// The command line of what has none.
pub(super) fn bracketed(executable_name: &str) -> String {
    format!("[{executable_name}]")
}

/// Any other text of a process (`comm`, a path, a cgroup), cleaned the same way and cut to [`MAX_TEXT_BYTES`].
pub(super) fn text(raw: &[u8]) -> String {
    let mut text = clean(raw).into_owned();
    cut(&mut text, MAX_TEXT_BYTES);
    text
}

/// `comm` as it is reported. The kernel appends to a worker's name what it works on just now
/// (`kworker/0:1-events`, Linux 4.18+): cut off, or every job would make another process. A rescuer
/// (`kworker/R-writeback`, captured from 6.12) is named after its queue for good; only what a `+` adds is its work.
pub fn executable_name(comm: &[u8], is_kernel_thread: bool) -> String {
    let is_worker = is_kernel_thread && comm.starts_with(b"kworker/");
    let marks: &[u8] = if comm.starts_with(b"kworker/R-") { b"+" } else { b"+-" };
    let end = if is_worker { comm.iter().position(|byte| marks.contains(byte)) } else { None };
    text(&comm[..end.unwrap_or(comm.len())])
}

fn clean(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw);
    let cleaned = |letter: char| match letter {
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        '\u{2028}' | '\u{2029}' => ' ',
        letter if letter.is_control() => ' ',
        letter => letter,
    };
    if text.chars().all(|letter| cleaned(letter) == letter) {
        return text;
    }
    Cow::Owned(text.chars().map(cleaned).collect())
}

fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(raw: &[u8], expected: &str) {
        assert_eq!(render(raw, &Redactor::default()).as_deref(), Some(expected));
    }

    #[test]
    fn arguments_are_joined_and_cleaned() {
        check(b"/bin/a\0-b\0c d\0", "/bin/a -b c d");
        check(b"nginx: worker process\0\0\0\0", "nginx: worker process");
        check(b"a\0\0b\0", "a  b");
        check("grüße\0'q\"\0\0".as_bytes(), "grüße 'q\"");
        check(b"a\nb\tc\x1b[31m\x7f\0", "a b c [31m");
        check("a\u{85}b\u{202e}c".as_bytes(), "a b\u{fffd}c");
        check(b"a\xff\xfeb", "a\u{fffd}\u{fffd}b");
        check(b"mysql\0-psecret\0", "mysql -p***");
        for nothing in [&b""[..], b"\0", b"\0\0\0", b" \0\n\0"] {
            assert_eq!(render(nothing, &Redactor::default()), None);
        }
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let mut raw = "x\0".to_owned().into_bytes();
        raw.extend("é".repeat(5000).bytes());
        raw.truncate(MAX_RAW_BYTES);
        let line = render(&raw, &Redactor::default()).unwrap();
        assert_eq!(line.len(), MAX_COMMAND_LINE_BYTES);
        assert!(line.starts_with("x éé") && line.ends_with('é'));
    }

    #[test]
    fn a_secret_at_the_end_of_what_was_read_does_not_escape() {
        let filler = "a".repeat(MAX_RAW_BYTES - 60);
        let mut raw = format!("x\0--password={filler}\0").into_bytes();
        raw.extend(b"postgres://user:a-secret-that-is-cut-before-the-at-sign@h/");
        raw.truncate(MAX_RAW_BYTES);
        let line = render(&raw, &Redactor::default()).unwrap();
        assert_eq!(line, "x --password=*** postgres");
    }

    #[test]
    fn workers_lose_what_they_work_on() {
        assert_eq!(executable_name(b"kworker/0:1-events", true), "kworker/0:1");
        assert_eq!(executable_name(b"kworker/u4:2+flush-254:0", true), "kworker/u4:2");
        assert_eq!(executable_name(b"kworker/0:1H-kblockd", true), "kworker/0:1H");
        assert_eq!(
            executable_name(b"kworker/R-ext4-rsv-conversion", true),
            "kworker/R-ext4-rsv-conversion"
        );
        assert_eq!(
            executable_name(b"kworker/R-writeback+flush-254:0", true),
            "kworker/R-writeback"
        );
        assert_eq!(executable_name(b"kworker/0:1-events", false), "kworker/0:1-events");
        assert_eq!(executable_name(b"irq/9-acpi", true), "irq/9-acpi");
        assert_eq!(executable_name(b"a\nb", false), "a b");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_clean_line(raw in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(line) = render(&raw, &Redactor::default()) {
                prop_assert!(line.len() <= MAX_COMMAND_LINE_BYTES);
                prop_assert!(!line.is_empty() && !line.chars().any(char::is_control));
            }
        }
    }
}
