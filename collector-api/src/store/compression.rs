//! Compression of old pieces, where the engine can: TimescaleDB's columnstore, Community edition.
//!
//! Rows of a host lie together (segmented by its key), in the order in which they compress best: of one
//! instance or device, newest first. Samples are compressed a day after their piece ended: late data still comes in
//! (it waits uncompressed beside the columnstore, and the piece is compressed again). Roll-ups are
//! compressed when no sample they are made of can come any more, so that none is ever rewritten.

use shared_model::Timestamp;
use sqlx::AssertSqlSafe;
use time::Duration;

use super::StoreError;
use super::dialect::Dialect;
use super::maintenance::{MaintenanceConnection, MaintenanceError, guard};
use super::series::Series;

/// How long after its end a piece of samples is compressed.
const COMPRESS_AFTER: Duration = Duration::days(1);
/// Pieces of one series compressed in one round.
const PIECES_PER_ROUND: usize = 2;
/// What compressing one piece may take, on top of the connection's own limit.
const STATEMENT_TIMEOUT: &str = "set statement_timeout = '20min'";

/// Pieces of the hypertable `$1` with what is to be known of each. A chunk's status is a sum: 1 compressed,
/// 2 with batches out of order, 4 frozen (somebody's wish that it stays as it is), 8 with rows outside the
/// columnstore (`CHUNK_STATUS_*` of TimescaleDB's `chunk.h`). The catalogue's own table changes between
/// releases, this function and this view do not.
pub const CHUNKS: &str = "/* store::compression::chunks */
    select name, range_end, is_compressed, status & (2 | 8) <> 0 from (
        select format('%I.%I', chunk_schema, chunk_name) as name, range_end, is_compressed,
            _timescaledb_functions.chunk_status(format('%I.%I', chunk_schema, chunk_name)::regclass) as status
        from timescaledb_information.chunks
        where hypertable_schema = current_schema and hypertable_name = $1
    ) as chunks where status & 4 = 0 order by range_end";

/// A piece of a hypertable.
struct Chunk {
    name: String,
    ends_at: Timestamp,
    is_compressed: bool,
    /// Rows came after it was compressed.
    is_partial: bool,
}

impl MaintenanceConnection {
    /// Compresses pieces of `series` that are due. Returns how many; 0 where the engine cannot.
    pub async fn compress_older(&mut self, series: &Series) -> Result<u64, MaintenanceError> {
        if !self.dialect.capabilities().compression {
            return Ok(0);
        }
        // Without a transaction around it: a worker that takes over may repeat it, harmlessly.
        guard(&mut self.connection, self.lease).await?;
        let row = sqlx::query!(
            r#"/* store::compression::compress_older */
            select is_rollup, least(now(), retention_clock) as "now!",
                (select extract(epoch from max(retention))::bigint from series where not is_rollup)
                    as "raw_s!"
            from series, maintenance_lease where series = $1"#,
            series.name
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("compress_older.look"))?;
        let after = if row.is_rollup { Duration::seconds(row.raw_s) } else { Duration::ZERO }
            + COMPRESS_AFTER;
        let is_enabled: bool = sqlx::query_scalar(
            "/* store::compression::compress_older */
            select compression_enabled from timescaledb_information.hypertables
            where hypertable_schema = current_schema and hypertable_name = $1",
        )
        .bind(series.name)
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("compress_older.find_settings"))?;
        let chunks = self.chunks(series).await?;
        let (settings, pieces) = plan(self.dialect, series, is_enabled, &chunks, row.now - after);
        for statement in settings.into_iter().chain([STATEMENT_TIMEOUT.to_owned()]) {
            self.execute("compress_older.settings", statement).await?;
        }
        let compressed = self.compress(pieces).await;
        self.execute("compress_older.settings", "set statement_timeout = '60s'".into()).await?;
        Ok(compressed?)
    }

    async fn compress(&mut self, pieces: Vec<String>) -> Result<u64, StoreError> {
        let mut compressed = 0;
        for statement in pieces {
            self.execute("compress_older", statement).await?;
            compressed += 1;
        }
        Ok(compressed)
    }

    async fn chunks(&mut self, series: &Series) -> Result<Vec<Chunk>, StoreError> {
        let rows: Vec<(String, Timestamp, bool, bool)> = sqlx::query_as(CHUNKS)
            .bind(series.name)
            .fetch_all(&mut self.connection)
            .await
            .map_err(StoreError::of("compress_older.chunks"))?;
        Ok(rows
            .into_iter()
            .map(|(name, ends_at, is_compressed, is_partial)| Chunk {
                name,
                ends_at,
                is_compressed,
                is_partial,
            })
            .collect())
    }

    async fn execute(
        &mut self,
        operation: &'static str,
        statement: String,
    ) -> Result<(), StoreError> {
        // Names come from the constant list of series and from the catalogue.
        sqlx::raw_sql(AssertSqlSafe(format!("/* store::compression */ {statement}")))
            .execute(&mut self.connection)
            .await
            .map_err(StoreError::of(operation))?;
        Ok(())
    }
}

