//! `fleet-sim bench-storage`: bytes on disk of a kept process sample, index included, of what it is
//! rolled up to, and how fast that goes.
//!
//! Rows are written in the order in which a fleet sends them, a report of 40 processes and the
//! residual per host every 30 seconds. Their widths are those of real rows; their values are of no
//! meaning, so nothing is said about compression. Half of the hosts know everything, the other half has no
//! BPF: network and run queue are null.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use collector_api::maintenance;
use collector_api::store::Store;
use collector_api::store::maintenance::MaintenanceConnection;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

/// Passes of maintenance within which everything must be rolled up.
const MAX_PASSES: u32 = 100;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// An empty database that the benchmark may migrate and fill.
    #[arg(long, env = "PROCFLEET_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Hosts.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=1000))]
    hosts: i32,
    /// Hours of samples.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=24))]
    hours: i32,
}

/// Runs the benchmark and prints a table in markdown.
pub async fn run(arguments: Arguments) -> Result<()> {
    let store = Store::connect(&arguments.database_url, 2).await?;
    store.migrate().await?;
    let mut connection = PgConnection::connect(&arguments.database_url).await?;
    let mut worker = lease(&store).await?;
    // Partitions, where the engine needs them before the first row.
    sqlx::query(
        "update rollup_watermark set expanded = expanded - make_interval(hours => $1 + 1),
            horizon = horizon - make_interval(hours => $1 + 1)",
    )
    .bind(arguments.hours)
    .execute(&mut connection)
    .await?;
    for series in collector_api::store::series::all() {
        worker.ensure_ahead(series).await?;
    }
    // Filling may take longer than the lease lasts.
    worker.release().await?;
    let started = Instant::now();
    let samples = fill(&mut connection, &arguments).await?;
    let filled = started.elapsed();
    let mut worker = lease(&store).await?;
    let started = Instant::now();
    for pass in 0.. {
        ensure!(pass < MAX_PASSES, "the roll-ups do not come to an end");
        maintenance::work(&mut worker, Duration::ZERO).await?;
        let left: i64 = sqlx::query_scalar("select count(*) from rollup_dirty")
            .fetch_one(&mut connection)
            .await?;
        if left == 0 {
            break;
        }
    }
    let rolled_up = started.elapsed();
    worker.release().await?;
    println!("| measured | rows | bytes per row |\n|---|---|---|");
    for table in ["process_samples", "process_rollup_5m", "process_rollup_1h"] {
        let (rows, bytes) = size(&mut connection, table).await?;
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let each = bytes as f64 / rows.max(1) as f64;
        println!("| {table}, index included | {rows} | {each:.1} |");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = |seconds: Duration| samples as f64 / seconds.as_secs_f64();
    println!("\n{samples} samples of {} hosts.", arguments.hosts);
    println!("Written by insert: {:.0} per second.", rate(filled));
    println!("Rolled up to 5 minutes and an hour: {:.0} per second.", rate(rolled_up));
    Ok(())
}

async fn lease(store: &Store) -> Result<MaintenanceConnection> {
    store.maintenance_connection(Uuid::new_v4()).await?.context("somebody else maintains")
}

async fn fill(connection: &mut PgConnection, arguments: &Arguments) -> Result<u64> {
    sqlx::query(
        "insert into host_samples (sampled_at, host_id, interval_ms, cpu_user_us, memory_used_bytes)
        select now() - at * interval '30 s', md5('host' || host)::uuid, 30000, 1, 1
        from generate_series($2 * 120, 1, -1) as at, generate_series(1, $1) as host",
    )
    .bind(arguments.hosts)
    .bind(arguments.hours)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "with token as (
            insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
            values (gen_random_uuid(), 'bench', sha256('bench'), now()) returning token_id
        )
        insert into hosts (host_id, host_number, host_name, kernel_release, host_arch, agent_version, enrollment_token_id)
        overriding system value
        select md5('host' || host)::uuid, host, 'host', '6.1', 'x86_64', '0', token_id
        from token, generate_series(1, $1) as host",
    )
    .bind(arguments.hosts)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into ingest_cursors (host_id, stream_id, last_sequence, last_digest)
        select md5('host' || host)::uuid, gen_random_uuid(), 1, 1 from generate_series(1, $1) as host",
    )
    .bind(arguments.hosts)
    .execute(&mut *connection)
    .await?;
    let written = sqlx::query(
        "insert into process_samples (sampled_at, instance_id, cpu_user_us, cpu_system_us,
            memory_usage_bytes, memory_swap_bytes, disk_read_bytes, disk_write_bytes,
            network_receive_bytes, network_transmit_bytes, run_queue_delay_us,
            paging_faults_minor, paging_faults_major, context_switches_voluntary,
            context_switches_involuntary, host_number, interval_ms, process_count, thread_count,
            file_descriptor_count)
        select now() - at * interval '30 s', process * 1000003::bigint + host, 1000, 1000, 1 << 30, 0, 0, 4096,
            bpf * 1500, bpf * 1500, bpf * 100, 10, 0, 30, 3, host, 30000, 1, 4, 20
        from generate_series($2 * 120, 1, -1) as at, generate_series(1, $1) as host,
            generate_series(0, 40) as process, nullif(host % 2, 0) as bpf",
    )
    .bind(arguments.hosts)
    .bind(arguments.hours)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

/// Rows of `table` and its size as the maintenance worker measured it.
async fn size(connection: &mut PgConnection, table: &'static str) -> Result<(i64, i64)> {
    let bytes = sqlx::query_scalar("select bytes from maintenance_tables where series = $1")
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
    let count = match table {
        "process_samples" => "select count(*) from process_samples",
        "process_rollup_5m" => "select count(*) from process_rollup_5m",
        _ => "select count(*) from process_rollup_1h",
    };
    Ok((sqlx::query_scalar(count).fetch_one(connection).await?, bytes))
}
