//! `/proc/self/mountinfo`.

#![no_main]

use agent::collectors::filesystem::mountinfo::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse(bytes);
});