/// What is run: the settings of the table, once, and a statement per piece that ended by `until`.
fn plan(
    dialect: Dialect,
    series: &Series,
    is_enabled: bool,
    chunks: &[Chunk],
    until: Timestamp,
) -> (Option<String>, Vec<String>) {
    if !dialect.capabilities().compression {
        return (None, Vec::new());
    }
    let pieces = chunks
        .iter()
        .filter(|chunk| chunk.ends_at <= until && (!chunk.is_compressed || chunk.is_partial))
        .take(PIECES_PER_ROUND)
        .map(|chunk| compress(&chunk.name))
        .collect();
    ((!is_enabled).then(|| settings(series)), pieces)
}

/// Tells how `series` is compressed. The names of these settings since TimescaleDB 2.0, still understood by
/// releases that say "columnstore".
pub fn settings(series: &Series) -> String {
    format!(
        "alter table {} set (timescaledb.compress, timescaledb.compress_segmentby = '{}', \
        timescaledb.compress_orderby = '{}')",
        series.name,
        series.host_key,
        order_by(series)
    )
}

/// Compresses a chunk, or again what came since.
pub fn compress(chunk: &str) -> String {
    format!("select compress_chunk('{chunk}'::regclass, if_not_compressed => true)")
}

/// The order in which the rows of a host compress best.
pub fn order_by(series: &Series) -> &'static str {
    match series.name {
        "process_samples" | "process_rollup_5m" | "process_rollup_1h" => {
            "instance_id, sampled_at desc"
        }
        "filesystem_samples" => "mount_point, sampled_at desc",
        "block_device_samples" => "device, sampled_at desc",
        "network_interface_samples" => "interface, sampled_at desc",
        "connection_samples" => "remote_address, sampled_at desc",
        _ => "sampled_at desc",
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::series::{self, SERIES};
    use super::*;

    fn chunk(hours_ago: i64, is_compressed: bool, is_partial: bool) -> Chunk {
        Chunk {
            name: format!("_timescaledb_internal._hyper_1_{hours_ago}_chunk"),
            ends_at: datetime!(2026-11-22 0:00 UTC) - Duration::hours(hours_ago),
            is_compressed,
            is_partial,
        }
    }

    #[test]
    fn old_chunks_are_compressed_where_the_edition_can() {
        let chunks = [
            chunk(72, true, false),
            chunk(66, true, true),
            chunk(60, false, false),
            chunk(48, false, false),
            chunk(1, false, false),
        ];
        let until = datetime!(2026-11-22 0:00 UTC) - COMPRESS_AFTER;
        let community = Dialect::TimescaleDb { community: true };
        let (settings, pieces) = plan(community, &SERIES[0], false, &chunks, until);
        assert_eq!(
            settings.unwrap(),
            "alter table process_samples set (timescaledb.compress, \
            timescaledb.compress_segmentby = 'host_number', \
            timescaledb.compress_orderby = 'instance_id, sampled_at desc')"
        );
        assert_eq!(
            pieces,
            [66, 60].map(|n| format!(
                "select compress_chunk('_timescaledb_internal._hyper_1_{n}_chunk'::regclass, if_not_compressed => true)"
            ))
        );
        let (settings, pieces) = plan(community, &SERIES[0], true, &chunks[4..], until);
        assert!(settings.is_none() && pieces.is_empty());
        for other in [Dialect::TimescaleDb { community: false }, Dialect::PostgreSql] {
            let (settings, pieces) = plan(other, &SERIES[0], false, &chunks, until);
            assert!(settings.is_none() && pieces.is_empty());
        }
    }

    #[test]
    fn every_series_is_ordered_by_time_within_a_host() {
        for series in series::all() {
            assert!(order_by(series).ends_with("sampled_at desc"), "{}", series.name);
        }
    }
}
