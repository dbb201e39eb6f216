//! `insert_reports`: one transaction that stores a group of requests, exactly once.
//!
//! Order within the transaction, the same in every replica so that transactions wait for each other
//! in one direction only: cursors (sorted), decision, rejects, marks of late buckets (appended),
//! dictionaries (sorted), series (fixed order), cursors moved, heartbeats (sorted), commit. Nothing is stored of a record whose cursor did
//! not move in the same transaction, and the other way round: that is the whole of exactly-once.
//!
//! The group's own clock is the database's (`now()`), so replicas with wrong clocks do no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use shared_model::{ProblemCode, RejectedReport, Timestamp, limits};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::clones::{self, Claim, Holder};
use super::copy::copy_in;
use super::cursors::{self, Cursor, Decision, LockedCursor, Window};
use super::dialect::Dialect;
use super::dictionaries::{Collisions, Dictionaries};
use super::records::{Content, PreparedRecord, PreparedReport, RecordBatch, Rejection};
use super::rollups::LateBuckets;
use super::series::SERIES;
use super::{Store, StoreError, nodelay};

/// Most bytes of a rejected record that are kept.
const MAX_REJECT_BODY_BYTES: usize = 64 << 10;

/// Bodies of rejected records kept per host, the newest, and their bytes.
const MAX_REJECT_BODIES: i64 = 100;
const MAX_REJECT_BODIES_BYTES: i64 = 1 << 20;

/// Some consecutive records of one request.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    /// The request.
    pub batch: &'a RecordBatch,
    /// Which of its records.
    pub records: Range<usize>,
}

impl Unit<'_> {
    fn records(&self) -> &[PreparedRecord] {
        &self.batch.records[self.records.clone()]
    }
}

/// What became of a unit, committed.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every record is decided for good.
    Moved(Moved),
    /// Nothing stored: records are missing after this sequence.
    Gap(u64),
    /// Nothing stored: another writer used this stream; the cursor stands at this sequence.
    Fork(u64),
    /// Nothing stored: another machine spoke with this identity a moment ago.
    Wait(Duration),
    /// Nothing stored: another machine holds this identity.
    Clone,
}

/// A cursor that stands at or after the unit's last record.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Where it stands.
    pub acknowledged_sequence: u64,
    /// Records stored now, gaps included.
    pub accepted: u32,
    /// Records stored before.
    pub duplicates: u32,
    /// Records passed over now.
    pub rejected: Vec<RejectedReport>,
    /// The database's clock.
    pub server_time: Timestamp,
}

/// A committed group.
#[derive(Debug)]
pub struct Inserted {
    /// One per unit, in order.
    pub outcomes: Vec<Outcome>,
    /// Rows stored, per [`SERIES`].
    pub rows: [u64; SERIES.len()],
    /// Dictionary entries that collided.
    pub collisions: Collisions,
    /// Hosts that are two machines, as was proven now.
    pub clones: Vec<Uuid>,
    /// Bodies of older rejects dropped.
    pub reject_bodies_dropped: u64,
}

/// A long-lived connection that inserts reports.
#[derive(Debug)]
pub struct ReportConnection {
    connection: PgConnection,
    dialect: Dialect,
}

impl Store {
    /// A connection of its own, outside the pool, with the limits a writer needs.
    pub async fn report_connection(&self) -> Result<ReportConnection, StoreError> {
        let options = self
            .pool
            .connect_options()
            .as_ref()
            .clone()
            .application_name("procfleet-writer")
            .options([
                ("statement_timeout", "30s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "60s"),
            ]);
        let mut connection = PgConnection::connect_with(&options)
            .await
            .map_err(StoreError::of("report_connection.connect"))?;
        speed_up(&options);
        let dialect = Dialect::detect(&mut connection).await?;
        Ok(ReportConnection { connection, dialect })
    }
}

/// Without it a COPY takes 40 ms longer, which is no reason not to store.
fn speed_up(options: &PgConnectOptions) {
    if options.get_socket().is_some() || options.get_host().starts_with('/') {
        return;
    }
    match nodelay::set_for_peers_at(options.get_port()) {
        Ok(found) if found.sockets == 0 => tracing::warn!(
            "no socket to the database found; each COPY waits for delayed acknowledgements"
        ),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "TCP_NODELAY not set; each COPY waits for delayed acknowledgements");
        }
    }
}

