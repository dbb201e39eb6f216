//! Compression of old pieces, where the engine can: TimescaleDB's columnstore, Community edition.
//!
//! Rows of a host lie together (`segmentby host_id`), in the order in which they compress best: of one
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
            select is_rollup, now() as "now!",
                (select extract(epoch from max(retention))::bigint from series where not is_rollup)
                    as "raw_s!"
            from series where series = $1"#,
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
        let mut compressed = 0;
        for statement in pieces {
            self.execute("compress_older", statement).await?;
            compressed += 1;
        }
        self.execute("compress_older.settings", "set statement_timeout = '60s'".into()).await?;
        Ok(compressed)
    }

    async fn chunks(&mut self, series: &Series) -> Result<Vec<Chunk>, StoreError> {
        // Bit 3 of a chunk's status: compressed, and with rows outside the columnstore.
        let rows: Vec<(String, Timestamp, bool, bool)> = sqlx::query_as(
            "/* store::compression::chunks */
            select format('%I.%I', i.chunk_schema, i.chunk_name), i.range_end, i.is_compressed,
                c.status & 8 <> 0
            from timescaledb_information.chunks i
            join _timescaledb_catalog.chunk c
                on c.schema_name = i.chunk_schema and c.table_name = i.chunk_name
            where i.hypertable_schema = current_schema and i.hypertable_name = $1
            order by i.range_end",
        )
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
    // The names of these settings since TimescaleDB 2.0, still understood by releases that say
    // "columnstore".
    let settings = format!(
        "alter table {} set (timescaledb.compress, timescaledb.compress_segmentby = 'host_id', \
        timescaledb.compress_orderby = '{}')",
        series.name,
        order_by(series)
    );
    let pieces = chunks
        .iter()
        .filter(|chunk| chunk.ends_at <= until && (!chunk.is_compressed || chunk.is_partial))
        .take(PIECES_PER_ROUND)
        .map(|chunk| {
            format!("select compress_chunk('{}'::regclass, if_not_compressed => true)", chunk.name)
        })
        .collect();
    ((!is_enabled).then_some(settings), pieces)
}

/// The order in which the rows of a host compress best.
fn order_by(series: &Series) -> &'static str {
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
            timescaledb.compress_segmentby = 'host_id', \
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
