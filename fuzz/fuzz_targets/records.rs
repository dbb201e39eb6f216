//! Records of the BPF programs: of the iterator over tasks, and events of the ring buffer.

#![no_main]

use agent::bpf::records::{parse_event, parse_task};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_task(bytes);
    let _ = parse_event(bytes);
});
