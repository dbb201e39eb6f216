//! What the database must hold, derived again from the records that were sent, and compared row by row.
//!
//! The words are the same in the protocol, in SQL and in JSON, so a stored row as JSON must equal the
//! sample as JSON: nothing here lists columns, and a column that is not stored cannot be forgotten here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use shared_model::{CollectorOutcome, ProblemCode, Record, Report, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// Differences shown of each table.
const MAX_DIFFERENCES: usize = 5;
/// Tables with one row per sample.
const SERIES: [&str; 7] = [
    "process_samples",
    "host_samples",
    "filesystem_samples",
    "block_device_samples",
    "network_interface_samples",
    "connection_samples",
    "process_exits",
];

/// What was compared, for a test to see that it was not nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Reports.
    pub reports: usize,
    /// Gaps.
    pub gaps: usize,
    /// Rows of all series.
    pub rows: usize,
}

/// How often each row, as canonical JSON, occurs.
type Rows = BTreeMap<String, usize>;

/// Checks that the database holds exactly `records`, the whole stream of one host: every sequence
/// once, every column of every row, the dictionaries, and nothing else of that host.
pub async fn compare(connection: &mut PgConnection, records: &[Record]) -> Result<Compared> {
    compare_with(connection, records, &BTreeSet::new()).await
}

/// The same, where the reports with the sequences `ahead` were sampled by a clock so far ahead that they
/// are rejects.
pub async fn compare_with(
    connection: &mut PgConnection,
    records: &[Record],
    ahead: &BTreeSet<u64>,
) -> Result<Compared> {
    let first = records.first().context("nothing to compare")?.head();
    let host_id = first.host_id;
    let last_sequence = check_contiguous(records)?;
    let cursors: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "select stream_id, last_sequence, last_digest from ingest_cursors where host_id = $1",
    )
    .bind(host_id)
    .fetch_all(&mut *connection)
    .await?;
    let digest = records.last().map(digest).context("nothing to compare")?;
    let expected = (first.stream_id, i64::try_from(last_sequence)?, digest);
    check_equal("cursors", &cursors, &vec![expected])?;

    let gaps = check_rejects(connection, host_id, records, ahead).await?;
    let reports: Vec<&Report> = records
        .iter()
        .filter_map(|record| match record {
            Record::Report(report) if !ahead.contains(&report.sequence) => Some(report.as_ref()),
            Record::Report(_) | Record::Gap(_) => None,
        })
        .collect();
    let mut compared = Compared { reports: reports.len(), gaps, rows: 0 };
    for table in SERIES {
        let query = format!("select to_jsonb(t) from {} t where host_id = $1", reader(table));
        let stored = rows(connection, query, host_id).await?;
        let mut expected = Rows::new();
        for report in &reports {
            for row in expected_rows(table, report)? {
                *expected.entry(row).or_default() += 1;
            }
        }
        check_rows(table, &expected, &stored)?;
        compared.rows += expected.values().sum::<usize>();
    }
    check_dictionaries(connection, host_id, &reports).await?;
    Ok(compared)
}

/// What a series is read through.
pub(crate) fn reader(table: &str) -> &str {
    if table == "process_samples" { "procfleet_process_samples" } else { table }
}

/// First 8 bytes of the SHA-256 of the record's line, as the cursor keeps them.
fn digest(record: &Record) -> i64 {
    let hash = Sha256::digest(record.encode().trim_ascii_end());
    hash.iter().take(8).fold(0, |digest, byte| digest << 8 | i64::from(*byte))
}

fn check_contiguous(records: &[Record]) -> Result<u64> {
    let mut last = 0;
    for record in records {
        let head = record.head();
        if head.first_sequence != last + 1 {
            bail!("the oracle itself has a hole: {last} is followed by {}", head.first_sequence);
        }
        last = head.sequence;
    }
    Ok(last)
}

