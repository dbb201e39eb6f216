//! How complete the data of a window are, and how finely they were read.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::question::Question;
use super::samples::Window;

/// Most hosts named as incomplete.
const MAX_INCOMPLETE_HOSTS: i64 = 10;

/// What was read of the window.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// Sums.
    Sums,
    /// A series with this step, s.
    Series(Option<u32>),
}

/// What an answer rests on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Coverage {
    /// The coarsest rows that were read: `raw` (samples), `5m` or `1h` (roll-ups). The ends of the
    /// window, and what is not rolled up yet, are read more finely: sums are those of the samples.
    #[schema(example = "1h")]
    pub resolution: String,
    /// Begin of what was read: before the window's where samples that old are only kept rolled up.
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    /// End of what was read.
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
    /// Whether every host's samples cover the window, since its enrolment and until now, up to two
    /// intervals, and no collector was late or failed.
    pub complete: bool,
    /// Hosts asked about.
    pub host_count: i64,
    /// Hosts of which there are samples.
    pub reporting_host_count: i64,
    /// Hosts whose samples leave gaps.
    pub incomplete_host_count: i64,
    /// Time that samples of all hosts should cover, ms.
    pub expected_ms: i64,
    /// Time of it that they do not, ms.
    pub missing_ms: i64,
    /// Those with the longest gaps, at most 10.
    pub incomplete_hosts: Vec<IncompleteHost>,
    /// Collectors that were late or failed, as far back as samples are kept.
    pub troubled_collectors: Vec<TroubledCollector>,
}

/// A host whose samples leave gaps.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncompleteHost {
    /// Its id.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: String,
    /// Time of the window that no sample covers, ms.
    pub missing_ms: i64,
    /// Its last sample in the window.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_sampled_at: Option<OffsetDateTime>,
}

/// A collector of which parts of the window are missing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TroubledCollector {
    /// Its name.
    pub collector: String,
    /// `late` or `failed`.
    #[schema(example = "late")]
    pub outcome: String,
    /// Hosts it happened on.
    pub host_count: i64,
    /// How often.
    pub run_count: i64,
    /// When last.
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
}

/// The pieces of a window together.
struct Pieces {
    resolution: String,
    from: OffsetDateTime,
    to: OffsetDateTime,
}

impl Question {
    /// What an answer about these hosts (`None`: all) and this window rests on.
    pub async fn coverage(
        &mut self,
        hosts: Option<&[Uuid]>,
        window: Window,
        reading: Reading,
    ) -> Result<Coverage, StoreError> {
        let read = self.pieces(window, reading).await?;
        let rows = sqlx::query!(
            r#"/* coverage.hosts */
            with hosts as materialized (
                select *, missing_ms > 2 * coalesce(interval_ms, 30000) as incomplete from procfleet_coverage($1, $2, $3)
            ), sums as (
                select count(*) as host_count, count(*) filter (where covered_ms > 0) as reporting_host_count,
                       count(*) filter (where incomplete) as incomplete_host_count,
                       procfleet_total(sum(expected_ms)) as expected_ms, procfleet_total(sum(missing_ms)) as missing_ms
                from hosts
            )
            select s.host_count as "host_count!", s.reporting_host_count as "reporting_host_count!",
                   s.incomplete_host_count as "incomplete_host_count!", s.expected_ms, s.missing_ms,
                   h.host_id as "host_id?", h.host_name as "host_name?", h.missing_ms as "host_missing_ms?",
                   h.last_sampled_at as "last_sampled_at?"
            from sums s left join (
                select * from hosts where incomplete order by missing_ms desc, host_id limit $4
            ) h on true"#,
            hosts,
            window.from,
            window.to,
            MAX_INCOMPLETE_HOSTS,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("coverage.hosts"))?;
        let troubled_collectors = self.troubled_collectors(hosts, window).await?;
        let sums = rows.first();
        let incomplete_host_count = sums.map_or(0, |row| row.incomplete_host_count);
        Ok(Coverage {
            resolution: read.resolution,
            from: read.from,
            to: read.to,
            complete: incomplete_host_count == 0 && troubled_collectors.is_empty(),
            host_count: sums.map_or(0, |row| row.host_count),
            reporting_host_count: sums.map_or(0, |row| row.reporting_host_count),
            incomplete_host_count,
            expected_ms: sums.and_then(|row| row.expected_ms).unwrap_or_default(),
            missing_ms: sums.and_then(|row| row.missing_ms).unwrap_or_default(),
            incomplete_hosts: rows
                .into_iter()
                .filter_map(|row| {
                    Some(IncompleteHost {
                        host_id: row.host_id?,
                        host_name: row.host_name?,
                        missing_ms: row.host_missing_ms?,
                        last_sampled_at: row.last_sampled_at,
                    })
                })
                .collect(),
            troubled_collectors,
        })
    }

    async fn pieces(&mut self, window: Window, reading: Reading) -> Result<Pieces, StoreError> {
        let (sums, step_s) = match reading {
            Reading::Sums => (true, None),
            Reading::Series(step_s) => (false, step_s.map(f64::from)),
        };
        sqlx::query_as!(
            Pieces,
            r#"/* coverage.pieces */
            select case when bool_or(resolution = '1h') then '1h' when bool_or(resolution = '5m') then '5m' else 'raw' end as "resolution!",
                   min(piece_from) as "from!", max(piece_to) as "to!"
            from procfleet_pieces('process', $1, $2, case when $3 then procfleet_grain($1, $2)
                else procfleet_series_grain($4::double precision * interval '1 second') end)"#,
            window.from,
            window.to,
            sums,
            step_s,
        )
        .fetch_one(self.connection()?)
        .await
        .map_err(StoreError::of("coverage.pieces"))
    }

    async fn troubled_collectors(
        &mut self,
        hosts: Option<&[Uuid]>,
        window: Window,
    ) -> Result<Vec<TroubledCollector>, StoreError> {
        sqlx::query_as!(
            TroubledCollector,
            r#"/* coverage.collectors */
            select collector as "collector!", outcome as "outcome!", host_count as "host_count!",
                   run_count as "run_count!", last_at as "last_at!"
            from procfleet_troubled_collectors($1, $2, $3)"#,
            hosts,
            window.from,
            window.to,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("coverage.collectors"))
    }
}
