//! A report as people read it. Unknown is `-`.

use std::collections::HashMap;

use shared_model::{
    CollectorOutcome, InstanceDefinition, InstanceId, ProcessDefinition, ProcessSample, Report,
};

/// Most processes printed; the rest is said to exist.
const MAX_ROWS: usize = 25;

/// Text, every line at most `width` characters.
pub fn render(report: &Report, width: usize) -> String {
    let mut out = String::new();
    host(&mut out, report);
    filesystems(&mut out, report);
    devices(&mut out, report);
    interfaces(&mut out, report);
    processes(&mut out, report);
    troubles(&mut out, report);
    let cut = |line: &str| line.chars().take(width).collect::<String>();
    out.lines().map(|line| cut(line.trim_end()) + "\n").collect()
}

/// One line.
macro_rules! put {
    ($out:expr, $($argument:tt)*) => {
        $out.push_str(&(format!($($argument)*) + "\n"))
    };
}

fn host(out: &mut String, report: &Report) {
    let host = &report.host;
    if let Some(facts) = &report.facts {
        let system = facts.os_description.as_deref().unwrap_or("unknown system");
        let (kernel, arch) = (&facts.kernel_release, &facts.host_arch);
        put!(
            out,
            "HOST     {}  {system}, kernel {kernel}, {arch}, up {}",
            facts.host_name,
            uptime(host.uptime_s)
        );
    }
    let cores = host.cpu_count.map_or("-".to_owned(), |n| n.to_string());
    let capacity = f64::from(host.cpu_count.unwrap_or(1)) * f64::from(report.interval_ms) * 1000.0;
    let share = |us: Option<u64>| {
        us.map_or("-".to_owned(), |us| format!("{:.1} %", 100.0 * float(us) / capacity))
    };
    put!(
        out,
        "CPU      {cores} cores: user {}, system {}, iowait {}, steal {}, idle {}   load {} {} {}",
        share(host.cpu_user_us),
        share(host.cpu_system_us),
        share(host.cpu_iowait_us),
        share(host.cpu_steal_us),
        share(host.cpu_idle_us),
        decimal(host.load_1m),
        decimal(host.load_5m),
        decimal(host.load_15m)
    );
    put!(
        out,
        "MEMORY   {} total, {} used, {} available   swap {} used of {}",
        bytes(host.memory_total_bytes),
        bytes(host.memory_used_bytes),
        bytes(host.memory_available_bytes),
        bytes(host.swap_used_bytes),
        bytes(host.swap_total_bytes)
    );
    let stall = |us: Option<u64>| {
        us.map_or("-".to_owned(), |us| {
            format!("{:.1} %", float(us) / (f64::from(report.interval_ms) * 10.0))
        })
    };
    put!(
        out,
        "STALLED  cpu {}, memory {}, io {}   processes {} ({} running)",
        stall(host.pressure_cpu_some_us),
        stall(host.pressure_memory_some_us),
        stall(host.pressure_io_some_us),
        count(host.processes_total),
        count(host.processes_running)
    );
}

fn filesystems(out: &mut String, report: &Report) {
    let mut table =
        Table::new(&["FILE SYSTEM", "TYPE", ">SIZE", ">USED", ">AVAILABLE", ">USE", "MOUNTED ON"]);
    for row in &report.filesystems {
        // As df(1): of what ordinary users may use.
        let share = row.used_bytes.zip(row.available_bytes).filter(|(used, free)| used + free > 0);
        let share = share.map_or("-".to_owned(), |(used, free)| {
            format!("{:.0} %", 100.0 * float(used) / (float(used) + float(free)))
        });
        table.row([
            row.device.clone(),
            row.filesystem_type.clone(),
            bytes(row.total_bytes),
            bytes(row.used_bytes),
            bytes(row.available_bytes),
            share,
            row.mount_point.clone(),
        ]);
    }
    table.print(out);
}

