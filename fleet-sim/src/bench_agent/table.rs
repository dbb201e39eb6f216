//! The table's lines.

use anyhow::Result;

use super::reference::Pass;
use super::running::Sized;
use super::{Tier, spread};
use crate::bench_agent::peers::Cost;

/// Its first two lines.
pub(super) const HEAD: &str = "| who | children | connections | CPU ms per collection (median, least–most) | µs per process | wall ms | RSS MiB (most) | bytes of a report | remark |
|---|---|---|---|---|---|---|---|---|";

/// The load of a part of the table.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) children: usize,
    pub(super) connections: usize,
}

/// The agent's line.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn agent(tier: Tier, setting: Setting, reports: &[Sized]) -> Result<String> {
    let known = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
    let each = |of: &dyn Fn(&Sized) -> f64| spread(reports.iter().map(of));
    let (least, cpu, most) = each(&|(report, _)| known(report.agent.cpu_us) / 1000.0)?;
    let (_, present, _) = each(&|(report, _)| {
        report.processes.iter().map(|row| f64::from(row.process_count)).sum::<f64>()
    })?;
    let (_, wall, _) = each(&|(report, _)| {
        let longest = report.agent.collectors.iter().map(|run| run.duration_us).max();
        longest.unwrap_or(0) as f64 / 1000.0
    })?;
    let (_, _, rss) = each(&|(report, _)| known(report.agent.memory_usage_bytes))?;
    let (_, bytes, _) = each(&|(_, bytes)| *bytes as f64)?;
    let (_, rows, _) = each(&|(report, _)| report.processes.len() as f64)?;
    let (_, flows, _) = each(&|(report, _)| report.connections.len() as f64)?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!(
        "| **procfleet-agent, tier {tier:?}** | {} | {} | **{cpu:.1}** ({least:.1}–{most:.1}) | {:.1} | {wall:.1} | {:.1} | {bytes} | {present} processes, {rows} rows, {flows} connection rows, {} ticks, load {load} |",
        setting.children,
        setting.connections,
        cpu * 1000.0 / present,
        rss / f64::from(1 << 20),
        reports.len(),
    ))
}

/// The lines of the simplest loops over the same files.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn references(setting: Setting, passes: &[Pass]) -> Result<String> {
    let line = |name: &str, of: fn(&Pass) -> std::time::Duration| -> Result<String> {
        let (least, median, most) = spread(passes.iter().map(|pass| of(pass).as_secs_f64() * 1e3))?;
        let per_process =
            spread(passes.iter().map(|pass| of(pass).as_secs_f64() * 1e6 / pass.processes as f64))?
                .1;
        Ok(format!(
            "| *{name}* | {} | {} | {median:.1} ({least:.1}–{most:.1}) | {per_process:.1} | – | – | – | parses nothing |",
            setting.children, setting.connections
        ))
    };
    let opened = line("loop: open, read, close stat, statm, io, cmdline", |pass| pass.opened)?;
    let kept = line("loop: read kept stat, statm, io", |pass| pass.kept)?;
    Ok(format!("{opened}\n{kept}"))
}

/// The line of one of the others.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn peer(name: &str, setting: Setting, cost: &Cost) -> Result<String> {
    let (least, cpu, most) = spread(cost.cpu_ms.iter().copied())?;
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
    Ok(format!(
        "| {name} | {} | {} | {cpu:.1} ({least:.1}–{most:.1}) | – | {} | {} | – | {} runs |",
        setting.children,
        setting.connections,
        number(cost.wall_ms),
        number(cost.memory.map(|bytes| bytes as f64 / f64::from(1 << 20))),
        cost.cpu_ms.len(),
    ))
}

/// The line of what there was no time for.
pub(super) fn left_out(name: &str, setting: Setting) -> String {
    remark(name, setting, "left out: no time")
}

/// The line of what does not work here.
pub(super) fn failed(name: &str, setting: Setting, error: &anyhow::Error) -> String {
    remark(name, setting, &format!("failed: {error:#}"))
}

fn remark(name: &str, setting: Setting, text: &str) -> String {
    format!(
        "| {name} | {} | {} | – | – | – | – | – | {text} |",
        setting.children, setting.connections
    )
}
