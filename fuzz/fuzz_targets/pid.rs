//! `/proc/<pid>/stat`, `statm`, `io` and `status`.

#![no_main]

use agent::procfs::pid::{
    parse_io, parse_stat, parse_statm, parse_status_swap, parse_status_user,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(stat) = parse_stat(bytes) {
        assert!(stat.comm.len() < bytes.len());
    }
    let _ = parse_statm(bytes);
    let _ = parse_io(bytes);
    let _ = parse_status_swap(bytes);
    let _ = parse_status_user(bytes);
});
