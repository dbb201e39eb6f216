//! Rows and the residual add up to the host, on the running kernel, in both tiers.
//!
//! - **CPU**: all rows against user and system time of `/proc/stat`, within 15 %: the kernel charges
//!   whole clock ticks there, and both are read at slightly different moments.
//! - **Memory**: all rows against the sum of `statm` over `/proc`, within 10 %: others come and go. (Not
//!   against the host's used memory: shared pages count in every process that maps them.)
//! - **Disk**: exact over made trees, in the collector's own tests; the kernel has no sum to compare with
//!   but the devices', which writes reach at another time.
//!
//! Sums of the network are tested where sockets are.

use std::process::{Child, Command, Stdio};

use shared_model::{InstanceId, ProcessSample, Report};

use crate::program::{output, program, valid_report};

/// On a machine whose other work begins and ends meanwhile, one look may be unlucky.
const LOOKS: usize = 5;

/// Killed with the test.
struct Burner(Child);

impl Drop for Burner {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn sum(report: &Report, of: fn(&ProcessSample) -> Option<u64>) -> u64 {
    report.processes.iter().filter_map(of).sum()
}

/// Resident bytes of all processes now.
fn resident() -> u64 {
    let page = rustix::param::page_size() as u64;
    let pages = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let statm = std::fs::read_to_string(entry.path().join("statm")).ok()?;
        statm.split(' ').nth(1)?.parse().ok()
    };
    std::fs::read_dir("/proc").unwrap().filter_map(pages).sum::<u64>() * page
}

fn is_near(one: u64, other: u64, percent: u64) -> bool {
    one.abs_diff(other) * 100 <= one.max(other) * percent
}

/// What is wrong with a look, if anything.
fn look(tier: &str) -> Result<(), String> {
    let mut command = program();
    command.args(["once", "--interval", "3s", "--json"]);
    command.env("PROCFLEET_AGENT_PROFILE__TOP", "1").env("PROCFLEET_AGENT_COLLECT__TIER", tier);
    let (code, json, errors) = output(&mut command);
    let resident = resident();
    assert_eq!(code, Some(0), "{errors}");
    let report = valid_report(&json);
    let residual = report.processes.iter().find(|row| row.instance_id == InstanceId::RESIDUAL);
    assert!(residual.unwrap().process_count > 0, "something is summed up");
    let host = report.host.cpu_user_us.unwrap() + report.host.cpu_system_us.unwrap();
    let rows = sum(&report, |row| Some(row.cpu_user_us? + row.cpu_system_us?));
    if !is_near(rows, host, 15) {
        return Err(format!("{tier}: CPU {rows} µs in rows, {host} of the host"));
    }
    let memory = sum(&report, |row| row.memory_usage_bytes);
    if !is_near(memory, resident, 10) {
        return Err(format!("{tier}: {memory} bytes resident in rows, {resident} by statm"));
    }
    Ok(())
}

#[test]
fn rows_and_residual_are_the_host() {
    let burner =
        Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
    let _burner = Burner(burner.unwrap());
    for tier in ["auto", "proc"] {
        let looks = (0..LOOKS).map(|_| look(tier));
        let wrong: Vec<_> = looks.map_while(Result::err).collect();
        assert!(wrong.len() < LOOKS, "{wrong:#?}");
    }
}
