//! `fleet-sim bench-query`: how long operators' questions take over a month of a fleet.
//!
//! The history is generated straight into the tables (`bench_query/fill.sql` says exactly what): the
//! roll-ups of an hour over all days, those of 5 minutes and the samples as far back as the arguments
//! say, because a month of samples does not fit here. No question asked below reads samples older than
//! that, except for the first minutes of its window; the empty chunks of the other days are made, so
//! that planning has to look past them.
//!
//! Questions are asked as the server asks them (the same pool, transaction and limits), of a different
//! host each time, after three that are not counted. What a question read is counted once more in a
//! transaction of its own: chunks touched, of all that there are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use collector_api::store::coverage::Reading;
use collector_api::store::question::Class;
use collector_api::store::samples::Window;
use collector_api::store::usage::{Resource, Subject, Top};
use collector_api::store::{Store, migrate};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

mod panels;

/// What is generated.
const FILL: &str = include_str!("bench_query/fill.sql");
/// Questions asked before the clock starts.
const WARM_UP: u32 = 3;

/// What to generate and to measure.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// An empty database that the benchmark may migrate and fill.
    #[arg(long, env = "PROCFLEET_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Hosts.
    #[arg(long, default_value_t = 200)]
    hosts: u32,
    /// Days of roll-ups of an hour.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// Days of roll-ups of 5 minutes.
    #[arg(long, default_value_t = 2)]
    fine_days: u32,
    /// Hours of samples.
    #[arg(long, default_value_t = 6)]
    raw_hours: u32,
    /// Distinct command lines.
    #[arg(long, default_value_t = 100_000)]
    commands: u32,
    /// Questions of each kind.
    #[arg(long, default_value_t = 30)]
    rounds: u32,
    /// Longest that filling may take, s.
    #[arg(long, default_value_t = 900)]
    fill_limit_s: u64,
}

/// A kind of question.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    target_ms: Option<f64>,
    /// Asks it once, of the host of this round.
    asked: Asked,
}

#[derive(Clone, Copy)]
enum Asked {
    /// Top 20 over so many hours, of the round's host or of the fleet.
    Top { fleet: bool, hours: i64, subject: Subject },
    /// The host's top with its totals and coverage, as REST answers it.
    Answer { hours: i64 },
    /// Command lines that contain what this makes of the round.
    Search(fn(u32) -> String),
    /// 15 minutes against 15 minutes an hour earlier.
    Compare,
}

const KINDS: [Kind; 12] = [
    kind("top 20 of a host, 24 h", Some(50.0), top(false, 24, Subject::Instance)),
    kind("top 20 of a host, all days", Some(200.0), top(false, 0, Subject::Instance)),
    kind("the same as REST answers it, 24 h", None, Asked::Answer { hours: 24 }),
    kind("the same as REST answers it, all days", None, Asked::Answer { hours: 0 }),
    kind("top 20 of the fleet, 24 h", Some(500.0), top(true, 24, Subject::Instance)),
    kind("top 20 command lines of the fleet, 24 h", Some(500.0), top(true, 24, Subject::Process)),
    kind("top 20 hosts of the fleet, 24 h", Some(500.0), top(true, 24, Subject::Host)),
    kind("top 20 of the fleet, 15 min", None, top(true, -1, Subject::Instance)),
    kind("fleet, against an hour ago", None, Asked::Compare),
    kind(
        "command lines: one of all",
        Some(100.0),
        Asked::Search(|n| format!("--instance={} ", 1 + n * 97)),
    ),
    kind("command lines: one in seven", Some(100.0), Asked::Search(|_| "mysqld".into())),
    kind("command lines: none", Some(100.0), Asked::Search(|n| format!("no such command {n}"))),
];

const fn kind(name: &'static str, target_ms: Option<f64>, asked: Asked) -> Kind {
    Kind { name, target_ms, asked }
}

