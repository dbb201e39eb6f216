//! Where each stream stands, and the one decision that makes delivery exactly-once.

use shared_model::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::records::{Content, PreparedRecord};
use super::{Store, StoreError};

/// Readers of `raw_floor` and of the roll-ups' horizon that are about to insert hold this lock shared
/// until they commit; whoever moves one of these takes it exclusively. So nothing older than a committed floor can
/// still be under way, and all that is under way knows the committed horizon.
pub(super) const FLOOR_LOCK: i64 = 0x7072_6f63_666c_6f6f;

/// Position of a stream, committed. The default is a stream nobody has heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Last sequence decided for good.
    pub last_sequence: u64,
    /// [`PreparedRecord::digest`] of the record at `last_sequence`.
    pub last_digest: i64,
}

/// What to do with consecutive records, given the stream's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Those from this index on are new; those before it were stored earlier.
    NewFrom(usize),
    /// Records are missing between the cursor and the first one.
    Gap,
    /// Another record is stored at the cursor.
    Fork,
}

impl Cursor {
    /// A gap may straddle the cursor, or end at it: the agent gave up reports whose
    /// acknowledgement it never saw. A report in the same place with other bytes means two writers.
    pub fn decide(self, records: &[PreparedRecord]) -> Decision {
        let last = self.last_sequence;
        if records.first().is_none_or(|record| record.first_sequence > last.saturating_add(1)) {
            return Decision::Gap;
        }
        let new_from = records.partition_point(|record| record.sequence <= last);
        let forked = new_from.checked_sub(1).is_some_and(|index| {
            let record = &records[index];
            record.sequence == last
                && record.digest() != self.last_digest
                && !matches!(record.content, Content::Gap(_))
        });
        if forked { Decision::Fork } else { Decision::NewFrom(new_from) }
    }
}

/// Cursor of one stream, locked until the end of the transaction.
pub(super) struct LockedCursor {
    pub(super) host_id: Uuid,
    pub(super) stream_id: Uuid,
    /// None: the host is not there any more.
    pub(super) host_number: Option<i32>,
    pub(super) cursor: Cursor,
}

/// What a transaction knows after locking its cursors.
pub(super) struct Locked {
    pub(super) window: Window,
    pub(super) cursors: Vec<LockedCursor>,
}

/// Where a report's `sampled_at` lies for the transaction that holds [`FLOOR_LOCK`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// The database's clock.
    pub(super) now: Timestamp,
    /// Nothing sampled before this is accepted.
    pub(super) raw_floor: Timestamp,
    /// What is sampled at or before this is late: its roll-ups may have been computed.
    pub(super) horizon: Timestamp,
}

/// Locks the cursors of `streams` (sorted, distinct), making those that are missing.
pub(super) async fn lock(
    connection: &mut PgConnection,
    hosts: &[Uuid],
    streams: &[Uuid],
) -> Result<Locked, StoreError> {
    sqlx::query!(
        "/* store::cursors::lock */
        with floor as materialized (select pg_advisory_xact_lock_shared($1))
        insert into ingest_cursors (host_id, stream_id, last_sequence, last_digest)
        select host_id, stream_id, 0, 0
        from floor, unnest($2::uuid[], $3::uuid[]) as t (host_id, stream_id)
        order by host_id, stream_id
        on conflict do nothing",
        FLOOR_LOCK,
        hosts,
        streams
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::of("insert_reports.make_cursors"))?;
    let rows = sqlx::query!(
        r#"/* store::cursors::lock */
        select c.host_id, c.stream_id, c.last_sequence, c.last_digest, h.host_number as "host_number?", now() as "now!",
            (select max(greatest(raw_floor, coalesce(retention_clock, now()) - retention))
                from series, maintenance_lease where not is_rollup) as "raw_floor!",
            (select horizon from rollup_watermark) as "horizon!"
        from ingest_cursors c left join hosts h on h.host_id = c.host_id
        where (c.host_id, c.stream_id) in (select * from unnest($1::uuid[], $2::uuid[]))
        order by c.host_id, c.stream_id
        for update of c"#,
        hosts,
        streams
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::of("insert_reports.lock_cursors"))?;
    let window = rows
        .first()
        .map(|row| Window { now: row.now, raw_floor: row.raw_floor, horizon: row.horizon })
        .ok_or_else(|| StoreError::of("insert_reports.lock_cursors")(sqlx::Error::RowNotFound))?;
    let cursors = rows
        .into_iter()
        .map(|row| LockedCursor {
            host_id: row.host_id,
            stream_id: row.stream_id,
            host_number: row.host_number,
            cursor: Cursor {
                last_sequence: row.last_sequence.cast_unsigned(),
                last_digest: row.last_digest,
            },
        })
        .collect();
    Ok(Locked { window, cursors })
}