async fn check_rejects(
    connection: &mut PgConnection,
    host_id: Uuid,
    records: &[Record],
    ahead: &BTreeSet<u64>,
) -> Result<usize> {
    let stored: Vec<(i64, i64, String)> = sqlx::query_as(
        "select first_sequence, sequence, code from ingest_rejects where host_id = $1 order by 1",
    )
    .bind(host_id)
    .fetch_all(&mut *connection)
    .await?;
    let mut expected = Vec::new();
    for record in records {
        if let Record::Gap(gap) = record {
            let reason = serde_json::to_value(gap.reason)?;
            let code = format!("gap_{}", reason.as_str().context("a reason is a word")?);
            expected.push((i64::try_from(gap.first_sequence)?, i64::try_from(gap.sequence)?, code));
        }
        let sequence = record.head().sequence;
        if ahead.contains(&sequence) {
            let sequence = i64::try_from(sequence)?;
            expected.push((sequence, sequence, ProblemCode::TimestampInFuture.as_str()));
        }
    }
    check_equal("gaps and rejects", &stored, &expected)?;
    Ok(expected.len() - ahead.len())
}

fn expected_rows(table: &str, report: &Report) -> Result<Vec<String>> {
    let interval = json!({ "interval_ms": report.interval_ms });
    Ok(match table {
        "process_samples" => sample_rows(report, &report.processes, &interval)?,
        "host_samples" => sample_rows(report, &[&report.host], &host_columns(report)?)?,
        "filesystem_samples" => sample_rows(report, &report.filesystems, &json!({}))?,
        "block_device_samples" => sample_rows(report, &report.block_devices, &interval)?,
        "network_interface_samples" => sample_rows(report, &report.network_interfaces, &interval)?,
        "connection_samples" => sample_rows(report, &report.connections, &interval)?,
        "process_exits" => exit_rows(report, &interval)?,
        other => bail!("{other} is not a series"),
    })
}

/// The totals of an exit, or of a fold, beside its other columns.
fn exit_rows(report: &Report, interval: &Value) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for exit in &report.exits {
        let mut row = flat(exit)?;
        let failed = exit.exit_signal.is_some() || exit.exit_code != Some(0);
        let known = exit.exit_signal.is_some() || exit.exit_code.is_some();
        row["exit_time"] = json!(micros(exit.exit_time)?);
        row["process_id"] = json!(exit.process_id.0);
        row["failed_count"] = known.then_some(u32::from(failed)).into();
        rows.push(row);
    }
    for fold in &report.exit_folds {
        let mut row = flat(fold)?;
        row["process_id"] = json!(fold.process_id.map(|process| process.0));
        rows.push(row);
    }
    sample_rows(report, &rows, interval)
}

fn flat(of: &impl serde::Serialize) -> Result<Value> {
    let mut row = serde_json::to_value(of)?;
    let columns = row.as_object_mut().context("an exit is an object")?;
    let totals = columns.remove("totals").context("an exit has totals")?;
    columns.extend(totals.as_object().context("totals are an object")?.clone());
    Ok(row)
}

/// What a host's row holds besides the sample: the interval, and the agent's own numbers.
fn host_columns(report: &Report) -> Result<Value> {
    let agent = &report.agent;
    let troubled: Vec<_> = agent
        .collectors
        .iter()
        .filter(|run| !matches!(run.outcome, CollectorOutcome::Ok | CollectorOutcome::NoData))
        .collect();
    let mut columns = json!({
        "interval_ms": report.interval_ms,
        "agent_cpu_us": agent.cpu_us,
        "agent_memory_usage_bytes": agent.memory_usage_bytes,
        "agent_spool_reports": agent.spool_reports,
        "agent_spool_bytes": agent.spool_bytes,
    });
    if !agent.losses.is_empty() {
        columns["agent_losses"] = serde_json::to_value(&agent.losses)?;
    }
    if !troubled.is_empty() {
        columns["agent_collectors"] = serde_json::to_value(troubled)?;
    }
    Ok(columns)
}

fn sample_rows<S: Serialize>(
    report: &Report,
    samples: &[S],
    columns: &Value,
) -> Result<Vec<String>> {
    samples
        .iter()
        .map(|sample| {
            let mut row = serde_json::to_value(sample)?;
            let object = row.as_object_mut().context("a sample is an object")?;
            object.extend(columns.as_object().cloned().unwrap_or_default());
            object.insert("host_id".into(), json!(report.host_id));
            object.insert("sampled_at".into(), json!(micros(report.sampled_at)?));
            canonical(row)
        })
        .collect()
}

