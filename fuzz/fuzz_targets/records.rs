//! Records of the BPF programs: of the iterator over tasks, events of the ring buffer, and sockets.

#![no_main]

use agent::bpf::records::{Event, MAX_RECORD_BYTES, parse_event, parse_task, split};
use agent::sockets::traced::record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut records = 0;
    let used = split(bytes, &mut |record| {
        assert!((4..=MAX_RECORD_BYTES).contains(&record.len()));
        records += record.len();
        let _ = (parse_task(record), parse_event(record));
    });
    if let Ok(used) = used {
        assert_eq!(used, records);
    }
    let _ = parse_task(bytes);
    if let Some(Event::Exec(exec)) = parse_event(bytes) {
        assert!(exec.line.len() < bytes.len());
    }
    let record = record::parse(bytes);
    assert!(record.is_none() || bytes.len() >= record::RECORD_BYTES);
});
