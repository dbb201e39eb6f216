//! How large the series are, and how wide their next pieces should be.
//!
//! The piece that is being written, with its index, should stay in the database's memory: a random
//! place in an index that does not fit costs a read per row. So a piece may be as large as
//! an eighth of `effective_cache_size`; within that, wider is better, because every question plans over all
//! pieces. Widths come from a ladder where each divides the next, so that pieces of different widths
//! nest. A change concerns pieces that do not exist yet.
#![expect(clippy::cast_precision_loss, reason = "rates and widths are estimates")]

use shared_model::Timestamp;
use sqlx::Connection as _;
use time::Duration;

use super::StoreError;
use super::dialect::{Dialect, Partition};
use super::maintenance::{MaintenanceConnection, MaintenanceError, guard};
use super::series::Series;

/// Widths of pieces, hours. Each divides the next.
const LADDER: [i64; 7] = [1, 3, 6, 12, 24, 7 * 24, 28 * 24];
/// What is kept is at least this many pieces, so that retention is not too coarse.
const MIN_PIECES: i64 = 12;
/// A piece says how fast a series grows after this share of its width.
const MIN_SHARE: f64 = 0.25;
/// Bounds of a piece's size, bytes.
const PIECE_BYTES: (i64, i64) = (256 << 20, 8 << 30);

/// Sizes of the pieces `$1` of the hypertable `$2`, what is in the columnstore included.
pub const COMMUNITY_PIECE_BYTES: &str = "/* store::sizes::piece_bytes */
    select coalesce(size.total_bytes, 0)::bigint
    from unnest($1::text[]) with ordinality as piece (name, place)
    left join chunks_detailed_size($2::text::regclass) as size
        on format('%I.%I', size.chunk_schema, size.chunk_name) = piece.name
    order by place";

/// One series, measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Pieces.
    pub partitions: i32,
    /// Of these, in the columnstore.
    pub compressed: i32,
    /// All of them, indexes included.
    pub bytes: i64,
}

impl MaintenanceConnection {
    /// Measures `series` and notes it for readers. Then sets the width of its next pieces.
    pub async fn measure(&mut self, series: &Series) -> Result<Size, MaintenanceError> {
        guard(&mut self.connection, self.lease).await?;
        let pieces = self.dialect.list_partitions(&mut self.connection, series).await?;
        let bytes = self.piece_bytes(series, &pieces).await?;
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let size = Size {
            partitions: count(pieces.len()),
            compressed: count(pieces.iter().filter(|piece| piece.is_compressed).count()),
            bytes: bytes.iter().sum(),
        };
        let now = sqlx::query_scalar!(
            r#"/* store::sizes::measure */
            insert into maintenance_tables as known
                (series, partitions, compressed, bytes, begins_at, ends_at, measured_at)
            values ($1, $2, $3, $4, $5, $6, now())
            on conflict (series) do update set partitions = excluded.partitions,
                compressed = excluded.compressed, bytes = excluded.bytes,
                begins_at = excluded.begins_at, ends_at = excluded.ends_at, measured_at = now()
            returning measured_at"#,
            series.name,
            size.partitions,
            size.compressed,
            size.bytes,
            pieces.first().map(|piece| piece.begins_at),
            pieces.last().map(|piece| piece.ends_at)
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("measure"))?;
        // A compressed piece says nothing about the size it had in memory.
        let measured = pieces.iter().zip(&bytes).rev().filter(|(piece, _)| !piece.is_compressed);
        let (mut whole, mut begun) = (None, None);
        for (piece, bytes) in measured {
            let rate = if piece.ends_at <= now { &mut whole } else { &mut begun };
            *rate = rate.or_else(|| bytes_per_hour(piece, *bytes, now));
        }
        if let Some(rate) = whole.into_iter().chain(begun).reduce(f64::max) {
            self.adapt(series, rate, whole.is_some()).await?;
        }
        Ok(size)
    }

    async fn piece_bytes(
        &mut self,
        series: &Series,
        pieces: &[Partition],
    ) -> Result<Vec<i64>, StoreError> {
        let tables: Vec<&str> = pieces.iter().map(|piece| piece.table.as_str()).collect();
        // Not checked at compile time: it exists on one engine only.
        let statement = if self.dialect == (Dialect::TimescaleDb { community: true }) {
            COMMUNITY_PIECE_BYTES
        } else {
            // A piece that was dropped meanwhile has no size.
            "/* store::sizes::piece_bytes */
            select coalesce(pg_total_relation_size(to_regclass(name)), 0)
            from unnest($1::text[]) with ordinality as piece (name, place)
            where $2::text is not null order by place"
        };
        sqlx::query_scalar(statement)
            .bind(&tables)
            .bind(series.name)
            .fetch_all(&mut self.connection)
            .await
            .map_err(StoreError::of("measure.piece_bytes"))
    }