impl ReportConnection {
    /// Stores the units in one transaction. On an error nothing of them is stored, except that an
    /// error of the step `insert_reports.commit` leaves it unknown.
    pub async fn insert_reports(&mut self, units: &[Unit<'_>]) -> Result<Inserted, StoreError> {
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("insert_reports.begin"))?;
        let inserted = insert(&mut transaction, units).await?;
        transaction.commit().await.map_err(StoreError::of("insert_reports.commit"))?;
        Ok(inserted)
    }

    /// Makes the partitions that the units' reports need.
    pub async fn ensure_partitions(&mut self, units: &[Unit<'_>]) -> Result<(), StoreError> {
        let times =
            units.iter().flat_map(Unit::records).filter_map(|record| match &record.content {
                Content::Report(report) => Some(report.sampled_at),
                _ => None,
            });
        self.dialect.ensure_times(&mut self.connection, times).await
    }

    /// Says goodbye to the database.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "closing a writer connection failed");
        }
    }
}

/// What the decision leaves to store.
#[derive(Default)]
struct Accepted<'a> {
    dictionaries: Dictionaries<'a>,
    stored: Vec<(&'a PreparedReport, i32)>,
    rejects: Vec<Reject<'a>>,
    late: LateBuckets,
}

/// A row of `ingest_rejects`.
struct Reject<'a> {
    batch: &'a RecordBatch,
    record: &'a PreparedRecord,
    /// The record's own, or after the cursor for a gap that straddles it.
    first_sequence: u64,
    code: String,
    detail: String,
}