fn devices(out: &mut String, report: &Report) {
    let mut table =
        Table::new(&["DEVICE", ">READ/s", ">WRITE/s", ">READS/s", ">WRITES/s", ">QUEUE", ">BUSY"]);
    let rate = |n: Option<u64>| per_second(n, report).map_or("-".to_owned(), |n| format!("{n:.1}"));
    for row in &report.block_devices {
        let busy =
            row.utilization_ratio.map_or("-".to_owned(), |ratio| format!("{:.1} %", 100.0 * ratio));
        table.row([
            row.device.clone(),
            byte_rate(row.read_bytes, report),
            byte_rate(row.write_bytes, report),
            rate(row.read_operations),
            rate(row.write_operations),
            decimal(row.queue_length),
            busy,
        ]);
    }
    table.print(out);
}

fn interfaces(out: &mut String, report: &Report) {
    let mut table =
        Table::new(&["INTERFACE", ">SPEED", ">RECEIVE/s", ">TRANSMIT/s", ">ERRORS", ">DROPS"]);
    let sum = |a: Option<u64>, b: Option<u64>| {
        a.zip(b).map_or("-".to_owned(), |(a, b)| (a + b).to_string())
    };
    for row in &report.network_interfaces {
        let speed = row
            .speed_bits_per_second
            .map_or("-".to_owned(), |bits| format!("{} Mb/s", bits / 1_000_000));
        table.row([
            row.interface.clone(),
            speed,
            byte_rate(row.receive_bytes, report),
            byte_rate(row.transmit_bytes, report),
            sum(row.receive_errors, row.transmit_errors),
            sum(row.receive_drops, row.transmit_drops),
        ]);
    }
    table.print(out);
}

fn processes(out: &mut String, report: &Report) {
    let instances: HashMap<InstanceId, &InstanceDefinition> =
        report.instance_definitions.iter().map(|entry| (entry.instance_id, entry)).collect();
    let commands: HashMap<_, &ProcessDefinition> =
        report.process_definitions.iter().map(|entry| (entry.process_id, entry)).collect();
    let mut rows: Vec<&ProcessSample> =
        report.processes.iter().filter(|row| row.instance_id != InstanceId::RESIDUAL).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((cpu(row), row.memory_usage_bytes)));
    let mut table =
        Table::new(&[">PID", "USER", "UNIT", ">CPU", ">MEMORY", ">READ/s", ">WRITE/s", "COMMAND"]);
    for row in rows.iter().take(MAX_ROWS) {
        let instance = instances.get(&row.instance_id);
        let text = |text: Option<&String>| text.map_or("-".to_owned(), String::clone);
        let user = instance.and_then(|i| i.owner.clone().or(i.user_id.map(|id| id.to_string())));
        let command = instance.and_then(|i| commands.get(&i.process_id)).map(|c| &c.command_line);
        let [cpu, memory, read, write] = resources(row, report);
        table.row([
            instance.map_or("-".to_owned(), |i| i.pid.to_string()),
            text(user.as_ref()),
            text(instance.and_then(|i| i.systemd_unit.as_ref())),
            cpu,
            memory,
            read,
            write,
            text(command),
        ]);
    }
    for row in report.processes.iter().filter(|row| row.instance_id == InstanceId::RESIDUAL) {
        let [cpu, memory, read, write] = resources(row, report);
        let rest = format!("({} other processes)", row.process_count);
        table.row([String::new(), String::new(), String::new(), cpu, memory, read, write, rest]);
    }
    table.print(out);
    if rows.len() > MAX_ROWS {
        put!(out, "and {} more: --format json prints all of them", rows.len() - MAX_ROWS);
    }
}

