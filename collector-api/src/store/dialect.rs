//! What differs between the engines: how series are cut into pieces by time.
//!
//! | | TimescaleDB | plain PostgreSQL |
//! |---|---|---|
//! | piece | chunk, made by the first row in it | native partition, must exist before the first row |
//! | ahead | a sentinel row, inserted and deleted, makes it | `CREATE TABLE … (LIKE …)` and `ATTACH` |
//! | retention | `drop_chunks` | `DETACH … CONCURRENTLY`, then `DROP` |
//!
//! Pieces begin at multiples of the series' width since the Unix epoch, on both, whole hours; after the
//! width changed, a new piece ends where one of the old width is in its way. Making them ahead
//! matters: a chunk is made under a lock that all writers of the table wait for. `ATTACH` takes the
//! same weak lock as that, `PARTITION OF` would shut readers out.

use std::collections::BTreeSet;
use std::time::Duration;

use shared_model::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::StoreError;
use super::series::{SERIES, Series};

/// How long DDL waits for a lock before it gives way to ingest and is tried again later.
pub(super) const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";
/// Held while a partition is made, so that two replicas do not make it twice.
const PARTITION_LOCK: i64 = 0x7072_6f63_7061_7274;
/// Pieces begin and end at multiples of it.
const HOUR: Duration = Duration::from_hours(1);
/// Native partitions are called `<series>_p<begin>`, UTC.
const PARTITION_NAME: &[BorrowedFormatItem<'_>] =
    format_description!("p[year][month][day]t[hour][minute][second]");

/// How the series are stored, told from the database at connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Hypertables.
    TimescaleDb {
        /// Community edition: compression is there.
        community: bool,
    },
    /// Native range partitions.
    PostgreSql,
}

/// What an engine can do beyond the common part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Old pieces can be compressed.
    pub compression: bool,
}

/// A chunk or a partition: rows of `begins_at ..< ends_at`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// First instant.
    pub begins_at: Timestamp,
    /// First instant after it.
    pub ends_at: Timestamp,
    /// Table name, quoted and qualified where needed.
    pub table: String,
    /// Its rows are in the columnstore.
    pub is_compressed: bool,
}

impl Dialect {
    /// Asks the database.
    pub async fn detect(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let row = sqlx::query!(
            r#"/* store::dialect::detect */
            select exists (select from pg_extension where extname = 'timescaledb') as "timescaledb!",
                coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as "community!""#
        )
        .fetch_one(connection)
        .await
        .map_err(StoreError::of("detect_engine"))?;
        Ok(if row.timescaledb {
            Self::TimescaleDb { community: row.community }
        } else {
            Self::PostgreSql
        })
    }

    /// What it can do beyond the common part.
    pub fn capabilities(self) -> Capabilities {
        Capabilities { compression: matches!(self, Self::TimescaleDb { community: true }) }
    }

