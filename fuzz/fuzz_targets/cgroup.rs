//! `/proc/<pid>/cgroup`, and what its paths name.

#![no_main]

use agent::procfs::cgroup::{parse_cgroup, systemd_unit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(cgroup) = parse_cgroup(bytes) else { return };
    if let Some(id) = cgroup.container_id {
        assert_eq!(id.len(), 64);
    }
    if let Some(uid) = &cgroup.pod_uid {
        assert!(uid.len() == 36 || uid.len() == 32);
    }
    if let Some(unit) = str::from_utf8(cgroup.path).ok().and_then(systemd_unit) {
        assert!(unit.ends_with(".service") || unit.ends_with(".scope"));
    }
});
