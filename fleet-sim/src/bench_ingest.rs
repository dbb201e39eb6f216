//! `fleet-sim bench-ingest`: the whole way (TLS, JSON, zstd, decoding, validation, one transaction)
//! against a raw binary COPY of the same rows into the same tables, in the same run.
//!
//! The raw way is the floor: rows encoded beforehand, one connection, one transaction per table and
//! round. Request bodies are made beforehand too, but the simulated agents' TLS runs on the same
//! machine and is part of the whole way. Each round empties the series, so both ways meet tables of
//! the same size; the order alternates, because the second finds a warmer machine.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use collector_api::store::dialect::Dialect;
use collector_api::store::nodelay;
use collector_api::store::series::{self, SERIES};
use shared_model::{InstanceId, ProcessSample, Record};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::random::Random;
use crate::server::{Deployment, Doors};
use crate::simulated::{SimulatedAgent, encode_frame, install_crypto};

/// Signature, flags and extension length of a binary COPY.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Piece handed to the driver at once, bytes.
const COPY_PIECE: usize = 1 << 20;

/// Rounds at half of the rate.
const PACED_ROUNDS: u64 = 6;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// An empty database that the benchmark may migrate and fill.
    #[arg(long, env = "PROCFLEET_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Agents sending at the same time.
    #[arg(long, default_value_t = 24)]
    agents: u64,
    /// Requests per agent and round.
    #[arg(long, default_value_t = 8)]
    requests: u64,
    /// Reports per request.
    #[arg(long, default_value_t = 4)]
    reports: u64,
    /// Processes per report.
    #[arg(long, default_value_t = 300)]
    processes: u32,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
}

/// Work of one round, made before the clock starts.
struct Round {
    /// Per agent, its request bodies in order.
    bodies: Vec<Vec<Vec<u8>>>,
    /// Per series, all rows as one binary COPY.
    raw: Vec<Vec<u8>>,
    rows: u64,
    json_bytes: u64,
}

