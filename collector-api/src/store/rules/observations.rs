//! What rules look at: samples of some hosts, each from a moment of its own on, one statement per source.
//!
//! A report is there when its row of `host_samples` is; what else it holds hangs on that moment.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A table of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `host_samples`; its values are those of [`Tick`].
    Host,
    /// `filesystem_samples`, by mount point.
    Filesystem,
    /// `filesystem_samples` of the six hours up to each report, by mount point; only for rules that ask.
    Trend,
    /// `block_device_samples`, by device.
    BlockDevice,
    /// `network_interface_samples`, by interface.
    NetworkInterface,
    /// `process_samples`, by process.
    Process,
    /// `process_exits`, by process.
    Exit,
    /// `process_exits` of the hour up to each report, by process; more to read, so only for rules that ask.
    Restart,
    /// `connection_samples`, by process.
    Connection,
}

/// Samples of one host: later than `after`, up to `to`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Whose.
    pub host_id: Uuid,
    /// Not itself.
    pub after: OffsetDateTime,
    /// Itself too.
    pub to: OffsetDateTime,
}

/// A report.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Whose.
    pub host_id: Uuid,
    /// The host's clock.
    pub sampled_at: OffsetDateTime,
    /// Over which its deltas are; null: unknown.
    pub interval_ms: Option<i32>,
    /// Reports that the agent lost since its start.
    pub lost_reports: i64,
    /// Collectors that did not deliver: an array of their runs, or null.
    pub troubled: Option<Value>,
    /// In the order of the statement.
    pub values: Vec<Option<f64>>,
}

impl Source {
    /// Whether the collector of processes delivers it, and what is not there is 0.
    pub fn is_of_processes(self) -> bool {
        matches!(self, Self::Process | Self::Exit | Self::Restart | Self::Connection)
    }
}

impl Tick {
    /// Whether this collector delivered.
    pub fn has(&self, collector: &str) -> bool {
        let troubled = self.troubled.as_ref().and_then(Value::as_array);
        !troubled.is_some_and(|runs| runs.iter().any(|run| run["collector"] == collector))
    }
}

/// Numbers of one object in one report.
#[derive(Clone, Debug)]
pub struct Row {
    /// Whose.
    pub host_id: Uuid,
    /// As in its tick.
    pub sampled_at: OffsetDateTime,
    /// Its key within the host: mount point, device, interface, or 32 hex digits of a process.
    pub object: String,
    /// What it is called: for a process its command line.
    pub title: String,
    /// In the order of the statement.
    pub values: Vec<Option<f64>>,
}

/// What some hosts reported.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By host, oldest first.
    pub ticks: BTreeMap<Uuid, Vec<Tick>>,
    /// Of one report.
    pub rows: BTreeMap<(Uuid, OffsetDateTime, Source), Vec<Row>>,
    /// Rows read, of all sources.
    pub count: usize,
}

/// Reads what the spans hold, of each at most `max_ticks` reports, the oldest; of `sources` beside the
/// hosts' own numbers.
pub async fn observe(
    connection: &mut PgConnection,
    mut spans: Vec<Span>,
    sources: &[Source],
    max_ticks: usize,
) -> Result<Observed, sqlx::Error> {
    let mut observed = Observed::default();
    for tick in ticks(connection, &spans, i64::try_from(max_ticks).unwrap_or(i64::MAX)).await? {
        observed.count += 1;
        observed.ticks.entry(tick.host_id).or_default().push(tick);
    }
    spans.retain_mut(|span| {
        let Some(ticks) = observed.ticks.get(&span.host_id) else { return false };
        span.to = ticks.last().map_or(span.to, |tick| tick.sampled_at);
        true
    });
    for source in sources {
        for row in rows(connection, &spans, *source).await? {
            observed.count += 1;
            let key = (row.host_id, row.sampled_at, *source);
            observed.rows.entry(key).or_default().push(row);
        }
    }
    Ok(observed)
}

/// Spans as parameters: hosts, begins, ends, and the two moments that everything lies between, by which
/// pieces of a series are left out.
type Parameters =
    (Vec<Uuid>, Vec<OffsetDateTime>, Vec<OffsetDateTime>, OffsetDateTime, OffsetDateTime);

fn parameters(spans: &[Span]) -> Parameters {
    let after: Vec<_> = spans.iter().map(|span| span.after).collect();
    let to: Vec<_> = spans.iter().map(|span| span.to).collect();
    let first = after.iter().min().copied().unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let last = to.iter().max().copied().unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (spans.iter().map(|span| span.host_id).collect(), after, to, first, last)
}

