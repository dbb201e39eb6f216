//! Draws the model: two lines about the host, a table, a line of keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Row, Table};
use shared_model::{
    CollectorOutcome, ConnectionSample, InstanceId, ProcessExit, ProcessSample, Report,
};

use super::cells::{self, UNKNOWN};
use super::model::{Model, Sort, View};

/// The table's heading and what is around it.
const FRAME_LINES: u16 = 4;
/// Narrower than this, units and threads are left out: the command line matters more.
const WIDE: u16 = 110;

/// A table of a view: headings with their widths (0: what is left), and one row by number.
struct Sheet {
    columns: Vec<(&'static str, u16)>,
    rows: Vec<Vec<String>>,
}

/// The whole screen.
pub fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let [head, title, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let height = usize::from(frame.area().height.saturating_sub(FRAME_LINES + 1)).max(1);
    // The selected row is always seen.
    model.offset =
        model.offset.min(model.selected).max((model.selected + 1).saturating_sub(height));
    let Some(report) = &model.report else {
        frame.render_widget(Paragraph::new("Looking …"), head);
        return;
    };
    frame.render_widget(Paragraph::new(host_lines(report)), head);
    frame.render_widget(Paragraph::new(heading(model)), title);
    let is_wide = frame.area().width >= WIDE;
    let sheet = match model.view {
        View::Processes => processes(model, report, height, is_wide),
        View::Connections(instance) => connections(report, instance, model.offset, height),
        View::Ended => ended(model, height),
    };
    table(frame, body, sheet, model);
    let keys = "c m d n sort  ↑↓ move  ⏎ connections  e ended  esc back  q quit";
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

fn table(frame: &mut Frame<'_>, area: Rect, sheet: Sheet, model: &Model) {
    if sheet.rows.is_empty() {
        frame.render_widget(Paragraph::new(nothing(model)), area);
        return;
    }
    let widths = sheet.columns.iter().map(|(_, width)| match width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(*width),
    });
    let widths: Vec<_> = widths.collect();
    let cell = |text: String, width: u16| {
        // Numbers, whose columns are narrow, stand on the right.
        let text = Text::from(text);
        if is_number(width) { text.right_aligned() } else { text }
    };
    let selected = model.selected - model.offset;
    let rows = sheet.rows.into_iter().enumerate().map(|(at, cells)| {
        let columns = cells.into_iter().zip(&sheet.columns);
        let row = Row::new(columns.map(|(text, (_, width))| cell(text, *width)));
        if at == selected { row.style(Style::new().add_modifier(Modifier::REVERSED)) } else { row }
    });
    let names = sheet.columns.iter().map(|(name, width)| cell((*name).to_owned(), *width));
    let head = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
}

/// Widths of columns of numbers.
fn is_number(width: u16) -> bool {
    matches!(width, 5..=8)
}

fn nothing(model: &Model) -> &'static str {
    match model.view {
        View::Processes => "No processes can be seen.",
        View::Connections(_) => "No connection of it is known.",
        View::Ended => "No process was seen ending yet.",
    }
}

fn host_lines(report: &Report) -> Vec<Line<'static>> {
    let host = &report.host;
    let interval = report.interval_ms;
    let known =
        |value: Option<f64>| value.map_or(UNKNOWN.to_owned(), |value| format!("{value:.2}"));
    let own = &report.agent;
    let troubles: Vec<_> = report
        .agent
        .collectors
        .iter()
        .filter(|run| matches!(run.outcome, CollectorOutcome::Late | CollectorOutcome::Failed))
        .map(|run| format!("  {} {:?}", run.collector, run.outcome))
        .collect();
    vec![
        Line::from(format!(
            "{} CPUs  user {}%  system {}%  idle {}%  load {}  memory {} of {} used  {} processes",
            cells::number(host.cpu_count),
            cells::percent(host.cpu_user_us, interval),
            cells::percent(host.cpu_system_us, interval),
            cells::percent(host.cpu_idle_us, interval),
            known(host.load_1m),
            cells::bytes(host.memory_used_bytes),
            cells::bytes(host.memory_total_bytes),
            cells::number(host.processes_total),
        )),
        Line::from(format!(
            "agent {}% CPU, {}, every {}.{}s{}",
            cells::percent(own.cpu_us, interval),
            cells::bytes(own.memory_usage_bytes),
            interval / 1000,
            interval % 1000 / 100,
            troubles.concat(),
        )),
    ]
}

fn heading(model: &Model) -> String {
    match model.view {
        View::Processes => {
            let by = match model.sort {
                Sort::Cpu => "CPU",
                Sort::Memory => "memory",
                Sort::Disk => "disk",
                Sort::Network => "network",
            };
            format!("Processes by {by}")
        }
        View::Connections(instance) => {
            let pid = cells::number(model.instance(instance).map(|instance| instance.pid));
            let line = model.command_line(instance).unwrap_or(UNKNOWN);
            format!("Connections of {pid}: {line}")
        }
        View::Ended => format!("Ended, newest first: {}", model.ended.len()),
    }
}