/// Moves cursors that were decided to move; removes the traces of streams that did not begin.
pub(super) async fn save(
    connection: &mut PgConnection,
    cursors: &[&LockedCursor],
) -> Result<(), StoreError> {
    let hosts: Vec<_> = cursors.iter().map(|c| c.host_id).collect();
    let streams: Vec<_> = cursors.iter().map(|c| c.stream_id).collect();
    let sequences: Vec<_> = cursors.iter().map(|c| c.cursor.last_sequence.cast_signed()).collect();
    let digests: Vec<_> = cursors.iter().map(|c| c.cursor.last_digest).collect();
    sqlx::query!(
        "/* store::cursors::save */
        update ingest_cursors as c
        set last_sequence = t.last_sequence, last_digest = t.last_digest, updated_at = now()
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
            as t (host_id, stream_id, last_sequence, last_digest)
        where c.host_id = t.host_id and c.stream_id = t.stream_id",
        &hosts,
        &streams,
        &sequences,
        &digests
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::of("insert_reports.save_cursors"))?;
    if cursors.iter().any(|c| c.cursor.last_sequence == 0) {
        sqlx::query!(
            "/* store::cursors::save */
            delete from ingest_cursors
            where last_sequence = 0
                and (host_id, stream_id) in (select * from unnest($1::uuid[], $2::uuid[]))",
            &hosts,
            &streams
        )
        .execute(connection)
        .await
        .map_err(StoreError::of("insert_reports.remove_cursors"))?;
    }
    Ok(())
}

impl Store {
    /// Where the stream stands (0: unknown), and the database's clock.
    pub async fn find_cursor(
        &self,
        host_id: Uuid,
        stream_id: Uuid,
    ) -> Result<(u64, Timestamp), StoreError> {
        let row = sqlx::query!(
            r#"/* store::cursors::find_cursor */
            select now() as "now!", coalesce((
                select last_sequence from ingest_cursors where host_id = $1 and stream_id = $2
            ), 0) as "last_sequence!""#,
            host_id,
            stream_id
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::of("find_cursor"))?;
        Ok((row.last_sequence.cast_unsigned(), row.now))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shared_model::{GapReason, ProblemCode};

    use super::super::records::Rejection;
    use super::*;

    fn record(first_sequence: u64, sequence: u64, digest: u8, gap: bool) -> PreparedRecord {
        let content = if gap {
            Content::Gap(GapReason::SpoolFull)
        } else {
            Content::Reject(Rejection {
                code: ProblemCode::InvalidReport,
                detail: String::new(),
                errors: Vec::new(),
            })
        };
        PreparedRecord {
            first_sequence,
            sequence,
            sha256: [digest; 32],
            line: Bytes::new(),
            content,
        }
    }

    fn digest(byte: u8) -> i64 {
        i64::from_be_bytes([byte; 8])
    }

    fn check(last_sequence: u64, last_digest: i64, records: &[PreparedRecord], expected: Decision) {
        assert_eq!(Cursor { last_sequence, last_digest }.decide(records), expected);
    }

    #[test]
    fn the_verdict_table() {
        let reports = |from: u64, to: u64| -> Vec<_> {
            (from..=to).map(|n| record(n, n, u8::try_from(n).unwrap(), false)).collect()
        };
        check(0, 0, &reports(1, 3), Decision::NewFrom(0));
        check(0, 0, &reports(2, 3), Decision::Gap);
        check(5, digest(5), &reports(6, 7), Decision::NewFrom(0));
        check(5, digest(5), &reports(7, 7), Decision::Gap);
        check(5, digest(5), &reports(3, 5), Decision::NewFrom(3));
        check(5, digest(5), &reports(2, 3), Decision::NewFrom(2));
        check(5, digest(5), &reports(4, 7), Decision::NewFrom(2));
        check(5, digest(9), &reports(4, 7), Decision::Fork);
        check(5, digest(9), &reports(5, 5), Decision::Fork);
        check(0, 0, &[], Decision::Gap);
    }

    #[test]
    fn gaps_may_straddle_or_end_at_the_cursor() {
        check(5, digest(5), &[record(3, 8, 1, true)], Decision::NewFrom(0));
        check(5, digest(5), &[record(3, 5, 1, true)], Decision::NewFrom(1));
        check(0, 0, &[record(1, 40, 1, true), record(41, 41, 2, false)], Decision::NewFrom(0));
        check(5, digest(5), &[record(7, 8, 1, true)], Decision::Gap);
    }
}