    /// Every piece of `series`, oldest first.
    pub async fn list_partitions(
        self,
        connection: &mut PgConnection,
        series: &Series,
    ) -> Result<Vec<Partition>, StoreError> {
        // Not checked at compile time: each exists on one engine only.
        let statement = match self {
            Self::TimescaleDb { .. } => {
                "/* store::dialect::list_partitions */
                select range_start, range_end, format('%I.%I', chunk_schema, chunk_name), is_compressed
                from timescaledb_information.chunks
                where hypertable_schema = current_schema and hypertable_name = $1
                order by range_start"
            }
            // `for values from ('…') to ('…')`: bounds exist only as an expression.
            Self::PostgreSql => {
                "/* store::dialect::list_partitions */
                select (regexp_match(bound, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz,
                    (regexp_match(bound, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz, name, false
                from (
                    select pg_get_expr(child.relpartbound, child.oid) as bound,
                        format('%I', child.relname) as name
                    from pg_inherits
                    join pg_class child on child.oid = inhrelid
                    where inhparent = $1::text::regclass and not inhdetachpending
                ) as children order by 1"
            }
        };
        let rows: Vec<(Timestamp, Timestamp, String, bool)> = sqlx::query_as(statement)
            .bind(series.name)
            .fetch_all(connection)
            .await
            .map_err(StoreError::of("list_partitions"))?;
        Ok(rows
            .into_iter()
            .map(|(begins_at, ends_at, table, is_compressed)| Partition {
                begins_at,
                ends_at,
                table,
                is_compressed,
            })
            .collect())
    }

    /// Makes the pieces of all series that `times` fall into. For late data and for a writer that
    /// met a missing partition.
    pub async fn ensure_times(
        self,
        connection: &mut PgConnection,
        times: impl Iterator<Item = Timestamp>,
    ) -> Result<(), StoreError> {
        let times: Vec<_> = times.collect();
        for series in &SERIES {
            self.ensure_series(connection, series, times.iter().copied()).await?;
        }
        Ok(())
    }

    /// Makes the pieces of `series` that `times` fall into.
    pub async fn ensure_series(
        self,
        connection: &mut PgConnection,
        series: &Series,
        times: impl Iterator<Item = Timestamp>,
    ) -> Result<(), StoreError> {
        let width = chunk_width(connection, series).await?;
        // One per hour is enough: pieces begin and end at whole hours.
        let hours: BTreeSet<_> = times.map(|time| aligned(time, HOUR)).collect();
        for hour in hours {
            self.ensure_piece(connection, series, hour, width).await?;
        }
        Ok(())
    }

    /// Makes the pieces of `series` from `from` to `until`. Returns how many were missing.
    pub async fn ensure_ahead(
        self,
        connection: &mut PgConnection,
        series: &Series,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<u32, StoreError> {
        let width = chunk_width(connection, series).await?;
        let (mut at, mut made) = (from, 0);
        while at <= until {
            let (end, is_new) = self.ensure_piece(connection, series, at, width).await?;
            made += u32::from(is_new);
            at = end;
        }
        Ok(made)
    }

    /// Makes the piece that `at` falls into. Returns its end, and whether it was missing.
    async fn ensure_piece(
        self,
        connection: &mut PgConnection,
        series: &Series,
        at: Timestamp,
        width: Duration,
    ) -> Result<(Timestamp, bool), StoreError> {
        let known = self.list_partitions(connection, series).await?;
        if let Some(piece) = known.iter().find(|p| p.begins_at <= at && at < p.ends_at) {
            return Ok((piece.ends_at, false));
        }
        let (begin, end) = free_range(&known, at, width);
        let mut transaction =
            connection.begin().await.map_err(StoreError::of("ensure_piece.begin"))?;
        execute(&mut transaction, LOCK_TIMEOUT.into()).await?;
        match self {
            Self::TimescaleDb { .. } => {
                for statement in [series.sentinel, series.remove_sentinel] {
                    sqlx::query(statement)
                        .bind(begin)
                        .execute(&mut *transaction)
                        .await
                        .map_err(StoreError::of("ensure_piece.sentinel"))?;
                }
            }
            Self::PostgreSql => attach(&mut transaction, series, begin, end).await?,
        }
        transaction.commit().await.map_err(StoreError::of("ensure_piece.commit"))?;
        Ok((end, true))
    }

    /// Removes pieces of `series` that end at or before `floor`. The floor was moved there before,
    /// in a committed transaction, so nothing can be under way into them. Returns how many.
    pub async fn drop_older(
        self,
        connection: &mut PgConnection,
        series: &Series,
        floor: Timestamp,
    ) -> Result<u64, StoreError> {
        match self {
            Self::TimescaleDb { .. } => {
                let dropped: Vec<String> = sqlx::query_scalar(
                    "/* store::dialect::drop_older */
                    select drop_chunks($1::text::regclass, older_than => $2::timestamptz)::text",
                )
                .bind(series.name)
                .bind(floor)
                .fetch_all(connection)
                .await
                .map_err(StoreError::of("drop_older.drop_chunks"))?;
                Ok(dropped.len() as u64)
            }
            Self::PostgreSql => {
                let names = detached(connection, series, floor).await?;
                for name in &names {
                    execute(connection, format!("drop table {name}")).await?;
                }
                Ok(names.len() as u64)
            }
        }
    }

    /// What must happen outside a transaction before [`Self::drop_older`]: plain PostgreSQL
    /// detaches old partitions without shutting out anybody, which takes two transactions of its
    /// own. Repeating it, even by two workers, is harmless.
    pub async fn prepare_drop(
        self,
        connection: &mut PgConnection,
        series: &Series,
        floor: Timestamp,
    ) -> Result<(), StoreError> {
        if self != Self::PostgreSql {
            return Ok(());
        }
        let name = series.name;
        let interrupted: Vec<String> = sqlx::query_scalar(
            "/* store::dialect::prepare_drop */
            select format('%I', child.relname) from pg_inherits
            join pg_class child on child.oid = inhrelid
            where inhparent = $1::text::regclass and inhdetachpending",
        )
        .bind(name)
        .fetch_all(&mut *connection)
        .await
        .map_err(StoreError::of("prepare_drop.find_interrupted"))?;
        for partition in interrupted {
            let finalize = format!("alter table {name} detach partition {partition} finalize");
            execute(connection, finalize).await?;
        }
        let pieces = self.list_partitions(connection, series).await?;
        for Partition { table, .. } in pieces.iter().filter(|piece| piece.ends_at <= floor) {
            let detach = format!("alter table {name} detach partition {table} concurrently");
            execute(connection, detach).await?;
        }
        Ok(())
    }
}

/// Makes a native partition. The check constraint is what the bounds say, so that `ATTACH` need not
/// look at rows; it goes again, the bounds imply it.
async fn attach(
    transaction: &mut PgConnection,
    series: &Series,
    begin: Timestamp,
    end: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!("/* store::dialect::attach */ select pg_advisory_xact_lock($1)", PARTITION_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("attach.lock"))?;
    let (parent, name) = (series.name, partition_name(series, begin));
    let exists: bool =
        sqlx::query_scalar("/* store::dialect::attach */ select to_regclass($1) is not null")
            .bind(&name)
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreError::of("attach.find"))?;
    if exists {
        return Ok(());
    }
    let (from, to) = (quoted(begin), quoted(end));
    for statement in [
        format!("create table {name} (like {parent} including defaults including constraints)"),
        format!(
            "alter table {name} add constraint bounds check (sampled_at >= {from} and sampled_at < {to})"
        ),
        format!("create index on {name} ({}, sampled_at desc)", series.host_key),
        format!("alter table {parent} attach partition {name} for values from ({from}) to ({to})"),
        format!("alter table {name} drop constraint bounds"),
    ] {
        execute(&mut *transaction, statement).await?;
    }
    Ok(())
}

/// Partitions of `series` that are detached and begin before `floor`. Partitions are made and
/// attached in one transaction, so a table with such a name and no parent was detached.
async fn detached(
    connection: &mut PgConnection,
    series: &Series,
    floor: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        r"/* store::dialect::detached */
        select relname::text from pg_class
        where relkind = 'r' and relnamespace = current_schema::regnamespace
            and relname ~ ('^' || $1 || '_p\d{8}t\d{6}$')
            and not exists (select from pg_inherits where inhrelid = pg_class.oid)
        order by relname",
    )
    .bind(series.name)
    .fetch_all(connection)
    .await
    .map_err(StoreError::of("drop_older.find_detached"))?;
    // Names sort as their times do; a partition that ended by the floor began before it.
    Ok(names.into_iter().filter(|name| *name < partition_name(series, floor)).collect())
}

async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), StoreError> {
    // Names come from the constant list of series and from times; nothing from outside.
    sqlx::raw_sql(AssertSqlSafe(format!("/* store::dialect */ {statement}")))
        .execute(connection)
        .await
        .map_err(StoreError::of("dialect.execute"))?;
    Ok(())
}

async fn chunk_width(
    connection: &mut PgConnection,
    series: &Series,
) -> Result<Duration, StoreError> {
    let seconds = sqlx::query_scalar!(
        r#"/* store::dialect::chunk_width */
        select extract(epoch from chunk)::bigint as "seconds!" from series where series = $1"#,
        series.name
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::of("chunk_width"))?;
    Ok(Duration::from_secs(seconds.max(1).cast_unsigned()))
}

/// What a new piece around `at` may span: its width, less what pieces of another width hold.
fn free_range(known: &[Partition], at: Timestamp, width: Duration) -> (Timestamp, Timestamp) {
    let begin = aligned(at, width);
    let before = known.iter().map(|piece| piece.ends_at).filter(|end| *end <= at).max();
    let after = known.iter().map(|piece| piece.begins_at).filter(|begin| *begin > at).min();
    let end = begin + width;
    (before.map_or(begin, |end| end.max(begin)), after.map_or(end, |begin| begin.min(end)))
}

/// Begin of the piece that `time` falls into.
fn aligned(time: Timestamp, width: Duration) -> Timestamp {
    let width = width.as_secs().cast_signed();
    let begin = time.unix_timestamp().div_euclid(width) * width;
    Timestamp::from_unix_timestamp(begin).unwrap_or(time)
}

fn partition_name(series: &Series, begin: Timestamp) -> String {
    let begin = begin.to_offset(time::UtcOffset::UTC);
    format!("{}_{}", series.name, begin.format(PARTITION_NAME).unwrap_or_default())
}

fn quoted(time: Timestamp) -> String {
    format!("to_timestamp({})", time.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn pieces_of_another_width_are_not_overlapped() {
        let piece = |from: u8, to: u8| {
            let at = |hour| datetime!(2026-11-22 0:00 UTC) + Duration::from_hours(hour);
            Partition {
                begins_at: at(from.into()),
                ends_at: at(to.into()),
                table: String::new(),
                is_compressed: false,
            }
        };
        let day = Duration::from_hours(24);
        let at = datetime!(2026-11-22 7:30 UTC);
        let check = |known: &[Partition], from: u8, to: u8| {
            let expected = piece(from, to);
            assert_eq!(free_range(known, at, day), (expected.begins_at, expected.ends_at));
        };
        check(&[], 0, 24);
        check(&[piece(0, 6)], 6, 24);
        check(&[piece(0, 6), piece(12, 18)], 6, 12);
        check(&[piece(24, 48)], 0, 24);
    }
}