async fn ticks(
    connection: &mut PgConnection,
    spans: &[Span],
    max_ticks: i64,
) -> Result<Vec<Tick>, sqlx::Error> {
    let (hosts, after, to, first, last) = parameters(spans);
    sqlx::query_as!(
        Tick,
        r#"-- observe.ticks
        select r.host_id as "host_id!", s.sampled_at, nullif(s.interval_ms, 0) as interval_ms,
            (select coalesce(sum(l.value::bigint), 0) from jsonb_each_text(s.agent_losses) l
                where l.key like 'spool\_%')::bigint as "lost_reports!",
            s.agent_collectors as troubled,
            array[
                1 - (s.cpu_idle_us + coalesce(s.cpu_iowait_us, 0))::float8 / nullif(s.cpu_user_us + s.cpu_system_us
                    + coalesce(s.cpu_iowait_us, 0) + coalesce(s.cpu_steal_us, 0) + s.cpu_idle_us, 0),
                s.cpu_iowait_us::float8 / nullif(s.cpu_user_us + s.cpu_system_us
                    + s.cpu_iowait_us + coalesce(s.cpu_steal_us, 0) + s.cpu_idle_us, 0),
                s.load_5m / nullif(s.cpu_count, 0),
                1 - s.memory_available_bytes::float8 / nullif(s.memory_total_bytes, 0),
                s.swap_used_bytes::float8 / nullif(s.swap_total_bytes, 0),
                (s.interface_receive_bytes + s.interface_transmit_bytes) * 1000.0 / nullif(s.interval_ms, 0),
                s.processes_total,
                s.agent_spool_reports,
                coalesce(jsonb_array_length(s.agent_collectors), 0)
            ]::float8[] as "values!: Vec<Option<f64>>"
        from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
        cross join lateral (
            select * from host_samples s
            where s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
              and s.sampled_at > $4 and s.sampled_at <= $5
            order by s.sampled_at limit $6) s
        order by 1, 2"#,
        &hosts,
        &after,
        &to,
        first,
        last,
        max_ticks,
    )
    .fetch_all(connection)
    .await
}

async fn rows(
    connection: &mut PgConnection,
    spans: &[Span],
    source: Source,
) -> Result<Vec<Row>, sqlx::Error> {
    let given = parameters(spans);
    match source {
        Source::Host => Ok(Vec::new()),
        Source::Filesystem => filesystems(connection, &given).await,
        Source::Trend => trends(connection, &given).await,
        Source::BlockDevice => devices(connection, &given).await,
        Source::NetworkInterface => interfaces(connection, &given).await,
        Source::Process => processes(connection, &given).await,
        Source::Exit => exits(connection, &given).await,
        Source::Restart => restarts(connection, &given).await,
        Source::Connection => connections(connection, &given).await,
    }
}

