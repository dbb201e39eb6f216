//! What the kernel says of threads that ended: taskstats, and the process connector.

#![no_main]

use agent::collectors::process::exits::{connector, taskstats};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = taskstats::parse(bytes);
    let _ = connector::parse(bytes);
});