    /// The next pieces get wider only if the rate is that of a piece which ended, too (`is_whole`): one
    /// just begun may be small because nobody has written yet.
    async fn adapt(
        &mut self,
        series: &Series,
        rate: f64,
        is_whole: bool,
    ) -> Result<(), MaintenanceError> {
        let row = sqlx::query!(
            r#"/* store::sizes::adapt */
            select (extract(epoch from chunk) / 3600)::bigint as "width!",
                (extract(epoch from retention) / 3600)::bigint as "retention!",
                pg_size_bytes(current_setting('effective_cache_size')) as "memory!"
            from series where series = $1"#,
            series.name
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of("adapt.look"))?;
        let target = (row.memory / 8).clamp(PIECE_BYTES.0, PIECE_BYTES.1);
        let width = best_width(row.width, rate, target, row.retention);
        if width == row.width || (width > row.width && !is_whole) {
            return Ok(());
        }
        tracing::info!(series = series.name, hours = width, "the width of the next partitions");
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("adapt.begin"))?;
        guard(&mut transaction, self.lease).await?;
        sqlx::query!(
            "/* store::sizes::adapt */
            update series set chunk = $2 * interval '1 hour' where series = $1",
            series.name,
            width as f64
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of("adapt"))?;
        if matches!(self.dialect, Dialect::TimescaleDb { .. }) {
            // Not checked at compile time: exists on one engine only.
            sqlx::query(
                "/* store::sizes::adapt */
                select set_chunk_time_interval($1::text::regclass, $2 * interval '1 hour')",
            )
            .bind(series.name)
            .bind(width as f64)
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::of("adapt.set_chunk_time_interval"))?;
        }
        transaction.commit().await.map_err(StoreError::of("adapt.commit"))?;
        Ok(())
    }
}

/// How fast the series grew while `piece` was written. `None`: too early to say, or not yet begun.
fn bytes_per_hour(piece: &Partition, bytes: i64, now: Timestamp) -> Option<f64> {
    let width = piece.ends_at - piece.begins_at;
    let written = (now.min(piece.ends_at) - piece.begins_at).max(Duration::ZERO);
    (written / width >= MIN_SHARE).then(|| bytes as f64 / (written / Duration::HOUR))
}

/// The widest of the ladder whose pieces fit `target`; the present one as long as it is neither twice too
/// large nor half of what the next would allow. Hours, and bytes per hour.
fn best_width(present: i64, rate: f64, target: i64, retention: i64) -> i64 {
    let fits = |width: i64, bytes: i64| {
        rate * width as f64 <= bytes as f64 && width * MIN_PIECES <= retention.max(MIN_PIECES)
    };
    let widest = |bytes| LADDER.into_iter().rev().find(|width| fits(*width, bytes)).unwrap_or(1);
    let wider = widest(target / 2);
    if wider > present {
        wider
    } else if fits(present, target * 2) {
        present
    } else {
        widest(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: i64 = 30 * 24;
    const GIB: f64 = (1_u64 << 30) as f64;

    #[test]
    fn widths_follow_the_rate_and_do_not_flap() {
        let width =
            |present, gib_per_hour: f64| best_width(present, gib_per_hour * GIB, 1 << 30, MONTH);
        assert_eq!(width(6, 0.001), 24, "retention allows no more than a day");
        assert_eq!(width(6, 0.1), 6);
        assert_eq!(width(6, 0.3), 6, "less than twice the target");
        assert_eq!(width(6, 0.5), 1);
        assert_eq!(width(3, 0.1), 3, "6 would fit, but not half");
        assert_eq!(width(3, 0.08), 6);
        assert_eq!(width(1, 50.0), 1, "never less than an hour");
        assert_eq!(best_width(168, 0.0, 1 << 30, 400 * 24), 28 * 24);
    }

    #[test]
    fn a_rate_needs_a_quarter_of_a_piece() {
        let begins_at = Timestamp::UNIX_EPOCH;
        let piece = Partition {
            begins_at,
            ends_at: begins_at + Duration::hours(4),
            table: String::new(),
            is_compressed: false,
        };
        let rate = |minutes| bytes_per_hour(&piece, 1000, begins_at + Duration::minutes(minutes));
        assert_eq!(rate(-10), None);
        assert_eq!(rate(59), None);
        assert_eq!(rate(120), Some(500.0));
        assert_eq!(rate(10_000), Some(250.0));
    }
}