async fn insert(connection: &mut PgConnection, units: &[Unit<'_>]) -> Result<Inserted, StoreError> {
    let streams: BTreeSet<(Uuid, Uuid)> =
        units.iter().map(|unit| (unit.batch.host_id, unit.batch.stream_id)).collect();
    let (hosts, ids): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let mut locked = cursors::lock(connection, &hosts, &ids).await?;
    let mut holders = lock_holders(connection, units).await?;
    let mut accepted = Accepted::default();
    let outcomes = units
        .iter()
        .map(|unit| {
            let stream = (unit.batch.host_id, unit.batch.stream_id);
            // Sorted by the database as by Rust: uuids compare bytewise in both.
            let found = locked.cursors.binary_search_by_key(&stream, |c| (c.host_id, c.stream_id));
            // Never without its cursor: what is stored and moves none would be stored again.
            let index = found.map_err(|_| {
                StoreError::of("insert_reports.lock_cursors")(sqlx::Error::RowNotFound)
            })?;
            let mut alone = Holder::default();
            let holder = holders.get_mut(&unit.batch.host_id).unwrap_or(&mut alone);
            Ok(accepted.decide(unit, &mut locked.cursors[index], holder, locked.window))
        })
        .collect::<Result<Vec<Outcome>, StoreError>>()?;
    let reject_bodies_dropped = save_rejects(connection, &accepted.rejects).await?;
    accepted.late.mark(connection).await?;
    let collisions = accepted.dictionaries.save_definitions(connection).await?;
    let rows = copy_series(connection, &accepted.stored).await?;
    let moved: Vec<&LockedCursor> = locked.cursors.iter().collect();
    cursors::save(connection, &moved).await?;
    accepted.dictionaries.save_hosts(connection).await?;
    let clones = clones::save(connection, &holders).await?;
    Ok(Inserted { outcomes, rows, collisions, clones, reject_bodies_dropped })
}

/// Those of the hosts whose agents say where they run.
async fn lock_holders(
    connection: &mut PgConnection,
    units: &[Unit<'_>],
) -> Result<BTreeMap<Uuid, Holder>, StoreError> {
    let named = units.iter().filter(|unit| unit.batch.place.is_some());
    let hosts: BTreeSet<Uuid> = named.map(|unit| unit.batch.host_id).collect();
    if hosts.is_empty() {
        return Ok(BTreeMap::new());
    }
    clones::lock(connection, &hosts.into_iter().collect::<Vec<_>>()).await
}

impl<'a> Accepted<'a> {
    fn decide(
        &mut self,
        unit: &Unit<'a>,
        locked: &mut LockedCursor,
        holder: &mut Holder,
        window: Window,
    ) -> Outcome {
        let (batch, cursor) = (unit.batch, &mut locked.cursor);
        match holder.claim(batch.place) {
            Claim::Holds => {}
            Claim::Wait(left) => return Outcome::Wait(left),
            Claim::Clone => return Outcome::Clone,
        }
        let records = &batch.records[unit.records.clone()];
        let new_from = match cursor.decide(records) {
            Decision::Gap => return Outcome::Gap(cursor.last_sequence),
            Decision::Fork => return Outcome::Fork(cursor.last_sequence),
            Decision::NewFrom(index) => index,
        };
        self.dictionaries.heard(batch.host_id, batch.place);
        let (mut stored, mut rejected) = (0, Vec::new());
        for record in &records[new_from..] {
            let first_sequence = record.first_sequence.max(cursor.last_sequence + 1);
            let reject = |code, detail| Reject { batch, record, first_sequence, code, detail };
            match verdict(record, locked.host_number, window) {
                Ok(host_number) => {
                    stored += 1;
                    match &record.content {
                        Content::Report(report) => {
                            self.dictionaries.add(batch.host_id, report);
                            if report.sampled_at <= window.horizon {
                                self.late.add(batch.host_id, report.sampled_at);
                            }
                            self.stored.push((report, host_number));
                        }
                        Content::Gap(reason) => {
                            self.rejects
                                .push(reject(gap_code(*reason), "declared by the agent".into()));
                        }
                        Content::Reject(_) => {}
                    }
                }
                Err(rejection) => {
                    self.rejects.push(reject(rejection.code.as_str(), rejection.detail.clone()));
                    rejected.push(RejectedReport {
                        sequence: record.sequence,
                        code: rejection.code,
                        detail: rejection.detail,
                        errors: rejection.errors,
                    });
                }
            }
            *cursor = Cursor { last_sequence: record.sequence, last_digest: record.digest() };
        }
        if new_from < records.len() && batch.place.is_some() {
            holder.stored();
        }
        Outcome::Moved(Moved {
            acknowledged_sequence: cursor.last_sequence,
            accepted: stored,
            duplicates: u32::try_from(new_from).unwrap_or(u32::MAX),
            rejected,
            server_time: window.now,
        })
    }
}

/// Whether a new record is stored, and under which number of its host. Time is checked here because
/// the floor and the clock are the database's.
fn verdict(
    record: &PreparedRecord,
    host_number: Option<i32>,
    window: Window,
) -> Result<i32, Rejection> {
    let Window { now, raw_floor: floor, .. } = window;
    let Some(host_number) = host_number else {
        let detail = "the host was removed while its report was under way".into();
        return Err(Rejection { code: ProblemCode::HostUnknown, detail, errors: Vec::new() });
    };
    let (code, detail) = match &record.content {
        Content::Reject(rejection) => return Err(rejection.clone()),
        Content::Report(report) if report.sampled_at > now + limits::MAX_FUTURE => (
            ProblemCode::TimestampInFuture,
            format!(
                "sampled_at {} is ahead of the server's clock {now}; set the host's clock",
                report.sampled_at
            ),
        ),
        Content::Report(report) if report.sampled_at < floor => (
            ProblemCode::TimestampTooOld,
            format!(
                "sampled_at {} is older than what the server keeps, {floor}",
                report.sampled_at
            ),
        ),
        Content::Report(_) | Content::Gap(_) => return Ok(host_number),
    };
    let errors =
        vec![shared_model::FieldError { field: "sampled_at".into(), detail: detail.clone() }];
    Err(Rejection { code, detail, errors })
}

fn gap_code(reason: shared_model::GapReason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(reason)) => format!("gap_{reason}"),
        _ => "gap".into(),
    }
}

