//! Who a host talks to. Connections are kept as samples only: a window's last day is read.

use super::host::HOST_VARIABLE;
use super::{Column, Dashboard, Draw, Panel, Row};

pub(super) const CONNECTIONS: Dashboard = Dashboard {
    uid: "connections",
    title: "Connections",
    description: "Who a host talks to, how much, and which process does; of the window's last day.",
    from: "now-1h",
    variables: &[HOST_VARIABLE],
    rows: &[Row { title: "Kinds", panels: KINDS }, Row { title: "Peers", panels: PEERS }],
};

const KINDS: &[Panel] = &[
    lines(
        "Connections",
        "short",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_part_lines({host}, {day}, {step}, 'connections')"#,
    ),
    lines(
        "Retransmits per second",
        "short",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_part_lines({host}, {day}, {step}, 'connection_retransmits')"#,
    ),
    lines(
        "Received",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_part_lines({host}, {day}, {step}, 'connection_receive')"#,
    ),
    lines(
        "Transmitted",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_part_lines({host}, {day}, {step}, 'connection_transmit')"#,
    ),
];

const fn lines(title: &'static str, unit: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Lines, unit, sql }
}

const PEERS: &[Panel] = &[Panel {
    title: "The 200 that moved most",
    draw: Draw::Table(&[
        Column::Process("command_line"),
        Column::Hidden("host_id"),
        Column::Hidden("process_id"),
        Column::Unit("receive_bytes", "bytes"),
        Column::Unit("transmit_bytes", "bytes"),
    ]),
    unit: "",
    sql: "select command_line, pid, protocol, direction, scope, host(local_address) as local_address, nullif(local_port, 0) as local_port,
            host(remote_address) as remote_address, nullif(remote_port, 0) as remote_port, connection_count_max,
            receive_bytes, transmit_bytes, retransmits, first_sampled_at, last_sampled_at, host_id::text, process_id::text
        from procfleet_connections(array[{host}], null, null, {day}, 200)",
}];