const fn top(fleet: bool, hours: i64, subject: Subject) -> Asked {
    Asked::Top { fleet, hours, subject }
}

/// Fills, asks, prints a Markdown table.
pub async fn run(arguments: Arguments) -> Result<()> {
    let mut connection = PgConnection::connect(&arguments.database_url).await?;
    migrate::migrate(&mut connection).await.context("migrate")?;
    let (now, filled) = fill(&mut connection, &arguments).await?;
    describe(&mut connection, &arguments, filled).await?;
    let store = Store::connect_reader(&arguments.database_url, 2)?;
    println!("| question | median ms | p95 ms | target ms | chunks read |");
    println!("|---|--:|--:|--:|--:|");
    for kind in KINDS {
        let mut times = Vec::new();
        for round in 0..arguments.rounds + WARM_UP {
            let began = Instant::now();
            ask(&store, kind.asked, now, &arguments, round).await?;
            if round >= WARM_UP {
                times.push(began.elapsed());
            }
        }
        times.sort_unstable();
        let chunks = touched(&mut connection, kind.asked, now, &arguments).await?;
        println!(
            "| {} | {:.1} | {:.1} | {} | {chunks} |",
            kind.name,
            percentile(&times, 50),
            percentile(&times, 95),
            kind.target_ms.map_or_else(|| "–".into(), |target| format!("< {target}")),
        );
    }
    panels::run(&mut connection, now, &arguments).await
}

/// Makes the history. Returns its end, and how long it took.
async fn fill(
    connection: &mut PgConnection,
    arguments: &Arguments,
) -> Result<(OffsetDateTime, Duration)> {
    let now: OffsetDateTime = sqlx::query_scalar("select date_trunc('second', now())")
        .fetch_one(&mut *connection)
        .await?;
    let seconds = now.unix_timestamp();
    let instant = |width: i64| stamp(seconds - seconds.rem_euclid(width));
    let text = [
        ("{now}", stamp(seconds)),
        ("{fine}", instant(300)),
        ("{hour}", instant(3600)),
        ("{hosts}", arguments.hosts.to_string()),
        ("{days}", arguments.days.to_string()),
        ("{fine_days}", arguments.fine_days.to_string()),
        ("{raw_hours}", arguments.raw_hours.to_string()),
        ("{commands}", arguments.commands.to_string()),
    ]
    .into_iter()
    .fold(FILL.to_owned(), |text, (name, value)| text.replace(name, &value));
    let began = Instant::now();
    for statement in text.split("--;\n").skip(1) {
        let what = statement.lines().find(|line| line.starts_with("-- ")).unwrap_or("--");
        let left = Duration::from_secs(arguments.fill_limit_s).saturating_sub(began.elapsed());
        ensure!(!left.is_zero(), "filling takes longer than {} s", arguments.fill_limit_s);
        let limit = format!(
            "set synchronous_commit = off; set timezone = 'UTC'; set work_mem = '256MB'; \
            set maintenance_work_mem = '512MB'; set jit = off; set statement_timeout = {}",
            left.as_millis().max(1)
        );
        let started = Instant::now();
        for text in [limit.as_str(), statement] {
            sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
                .execute(&mut *connection)
                .await
                .with_context(|| format!("fill: {what}"))?;
        }
        eprintln!("{what}: {:.1} s", started.elapsed().as_secs_f64());
    }
    for statement in ["reset all", "vacuum analyze", "checkpoint"] {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    Ok((now, began.elapsed()))
}

fn stamp(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| String::new(),
        |at| at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
    )
}

