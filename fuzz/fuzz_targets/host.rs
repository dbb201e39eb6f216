//! Files about the host: `/proc/stat` (and its `btime`), `loadavg`, `uptime`, `meminfo`, `pressure/*`, `diskstats`,
//! `net/dev`, `/sys/class/net/*/speed` and `/etc/passwd`.

#![no_main]

use agent::collectors::{block_device, cpu, load, memory, network_interface, pressure};
use agent::procfs::boot::{parse_btime, parse_uptime};
use agent::procfs::passwd::parse_passwd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = cpu::parse(bytes);
    let _ = load::parse_loadavg(bytes);
    let _ = (parse_uptime(bytes), parse_btime(bytes));
    let _ = memory::parse(bytes);
    let _ = pressure::parse(bytes);
    let _ = block_device::parse(bytes);
    let _ = network_interface::parse(bytes);
    let _ = network_interface::parse_speed(bytes);
    let _ = parse_passwd(bytes);
});