/// Returns how many older bodies gave way.
async fn save_rejects(
    connection: &mut PgConnection,
    rejects: &[Reject<'_>],
) -> Result<u64, StoreError> {
    if rejects.is_empty() {
        return Ok(0);
    }
    let hosts: Vec<_> = rejects.iter().map(|r| r.batch.host_id).collect();
    let streams: Vec<_> = rejects.iter().map(|r| r.batch.stream_id).collect();
    let firsts: Vec<_> = rejects.iter().map(|r| r.first_sequence.cast_signed()).collect();
    let lasts: Vec<_> = rejects.iter().map(|r| r.record.sequence.cast_signed()).collect();
    let codes: Vec<_> = rejects.iter().map(|r| r.code.as_str()).collect();
    // Details may quote the record, where NUL is possible; PostgreSQL text cannot hold it.
    let details: Vec<_> = rejects.iter().map(|r| r.detail.replace('\0', "\u{fffd}")).collect();
    let digests: Vec<_> = rejects.iter().map(|r| r.record.sha256.as_slice()).collect();
    let bodies: Vec<_> = rejects
        .iter()
        .map(|r| match r.record.content {
            Content::Gap(_) => None,
            _ => Some(&r.record.line[..r.record.line.len().min(MAX_REJECT_BODY_BYTES)]),
        })
        .collect();
    sqlx::query!(
        "/* store::reports::save_rejects */
        insert into ingest_rejects
            (host_id, stream_id, first_sequence, sequence, code, detail, body_sha256, body)
        select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[],
            $6::text[], $7::bytea[], $8::bytea[]) as t (host_id, stream_id, first_sequence, sequence)
        order by host_id, stream_id, sequence
        on conflict do nothing",
        &hosts,
        &streams,
        &firsts,
        &lasts,
        &codes as _,
        &details as _,
        &digests as _,
        &bodies as _
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::of("insert_reports.save_rejects"))?;
    drop_old_bodies(connection, &hosts).await
}

/// Keeps the bodies of `hosts`' rejects within their bound, the newest. That a record was rejected, why,
/// and its digest stay.
async fn drop_old_bodies(connection: &mut PgConnection, hosts: &[Uuid]) -> Result<u64, StoreError> {
    let dropped = sqlx::query!(
        "/* store::reports::drop_old_bodies */
        update ingest_rejects as r set body = null
        from (
            select host_id, stream_id, sequence,
                row_number() over newest as place, sum(length(body)) over newest as bytes
            from ingest_rejects where body is not null and host_id = any($1)
            window newest as (partition by host_id order by received_at desc, stream_id, sequence desc)
        ) as kept
        where (kept.place > $2 or kept.bytes > $3) and r.host_id = kept.host_id
            and r.stream_id = kept.stream_id and r.sequence = kept.sequence",
        hosts,
        MAX_REJECT_BODIES,
        MAX_REJECT_BODIES_BYTES
    )
    .execute(connection)
    .await
    .map_err(StoreError::of("insert_reports.drop_old_bodies"))?;
    Ok(dropped.rows_affected())
}

/// Copies the rows of all series. Returns the rows stored per series.
async fn copy_series(
    connection: &mut PgConnection,
    stored: &[(&PreparedReport, i32)],
) -> Result<[u64; SERIES.len()], StoreError> {
    let mut counts = [0; SERIES.len()];
    for (index, series) in SERIES.iter().enumerate() {
        let parts = || {
            let rows = stored.iter().map(|(report, number)| (&report.rows[index], *number));
            rows.filter(|(rows, _)| rows.count > 0)
        };
        if parts().next().is_some() {
            counts[index] = copy_in(connection, series.copy, parts())
                .await
                .map_err(StoreError::of("insert_reports.copy"))?;
        }
    }
    Ok(counts)
}
