//! Records of the BPF programs: of the iterator over tasks, events of the ring buffer, and sockets.

#![no_main]

use agent::bpf::records::{Event, parse_event, parse_task};
use agent::sockets::traced::record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_task(bytes);
    if let Some(Event::Exec(exec)) = parse_event(bytes) {
        assert!(exec.line.len() < bytes.len());
    }
    let record = record::parse(bytes);
    assert!(record.is_none() || bytes.len() >= record::RECORD_BYTES);
});
