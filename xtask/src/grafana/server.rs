//! Procfleet itself: what arrives, what is missing, how far maintenance is.

use super::{Column, Dashboard, Draw, Panel, Row};

pub(super) const SERVER: Dashboard = Dashboard {
    uid: "server",
    title: "Server health",
    description: "What arrives, what is missing, what the database holds and how far its maintenance is.",
    from: "now-6h",
    variables: &[],
    rows: &[
        Row { title: "Now", panels: NOW },
        Row { title: "Delivery", panels: DELIVERY },
        Row { title: "Missing", panels: MISSING },
        Row { title: "Database", panels: DATABASE },
    ],
};

const fn stat(title: &'static str, unit: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Stat, unit, sql }
}

const NOW: &[Panel] = &[
    stat(
        "Silent hosts",
        "short",
        "select count(*) filter (where silent) as silent from procfleet_hosts where lifecycle = 'active'",
    ),
    stat(
        "Newest report",
        "s",
        "select extract(epoch from now() - max(last_seen_at))::double precision as age from procfleet_hosts",
    ),
    stat(
        "Roll-ups of 5 min behind",
        "s",
        "select extract(epoch from now() - fine_until)::double precision as behind from procfleet_progress()",
    ),
    stat(
        "Roll-ups of 1 h behind",
        "s",
        "select extract(epoch from now() - hour_until)::double precision as behind from procfleet_progress()",
    ),
    stat(
        "Buckets to compute",
        "short",
        "select dirty_buckets as buckets from procfleet_progress()",
    ),
    stat("Of them late data", "short", "select late_buckets as buckets from procfleet_progress()"),
    stat(
        "Last maintenance",
        "s",
        "select extract(epoch from now() - last_step_at)::double precision as age from procfleet_progress()",
    ),
    stat(
        "Failing steps",
        "short",
        "select count(*) filter (where failures > 0) as failing from procfleet_maintenance",
    ),
];

const fn lines(title: &'static str, unit: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Lines, unit, sql }
}

const DELIVERY: &[Panel] = &[
    lines(
        "Hosts heard of",
        "short",
        r#"
        select sampled_at as "time", host_count as "hosts" from procfleet_ingest_series({window}, {fleet_step})"#,
    ),
    lines(
        "Reports per second",
        "short",
        r#"
        select sampled_at as "time", reports_per_second as "reports" from procfleet_ingest_series({window}, {fleet_step})"#,
    ),
    lines(
        "Waiting in the agents' spools",
        "bytes",
        r#"
        select sampled_at as "time", spool_bytes as "bytes" from procfleet_ingest_series({window}, {fleet_step})"#,
    ),
    lines(
        "An agent's cost in the mean: CPU, of one core",
        "percentunit",
        r#"
        select sampled_at as "time", agent_cpu_cores as "cpu" from procfleet_ingest_series({window}, {fleet_step})"#,
    ),
];

const fn table(title: &'static str, columns: &'static [Column], sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Table(columns), unit: "", sql }
}

const MISSING: &[Panel] = &[
    table(
        "Hosts with gaps in the window",
        &[Column::Host("host_name"), Column::Hidden("host_id"), Column::Unit("expected", "s"), Column::Unit("missing", "s")],
        "select host_name, expected_ms / 1000.0::double precision as expected, missing_ms / 1000.0::double precision as missing,
            first_sampled_at, last_sampled_at, host_id::text
        from procfleet_coverage(null, {window}) where missing_ms > 0 order by missing_ms desc limit 200",
    ),
    table(
        "Records passed over: poison, and gaps",
        &[Column::Host("host_name"), Column::Hidden("host_id")],
        "select received_at, host_name, code, first_sequence, sequence, sequence - first_sequence + 1 as records, host_id::text
        from procfleet_rejects where $__timeFilter(received_at) order by received_at desc limit 200",
    ),
    table(
        "Collectors that were late or failed (in the window's last day)",
        &[],
        "select collector, outcome, host_count, run_count, last_at from procfleet_troubled_collectors(null, {day})",
    ),
];

const DATABASE: &[Panel] = &[
    table(
        "Series",
        &[Column::Unit("retention", "s"), Column::Unit("bytes", "bytes")],
        "select series, extract(epoch from retention)::double precision as retention, partitions, compressed, bytes, begins_at, ends_at, measured_at
        from procfleet_storage order by bytes desc nulls last, series",
    ),
    table(
        "Maintenance",
        &[],
        "select step, started_at, finished_at, items, failures, failed_at, error from procfleet_maintenance order by failures desc, step",
    ),
    table(
        "Agents",
        &[],
        "select agent_version, count(*) as hosts, count(*) filter (where silent) as silent from procfleet_hosts
        where lifecycle = 'active' group by 1 order by 2 desc",
    ),
];