async fn check_dictionaries(
    connection: &mut PgConnection,
    host_id: Uuid,
    reports: &[&Report],
) -> Result<()> {
    let mut instances = BTreeMap::new();
    let mut processes = BTreeMap::new();
    for report in reports {
        for definition in &report.instance_definitions {
            let mut row = serde_json::to_value(definition)?;
            row["process_id"] = json!(definition.process_id.0);
            row["creation_time"] = json!(micros(definition.creation_time)?);
            row["boot_id"] = json!(report.boot_id);
            row["host_id"] = json!(host_id);
            // The newest description is the one that counts, whatever came first.
            let described_at = micros(report.sampled_at)?;
            row["described_at"] = json!(described_at);
            let known =
                instances.entry(definition.instance_id).or_insert((i64::MIN, String::new()));
            if known.0 <= described_at {
                *known = (described_at, canonical(row)?);
            }
        }
        for definition in &report.process_definitions {
            processes.insert(definition.process_id, definition.command_line.clone());
        }
    }
    let query = "select to_jsonb(t) from process_instances t where host_id = $1";
    let stored = rows(connection, query.into(), host_id).await?;
    let expected = instances.into_values().map(|(_, row)| (row, 1)).collect();
    check_rows("process_instances", &expected, &stored)?;

    for (process_id, command_line) in processes {
        let stored: Option<String> =
            sqlx::query_scalar("select command_line from processes where process_id = $1")
                .bind(process_id.0)
                .fetch_optional(&mut *connection)
                .await?;
        check_equal("command line", &stored, &Some(command_line))?;
    }
    Ok(())
}

async fn rows(connection: &mut PgConnection, query: String, host_id: Uuid) -> Result<Rows> {
    let stored: Vec<Value> =
        sqlx::query_scalar(AssertSqlSafe(query)).bind(host_id).fetch_all(connection).await?;
    let mut rows = Rows::new();
    for mut row in stored {
        for column in ["sampled_at", "creation_time", "described_at", "exit_time"] {
            if let Some(text) = row.get(column).and_then(Value::as_str) {
                let format = &time::format_description::well_known::Rfc3339;
                let time = Timestamp::parse(text, format).with_context(|| text.to_owned())?;
                row[column] = json!(micros(time)?);
            }
        }
        *rows.entry(canonical(row)?).or_default() += 1;
    }
    Ok(rows)
}

/// Microseconds since 1970: what a timestamptz holds.
fn micros(time: Timestamp) -> Result<i64> {
    Ok(i64::try_from(time.unix_timestamp_nanos().div_euclid(1000))?)
}

/// Sorted keys, no nulls, and whole numbers as integers however they were written.
fn canonical(row: Value) -> Result<String> {
    fn normal(value: Value) -> Value {
        match value {
            Value::Object(object) => {
                let sorted: BTreeMap<_, _> = object
                    .into_iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| (key, normal(value)))
                    .collect();
                Value::Object(sorted.into_iter().collect::<Map<_, _>>())
            }
            Value::Array(values) => Value::Array(values.into_iter().map(normal).collect()),
            Value::Number(number) => match number.as_f64() {
                #[expect(clippy::cast_possible_truncation, reason = "compared as f64 before")]
                Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                    json!(float as i64)
                }
                _ => Value::Number(number),
            },
            other => other,
        }
    }
    serde_json::to_string(&normal(row)).context("write canonical JSON")
}

fn check_equal<T: PartialEq + Debug>(what: &str, stored: &T, expected: &T) -> Result<()> {
    if stored != expected {
        bail!("{what}: stored {stored:?}, expected {expected:?}");
    }
    Ok(())
}

fn check_rows(table: &str, expected: &Rows, stored: &Rows) -> Result<()> {
    if expected == stored {
        return Ok(());
    }
    let only_in = |some: &Rows, others: &Rows| {
        some.iter()
            .filter(|(row, count)| others.get(*row) != Some(count))
            .map(|(row, count)| format!("{count} × {row}"))
            .take(MAX_DIFFERENCES)
            .collect::<Vec<_>>()
            .join("\n  ")
    };
    let total = |rows: &Rows| rows.values().sum::<usize>();
    bail!(
        "{table}: {} rows stored, {} expected\n only expected:\n  {}\n only stored:\n  {}",
        total(stored),
        total(expected),
        only_in(expected, stored),
        only_in(stored, expected)
    )
}