fn processes(model: &Model, report: &Report, height: usize, is_wide: bool) -> Sheet {
    let mut columns = vec![("PID", 7), ("USER", 10), ("CPU%", 6), ("MEM", 6)];
    columns.extend([("READ/s", 6), ("WRITE/s", 7), ("RECV/s", 6), ("SEND/s", 6)]);
    if is_wide {
        columns.extend([("THR", 5), ("UNIT", 20)]);
    }
    columns.push(("COMMAND", 0));
    let shown = report.processes.iter().skip(model.offset).take(height);
    let rows = shown.map(|row| process(model, report.interval_ms, row, is_wide)).collect();
    Sheet { columns, rows }
}

fn process(model: &Model, interval: u32, row: &ProcessSample, is_wide: bool) -> Vec<String> {
    let is_residual = row.instance_id == InstanceId::RESIDUAL;
    let instance = model.instance(row.instance_id);
    let cpu = row.cpu_user_us.zip(row.cpu_system_us).map(|(user, system)| user + system);
    let user = instance.and_then(|one| one.owner.clone().or(one.user_id.map(|id| id.to_string())));
    let mut cells = vec![
        if is_residual { String::new() } else { cells::number(instance.map(|one| one.pid)) },
        if is_residual { String::new() } else { cells::number(user) },
        cells::percent(cpu, interval),
        cells::bytes(row.memory_usage_bytes),
        cells::rate(row.disk_read_bytes, interval),
        cells::rate(row.disk_write_bytes, interval),
        cells::rate(row.network_receive_bytes, interval),
        cells::rate(row.network_transmit_bytes, interval),
    ];
    if is_wide {
        let unit = instance.and_then(|one| one.systemd_unit.clone().or(one.container_id.clone()));
        cells.extend([cells::number(row.thread_count), cells::number(unit)]);
    }
    let command = model.command_line(row.instance_id).unwrap_or(UNKNOWN);
    cells.push(if is_residual {
        "(ended or not attributed)".to_owned()
    } else {
        command.to_owned()
    });
    cells
}

fn connections(report: &Report, instance: InstanceId, offset: usize, height: usize) -> Sheet {
    let columns = vec![
        ("", 4),
        ("WAY", 9),
        ("LOCAL", 28),
        ("REMOTE", 28),
        ("COUNT", 6),
        ("RECV/s", 7),
        ("SEND/s", 7),
        ("SCOPE", 0),
    ];
    let of = report.connections.iter().filter(|row| row.instance_id == Some(instance));
    let rows = of.skip(offset).take(height).map(|row| connection(row, report.interval_ms));
    Sheet { columns, rows: rows.collect() }
}

fn connection(row: &ConnectionSample, interval: u32) -> Vec<String> {
    // Port 0: those of several connections.
    let end = |address: std::net::IpAddr, port: u16| match port {
        0 => format!("{address} *"),
        port => format!("{address} {port}"),
    };
    let scope = row.scope.map_or(UNKNOWN, |scope| scope.as_str());
    vec![
        row.protocol.as_str().to_owned(),
        row.direction.map_or(UNKNOWN, |direction| direction.as_str()).to_owned(),
        end(row.local_address, row.local_port),
        end(row.remote_address, row.remote_port),
        row.connection_count.to_string(),
        cells::rate(row.receive_bytes, interval),
        cells::rate(row.transmit_bytes, interval),
        if row.shared { format!("{scope}, shared") } else { scope.to_owned() },
    ]
}

fn ended(model: &Model, height: usize) -> Sheet {
    let columns = vec![
        ("ENDED", 9),
        ("PID", 7),
        ("LIVED", 7),
        ("CPU", 7),
        ("PEAK", 6),
        ("HOW", 11),
        ("COMMAND", 0),
    ];
    let rows = model.ended.iter().skip(model.offset).take(height).map(|exit| end(model, exit));
    Sheet { columns, rows: rows.collect() }
}

fn end(model: &Model, exit: &ProcessExit) -> Vec<String> {
    let at = exit.exit_time;
    let totals = &exit.totals;
    let cpu = totals.cpu_user_us.zip(totals.cpu_system_us).map(|(user, system)| user + system);
    let how = match (exit.exit_code, exit.exit_signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => format!("exit {code}"),
        (None, None) => UNKNOWN.to_owned(),
    };
    vec![
        format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second()),
        cells::number(model.instance(exit.instance_id).map(|instance| instance.pid)),
        cells::duration(exit.lifetime_us),
        cells::duration(cpu),
        cells::bytes(totals.memory_usage_bytes),
        how,
        model.process(exit.process_id).unwrap_or(UNKNOWN).to_owned(),
    ]
}