/// Says what is there.
async fn describe(
    connection: &mut PgConnection,
    arguments: &Arguments,
    filled: Duration,
) -> Result<()> {
    println!(
        "{} hosts, 40 kept instances each, {} command lines, generated in {:.0} s:\n",
        arguments.hosts,
        arguments.commands,
        filled.as_secs_f64()
    );
    println!("| table | reaches back | rows |\n|---|--:|--:|");
    for (table, reach) in [
        ("process_rollup_1h", format!("{} d", arguments.days)),
        ("process_rollup_5m", format!("{} d", arguments.fine_days)),
        ("process_samples", format!("{} h", arguments.raw_hours)),
        ("process_instances", format!("{} d", arguments.days)),
        ("processes", "–".into()),
    ] {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&mut *connection)
            .await?;
        println!("| {table} | {reach} | {count} |");
    }
    let size: String = sqlx::query_scalar(
        "select pg_size_pretty(pg_database_size(current_database())) || ', shared_buffers ' || current_setting('shared_buffers')",
    )
    .fetch_one(connection)
    .await?;
    println!("\nDatabase {size}.\n");
    Ok(())
}

fn window(now: OffsetDateTime, hours: i64, arguments: &Arguments) -> Window {
    let length = match hours {
        -1 => time::Duration::minutes(15),
        0 => time::Duration::days(i64::from(arguments.days)),
        hours => time::Duration::hours(hours),
    };
    Window { from: now - length, to: now }
}

async fn ask(
    store: &Store,
    asked: Asked,
    now: OffsetDateTime,
    arguments: &Arguments,
    round: u32,
) -> Result<()> {
    let host = [Uuid::from_u128(u128::from(1 + round * 37 % arguments.hosts))];
    match asked {
        Asked::Top { fleet, hours, subject } => {
            let class = if fleet { Class::Fleet } else { Class::Window };
            let mut question = store.question(class).await?;
            let hosts = (!fleet).then_some(host.as_slice());
            let window = window(now, hours, arguments);
            let top = Top { hosts, window, resource: Resource::Cpu, subject, limit: 20, skip: 0 };
            ensure!(question.top(top).await?.len() >= 20, "the top is empty");
            question.answered().await?;
        }
        Asked::Answer { hours } => {
            let window = window(now, hours, arguments);
            let mut question = store.question(Class::Window).await?;
            let (hosts, subject) = (Some(host.as_slice()), Subject::Instance);
            let top = Top { hosts, window, resource: Resource::Cpu, subject, limit: 20, skip: 0 };
            question.top(top).await?;
            question.host_totals(host[0], window).await?;
            question.coverage(Some(&host), window, Reading::Sums).await?;
            question.answered().await?;
        }
        Asked::Search(text) => {
            store.search_processes(&[text(round).as_str()], None, 21, 10).await?;
        }
        Asked::Compare => {
            let window = window(now, -1, arguments);
            let base = Window {
                from: window.from - time::Duration::HOUR,
                to: window.to - time::Duration::HOUR,
            };
            let mut question = store.question(Class::Fleet).await?;
            question.compare(None, [window, base], Resource::Cpu, 20).await?;
            question.answered().await?;
        }
    }
    Ok(())
}

/// Chunks or partitions that a question reads, of all there are, by the database's own count within
/// one transaction.
async fn touched(
    connection: &mut PgConnection,
    asked: Asked,
    now: OffsetDateTime,
    arguments: &Arguments,
) -> Result<String> {
    let Asked::Top { fleet, hours, subject } = asked else { return Ok("–".into()) };
    let window = window(now, hours, arguments);
    // What this session counted before is not counted again.
    sqlx::raw_sql("select pg_stat_force_next_flush()").execute(&mut *connection).await?;
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("set local max_parallel_workers_per_gather = 0")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("select count(*) from procfleet_top($1, $2, $3, 'cpu', $4)")
        .bind((!fleet).then(|| vec![Uuid::from_u128(1)]))
        .bind(window.from)
        .bind(window.to)
        .bind(subject.as_str())
        .execute(&mut *transaction)
        .await?;
    let (read, all): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0), count(*)
        from pg_stat_xact_user_tables where relname like '%\\_chunk' or relname ~ '_p\\d{8}t\\d{6}$'",
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.rollback().await?;
    Ok(format!("{read} of {all}"))
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
