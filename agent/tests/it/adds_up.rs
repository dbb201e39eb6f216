//! Rows and the residual add up to the host, on the running kernel, in both tiers.
//!
//! - **CPU**: all rows against user and system time of `/proc/stat`, within 15 %: the kernel charges
//!   whole clock ticks there, and both are read at slightly different moments.
//! - **Memory**: all rows against the sum of `statm` over `/proc`, within 10 %: others come and go. (Not
//!   against the host's used memory: shared pages count in every process that maps them.)
//! - **Network**: all rows against the connections that have a process, exact, and the host's sockets against the
//!   connections to other hosts, exact; both in one report. All rows and the connections without a process
//!   against what the interfaces transmitted, within 10 %: these count headers and acknowledgements too.
//! - **Disk**: all rows against the busiest device, within 20 %, where files are read and written past the cache.
//!   (Others' writes reach the device at another time than they are charged.)

use std::process::{Child, Command, Stdio};

use agent::config::CollectTier;
use shared_model::{ConnectionSample, ConnectionScope, InstanceId, ProcessSample, Report};

use crate::program::{output, program, valid_report};
use crate::sockets::host::{Host, TIERS};
use crate::sockets::peer::{Peer, transfer};

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

/// Repeats a look until nothing is wrong with it.
fn look_again(mut look: impl FnMut() -> Result<(), String>) {
    let wrong: Vec<_> = (0..LOOKS).map(|_| look()).map_while(Result::err).collect();
    assert!(wrong.len() < LOOKS, "{wrong:#?}");
}

/// Nearly everything is in the residual.
fn host_with_few_rows(tier: CollectTier) -> Host {
    Host::start_with(tier, |profile| {
        profile.top = 0;
        (profile.cpu_cores, profile.memory_bytes) = (1e3, u64::MAX);
        (profile.disk_bytes_per_second, profile.network_bytes_per_second) = (u64::MAX, u64::MAX);
    })
}

/// Received and transmitted by all connections that `is_it` says.
fn sum_of_connections(report: &Report, is_it: impl Fn(&ConnectionSample) -> bool) -> (u64, u64) {
    let rows = report.connections.iter().filter(|row| is_it(row));
    rows.fold((0, 0), |(receive, transmit), row| {
        (receive + row.receive_bytes.unwrap_or(0), transmit + row.transmit_bytes.unwrap_or(0))
    })
}

/// Bytes that two long-lived processes move, and one that is gone at the tick.
const MOVED: (usize, usize) = (128 << 20, 32 << 20);

fn look_at_network(host: &mut Host, one: &mut Peer, other: &mut Peer) -> Result<(), String> {
    let service = one.ask("listen 127.0.0.1:0");
    other.ask(&format!("connect {service}"));
    one.ask("accept");
    host.tick();
    transfer(other, one, MOVED.0);
    let mut burst = Peer::start();
    burst.tell(&format!("burst {service} {}", MOVED.1));
    one.ask("accept");
    one.ask("receive-all");
    one.ask("close");
    burst.wait();
    let report = host.tick();
    for peer in [one, other] {
        peer.ask("close");
    }

    let rows = (
        sum(&report, |row| row.network_receive_bytes),
        sum(&report, |row| row.network_transmit_bytes),
    );
    let of_processes = sum_of_connections(&report, |row| row.instance_id.is_some());
    assert_eq!(rows, of_processes, "rows and connections of processes");
    let external = sum_of_connections(&report, |row| row.scope == Some(ConnectionScope::External));
    let said = (report.host.socket_receive_bytes, report.host.socket_transmit_bytes);
    assert_eq!(said, (Some(external.0), Some(external.1)));
    let (_, of_nobody) = sum_of_connections(&report, |row| row.instance_id.is_none());
    let payload = rows.1 + of_nobody;
    let wire: u64 = report.network_interfaces.iter().filter_map(|row| row.transmit_bytes).sum();
    if !is_near(payload, wire, 10) {
        return Err(format!("{payload} bytes of payload, {wire} on the wire"));
    }
    Ok(())
}

#[test]
fn rows_and_residual_are_the_network() {
    for tier in TIERS {
        let (mut one, mut other) = (Peer::start(), Peer::start());
        let mut host = host_with_few_rows(tier);
        look_again(|| look_at_network(&mut host, &mut one, &mut other));
    }
}

/// Blocks of 1 MiB that each of two processes writes, and reads.
const BLOCKS: u64 = 128;

fn look_at_disk(host: &mut Host, worker: &mut Peer, path: &str) -> Result<(), String> {
    host.tick();
    worker.ask(&format!("write-disk {path} {BLOCKS}"));
    worker.ask(&format!("read-disk {path} {BLOCKS}"));
    // One that is gone at the tick.
    let mut gone = Peer::start();
    gone.ask(&format!("write-disk {path} {BLOCKS}"));
    gone.ask(&format!("read-disk {path} {BLOCKS}"));
    drop(gone);
    let report = host.tick();
    let rows = (sum(&report, |row| row.disk_read_bytes), sum(&report, |row| row.disk_write_bytes));
    assert!(rows.0 >= BLOCKS << 20 && rows.1 >= BLOCKS << 20, "{rows:?}");
    let busiest = report.block_devices.iter().max_by_key(|row| row.read_bytes).unwrap();
    let device = (busiest.read_bytes.unwrap(), busiest.write_bytes.unwrap());
    if device.0 < BLOCKS << 20 {
        // Not on a device of this host.
        return Ok(());
    }
    if !is_near(rows.0, device.0, 20) || !is_near(rows.1, device.1, 20) {
        return Err(format!("(read, written): {rows:?} in rows, {device:?} by the device"));
    }
    Ok(())
}

#[test]
fn rows_and_residual_are_the_disk() {
    let path = format!("{}/disk-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    for tier in TIERS {
        let mut worker = Peer::start();
        let mut host = host_with_few_rows(tier);
        look_again(|| look_at_disk(&mut host, &mut worker, &path));
    }
    std::fs::remove_file(path).unwrap();
}