/// Runs the benchmark and prints a table in markdown.
pub async fn run(arguments: Arguments) -> Result<()> {
    install_crypto();
    let doors = Doors::free()?;
    let deployment =
        Deployment::create("bench-ingest", &arguments.database_url, vec![doors.agent_endpoint()])
            .await?;
    let mut server = deployment.start("server", doors).await?;
    let token = deployment.join_token("bench").await?;
    let mut connection = PgConnection::connect(&arguments.database_url).await?;
    // The floor does not wait for delayed acknowledgements either.
    let port = PgConnectOptions::from_str(&arguments.database_url)?.get_port();
    nodelay::set_for_peers_at(port)?;
    let now = sqlx::query_scalar("select now()").fetch_one(&mut connection).await?;
    let mut agents = Vec::new();
    for index in 0..arguments.agents {
        let name = format!("bench-{index}");
        agents.push(SimulatedAgent::enroll(&token, &name, index, now).await?);
    }
    let (mut whole, mut raw, mut bytes_per_row, mut json_per_row) = (vec![], vec![], 0.0, 0.0);
    // The first round warms up: chunks, connections, dictionaries.
    for round in 0..=arguments.rounds {
        let work = prepare(&mut agents, &arguments)?;
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for is_whole in order {
            empty(&mut connection).await?;
            let seconds = if is_whole {
                let seconds = send_all(&mut agents, &work).await?.as_secs_f64();
                let stored = row_count(&mut connection).await?;
                ensure!(stored == work.rows, "{stored} of {} rows are stored", work.rows);
                bytes_per_row = process_bytes_per_row(&mut connection).await?;
                seconds
            } else {
                copy_raw(&mut connection, &work).await?.as_secs_f64()
            };
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
                if is_whole { &mut whole } else { &mut raw }.push(work.rows as f64 / seconds);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        {
            json_per_row = work.json_bytes as f64 / work.rows as f64;
        }
    }
    let (whole, raw) = (median(whole)?, median(raw)?);
    empty(&mut connection).await?;
    let latencies = at_half_rate(&mut agents, &arguments, whole / 2.0).await?;
    server.terminate().await?;
    println!("| measured | value |\n|---|---|");
    println!(
        "| load | {} agents, {} reports per request, {} processes per report |",
        arguments.agents, arguments.reports, arguments.processes
    );
    println!("| whole way (TLS, zstd, JSON, COPY) | {whole:.0} rows/s |");
    println!("| raw binary COPY, same rows and tables | {raw:.0} rows/s |");
    println!("| ratio | {:.3} |", whole / raw);
    println!("| request to commit at half of that rate | {latencies} |");
    println!("| JSON | {json_per_row:.0} bytes/row |");
    println!("| process_samples on disk, index included | {bytes_per_row:.0} bytes/row |");
    Ok(())
}

/// Requests at `rows_per_second`, evenly spread over agents and time. Times are from when a request was due,
/// so that one that waits for its predecessor is not flattered.
async fn at_half_rate(
    agents: &mut Vec<SimulatedAgent>,
    arguments: &Arguments,
    rows_per_second: f64,
) -> Result<String> {
    let mut times = Vec::new();
    for _ in 0..PACED_ROUNDS {
        let work = prepare(agents, arguments)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let (rows, requests) = (work.rows as f64, arguments.requests as f64);
        let interval = Duration::from_secs_f64(rows / requests / rows_per_second);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let phase = interval.div_f64(agents.len() as f64);
        let (mut tasks, started) = (JoinSet::new(), Instant::now());
        for ((mut agent, bodies), number) in agents.drain(..).zip(work.bodies).zip(0_u32..) {
            tasks.spawn(async move {
                let (mut due, mut times) = (started + phase * number, Vec::new());
                for body in bodies {
                    tokio::time::sleep_until(due.into()).await;
                    agent.post(body).await?;
                    times.push(due.elapsed().as_secs_f64() * 1000.0);
                    due += interval;
                }
                anyhow::Ok((agent, times))
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (agent, some) = done??;
            agents.push(agent);
            times.extend(some);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |per_cent: usize| times.get(times.len() * per_cent / 100).copied().unwrap_or(0.0);
    let count = times.len();
    Ok(format!("p50 {:.0} ms, p99 {:.0} ms, {count} requests", at(50), at(99)))
}

fn prepare(agents: &mut [SimulatedAgent], arguments: &Arguments) -> Result<Round> {
    let mut raw = vec![COPY_HEADER.to_vec(); SERIES.len()];
    let (mut bodies, mut rows, mut json_bytes) = (Vec::new(), 0, 0);
    for (host_number, agent) in (1..).zip(agents) {
        agent.records.retain(|sequence, _| *sequence >= agent.acknowledged_sequence);
        let mut requests = Vec::new();
        for _ in 0..arguments.requests {
            let mut body = Vec::new();
            for _ in 0..arguments.reports {
                agent.produce(1);
                let mut last = agent.records.last_entry().context("just produced")?;
                let Record::Report(report) = last.get_mut() else { continue };
                fill(&mut report.processes, arguments.processes, report.sequence);
                for (all, part) in raw.iter_mut().zip(series::encode(report)) {
                    part.append_to(all, host_number);
                    rows += u64::from(part.count);
                }
                json_bytes += last.get().encode().len() as u64;
                body.extend(encode_frame(last.get())?);
            }
            requests.push(body);
        }
        bodies.push(requests);
    }
    for all in &mut raw {
        all.extend_from_slice(&(-1_i16).to_be_bytes());
    }
    Ok(Round { bodies, raw, rows, json_bytes })
}

/// Adds samples of plausible sizes until there are `count`.
fn fill(processes: &mut Vec<ProcessSample>, count: u32, seed: u64) {
    let mut random = Random::new(seed);
    for slot in 0..count.saturating_sub(u32::try_from(processes.len()).unwrap_or(count)) {
        processes.push(ProcessSample {
            instance_id: InstanceId(i64::from(slot) * 7_919_777_111 + 1),
            process_count: 1,
            cpu_user_us: Some(random.below(1_000_000)),
            cpu_system_us: Some(random.below(100_000)),
            memory_usage_bytes: Some(random.below(1 << 33) & !4095),
            memory_swap_bytes: Some(0),
            disk_read_bytes: Some(random.below(1 << 24) & !511),
            disk_write_bytes: Some(random.below(1 << 24) & !511),
            thread_count: Some(1 + slot % 40),
            file_descriptor_count: Some(3 + slot % 100),
            paging_faults_minor: Some(random.below(10_000)),
            paging_faults_major: Some(0),
            context_switches_voluntary: Some(random.below(5000)),
            context_switches_involuntary: Some(random.below(500)),
            ..ProcessSample::default()
        });
    }
}

/// Every agent sends its requests, one in flight each.
async fn send_all(agents: &mut Vec<SimulatedAgent>, work: &Round) -> Result<Duration> {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for (mut agent, bodies) in agents.drain(..).zip(work.bodies.clone()) {
        tasks.spawn(async move {
            for body in bodies {
                agent.post(body).await?;
            }
            anyhow::Ok(agent)
        });
    }
    while let Some(agent) = tasks.join_next().await {
        agents.push(agent??);
    }
    Ok(started.elapsed())
}

async fn copy_raw(connection: &mut PgConnection, work: &Round) -> Result<Duration> {
    let started = Instant::now();
    let mut transaction = connection.begin().await?;
    for (series, rows) in SERIES.iter().zip(&work.raw) {
        let mut copy = transaction.copy_in_raw(series.copy).await?;
        for piece in rows.chunks(COPY_PIECE) {
            copy.send(piece).await?;
        }
        copy.finish().await?;
    }
    transaction.commit().await?;
    Ok(started.elapsed())
}

/// Deletes every row but keeps the chunks.
async fn empty(connection: &mut PgConnection) -> Result<()> {
    let dialect = Dialect::detect(connection).await?;
    for series in &SERIES {
        for partition in dialect.list_partitions(connection, series).await? {
            let statement = format!("truncate {}", partition.table);
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
        }
    }
    sqlx::raw_sql("checkpoint").execute(connection).await?;
    Ok(())
}

async fn row_count(connection: &mut PgConnection) -> Result<u64> {
    let mut rows = 0;
    for series in &SERIES {
        let query = format!("select count(*) from {}", series.name);
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut *connection).await?;
        rows += count.cast_unsigned();
    }
    Ok(rows)
}

async fn process_bytes_per_row(connection: &mut PgConnection) -> Result<f64> {
    let dialect = Dialect::detect(connection).await?;
    let mut bytes = 0;
    for partition in dialect.list_partitions(connection, &SERIES[0]).await? {
        bytes += sqlx::query_scalar::<_, i64>("select pg_total_relation_size($1::regclass)")
            .bind(partition.table)
            .fetch_one(&mut *connection)
            .await?;
    }
    let rows: i64 =
        sqlx::query_scalar("select count(*) from process_samples").fetch_one(connection).await?;
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    Ok(bytes as f64 / rows as f64)
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no round was measured")
}