async fn filesystems(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.filesystems
        select s.host_id, s.sampled_at, s.mount_point as object, s.mount_point as title,
            array[s.used_bytes::float8 / nullif(s.used_bytes + s.available_bytes, 0),
                s.inodes_used::float8 / nullif(s.inodes_total, 0)]::float8[] as "values!: Vec<Option<f64>>"
        from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
        join filesystem_samples s on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
        where s.sampled_at > $4 and s.sampled_at <= $5"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn trends(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.trends
        select s.host_id, s.sampled_at, s.mount_point as object, s.mount_point as title,
            array[case
                when t.seen_s < 7200 or t.points < 4 then null
                when t.bytes_per_hour <= 0 or s.used_bytes < 0.6 * (s.used_bytes + s.available_bytes) then 8760
                else least(s.available_bytes / t.bytes_per_hour, 8760)
            end]::float8[] as "values!: Vec<Option<f64>>"
        from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
        join filesystem_samples s on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
        cross join lateral (
            select count(*) as points, extract(epoch from max(p.sampled_at) - min(p.sampled_at)) as seen_s,
                regr_slope(p.used_bytes, extract(epoch from p.sampled_at - s.sampled_at) / 3600) as bytes_per_hour
            from generate_series(0, 12) as n
            cross join lateral (
                select f.sampled_at, f.used_bytes from filesystem_samples f
                where f.host_id = s.host_id and f.mount_point = s.mount_point
                  and f.sampled_at <= s.sampled_at - n * interval '30 minutes'
                  and f.sampled_at > s.sampled_at - (n + 1) * interval '30 minutes'
                  and f.sampled_at > $4::timestamptz - interval '7 hours' and f.sampled_at <= $5
                order by f.sampled_at desc limit 1) p) t
        where s.sampled_at > $4 and s.sampled_at <= $5"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn devices(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.devices
        select s.host_id, s.sampled_at, s.device as object, s.device as title,
            array[s.utilization_ratio, s.queue_length,
                (s.read_bytes + s.write_bytes) * 1000.0 / nullif(s.interval_ms, 0)]::float8[]
                as "values!: Vec<Option<f64>>"
        from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
        join block_device_samples s on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
        where s.sampled_at > $4 and s.sampled_at <= $5"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn interfaces(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.interfaces
        select s.host_id, s.sampled_at, s.interface as object, s.interface as title,
            array[s.receive_bytes * 1000.0 / nullif(s.interval_ms, 0),
                s.transmit_bytes * 1000.0 / nullif(s.interval_ms, 0),
                (s.receive_errors + s.transmit_errors + s.receive_drops + s.transmit_drops) * 1000.0
                    / nullif(s.interval_ms, 0)]::float8[] as "values!: Vec<Option<f64>>"
        from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
        join network_interface_samples s on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
        where s.sampled_at > $4 and s.sampled_at <= $5"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn processes(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.processes
        select t.host_id as "host_id!", t.sampled_at as "sampled_at!",
            translate(t.process_id::text, '-', '') as "object!", p.command_line as title,
            t.numbers || (p.first_seen_at > t.sampled_at - interval '5 minutes')::int::float8
                as "values!: Vec<Option<f64>>"
        from (
            select r.host_id, s.sampled_at, i.process_id,
                array[sum(s.cpu_user_us + s.cpu_system_us) / (nullif(max(s.interval_ms), 0) * 1000.0),
                    sum(s.memory_usage_bytes),
                    sum(coalesce(s.disk_read_bytes, s.disk_write_bytes - s.disk_write_bytes)
                        + coalesce(s.disk_write_bytes, 0)) * 1000.0 / nullif(max(s.interval_ms), 0),
                    sum(coalesce(s.network_receive_bytes, s.network_transmit_bytes - s.network_transmit_bytes)
                        + coalesce(s.network_transmit_bytes, 0)) * 1000.0 / nullif(max(s.interval_ms), 0),
                    sum(s.process_count), sum(s.thread_count), sum(s.file_descriptor_count)]::float8[] as numbers
            from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
            join procfleet_process_samples s
                on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
            join process_instances i on i.host_id = r.host_id and i.instance_id = s.instance_id
            where s.sampled_at > $4 and s.sampled_at <= $5
            group by r.host_id, s.sampled_at, i.process_id) t
        join processes p using (process_id)"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn exits(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.exits
        select t.host_id as "host_id!", t.sampled_at as "sampled_at!",
            translate(t.process_id::text, '-', '') as "object!", p.command_line as title,
            array[t.failed, t.killed, t.ended]::float8[] as "values!: Vec<Option<f64>>"
        from (
            select r.host_id, s.sampled_at, s.process_id,
                sum(coalesce(s.failed_count, (coalesce(s.exit_code, 0) <> 0 or s.exit_signal is not null)::int)) as failed,
                count(*) filter (where s.exit_signal = 9) as killed,
                sum(s.process_count) as ended
            from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
            join process_exits s on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
            where s.sampled_at > $4 and s.sampled_at <= $5 and s.process_id is not null
            group by r.host_id, s.sampled_at, s.process_id) t
        join processes p using (process_id)"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn restarts(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.restarts
        select t.host_id as "host_id!", t.sampled_at as "sampled_at!",
            translate(t.process_id::text, '-', '') as "object!", p.command_line as title,
            array[t.ended]::float8[] as "values!: Vec<Option<f64>>"
        from (
            select r.host_id, r.after, s.sampled_at, s.process_id,
                sum(sum(s.process_count)) over (partition by r.host_id, s.process_id order by s.sampled_at
                    range between interval '1 hour' preceding and current row) as ended
            from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
            join process_exits s on s.host_id = r.host_id
                and s.sampled_at > r.after - interval '1 hour' and s.sampled_at <= r.upto
            where s.sampled_at > $4::timestamptz - interval '1 hour' and s.sampled_at <= $5 and s.process_id is not null
            group by r.host_id, r.after, s.sampled_at, s.process_id) t
        join processes p using (process_id)
        where t.sampled_at > t.after"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}

async fn connections(
    connection: &mut PgConnection,
    (hosts, after, to, first, last): &Parameters,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- observe.connections
        select t.host_id as "host_id!", t.sampled_at as "sampled_at!",
            translate(t.process_id::text, '-', '') as "object!", p.command_line as title,
            t.numbers as "values!: Vec<Option<f64>>"
        from (
            select r.host_id, s.sampled_at, i.process_id,
                array[sum(s.connection_count), sum(s.retransmits) * 1000.0 / nullif(max(s.interval_ms), 0)]::float8[]
                    as numbers
            from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as r (host_id, after, upto)
            join connection_samples s on s.host_id = r.host_id and s.sampled_at > r.after and s.sampled_at <= r.upto
            join process_instances i on i.host_id = r.host_id and i.instance_id = s.instance_id
            where s.sampled_at > $4 and s.sampled_at <= $5
            group by r.host_id, s.sampled_at, i.process_id) t
        join processes p using (process_id)"#,
        hosts,
        after,
        to,
        first,
        last,
    )
    .fetch_all(connection)
    .await
}
