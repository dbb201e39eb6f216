//! `/proc/<pid>/cmdline` and `comm`: cleaned, redacted, cut.

#![no_main]

use agent::collectors::process::command_line::{MAX_RAW_BYTES, executable_name, render};
use agent::collectors::process::redaction::Redactor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(MAX_RAW_BYTES)];
    if let Some(line) = render(bytes, &Redactor::default()) {
        assert!(!line.is_empty() && line.len() <= 4096);
        assert!(!line.chars().any(char::is_control));
    }
    let _ = executable_name(bytes, true);
    let _ = executable_name(bytes, false);
});