/// CPU, memory, read and write of one row.
fn resources(row: &ProcessSample, report: &Report) -> [String; 4] {
    let interval_us = f64::from(report.interval_ms) * 1000.0;
    let cpu =
        cpu(row).map_or("-".to_owned(), |us| format!("{:.1} %", 100.0 * float(us) / interval_us));
    let disk = |n| byte_rate(n, report);
    [cpu, bytes(row.memory_usage_bytes), disk(row.disk_read_bytes), disk(row.disk_write_bytes)]
}

fn cpu(row: &ProcessSample) -> Option<u64> {
    Some(row.cpu_user_us?.saturating_add(row.cpu_system_us?))
}

/// Collectors that did not deliver, and what is missing without privileges.
fn troubles(out: &mut String, report: &Report) {
    let mut lines = Vec::new();
    for run in &report.agent.collectors {
        let detail = match run.outcome {
            CollectorOutcome::Ok | CollectorOutcome::NoData => continue,
            CollectorOutcome::Disabled => "disabled",
            CollectorOutcome::Late => "did not answer in time",
            CollectorOutcome::Failed => run.error.as_deref().unwrap_or("failed"),
        };
        lines.push(format!("{}: {detail}", run.collector));
    }
    if report.agent.losses.contains_key("filesystem_late") {
        lines.push("filesystem: a mount did not answer in time (-)".to_owned());
    }
    lines.extend(super::missing(report).map(str::to_owned));
    if !lines.is_empty() {
        put!(out, "\n{}", lines.join("\n"));
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
struct Table {
    /// Whether each column is aligned to the right: its heading begins with `>`.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let first =
            headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: vec![first] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Nothing if there is nothing but headings.
    fn print(&self, out: &mut String) {
        if self.rows.len() == 1 {
            return;
        }
        out.push('\n');
        let last = self.right.len() - 1;
        let widths: Vec<usize> = (0..=last)
            .map(|column| {
                self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                match (self.right[column], column == last) {
                    (true, _) => out.extend([&padding, cell, "  "]),
                    (false, true) => out.push_str(cell),
                    (false, false) => out.extend([cell, padding.as_str(), "  "]),
                }
            }
            out.push('\n');
        }
    }
}

fn per_second(n: Option<u64>, report: &Report) -> Option<f64> {
    (report.interval_ms > 0).then_some(())?;
    n.map(|n| float(n) * 1000.0 / f64::from(report.interval_ms))
}

fn byte_rate(n: Option<u64>, report: &Report) -> String {
    per_second(n, report).map_or("-".to_owned(), size)
}

fn bytes(n: Option<u64>) -> String {
    n.map_or("-".to_owned(), |n| size(float(n)))
}

fn size(mut n: f64) -> String {
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if n < 1023.5 {
            return if unit == "B" || n >= 99.95 {
                format!("{n:.0} {unit}")
            } else {
                format!("{n:.1} {unit}")
            };
        }
        n /= 1024.0;
    }
    format!("{n:.1} PiB")
}

fn count(n: Option<u32>) -> String {
    n.map_or("-".to_owned(), |n| n.to_string())
}

fn decimal(n: Option<f64>) -> String {
    n.map_or("-".to_owned(), |n| format!("{n:.2}"))
}

fn uptime(seconds: Option<u64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    format!("{} d {:02}:{:02}", seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60)
}

#[expect(clippy::cast_precision_loss, reason = "printed with three digits")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let check = |n: u64, expected: &str| assert_eq!(bytes(Some(n)), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(200 << 20, "200 MiB");
        check(u64::MAX, "16384.0 PiB");
        assert_eq!(bytes(None), "-");
    }

    #[test]
    fn columns_are_aligned_and_lines_cut() {
        let mut table = Table::new(&["NAME", ">N", "TEXT"]);
        table.row(["a".to_owned(), "1".to_owned(), "x y".to_owned()]);
        table.row(["längere".to_owned(), "1000".to_owned(), "z".to_owned()]);
        let mut out = String::new();
        table.print(&mut out);
        assert_eq!(out, "\nNAME        N  TEXT\na           1  x y\nlängere  1000  z\n");
    }
}
