//! How long the dashboards' panels take, each asked as the role of dashboards over a day and over
//! everything. A host's parts and connections, which the questions have no need of, are added here.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use time::{Duration, OffsetDateTime};

use super::Arguments;
use crate::panels::{Chosen, dashboards, list, panels, text};

/// What is generated for the first host.
const PARTS: &str = include_str!("parts.sql");
/// Longest that a panel may take over 24 hours and over all days, ms.
const BARS: [f64; 2] = [1000.0, 3000.0];
/// Each is asked so often; the median counts.
const ROUNDS: usize = 3;

/// Prints a Markdown table: the slowest panel of each dashboard, and every one that is too slow.
pub(super) async fn run(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    arguments: &Arguments,
) -> Result<()> {
    let days = Duration::days(i64::from(arguments.days));
    let seconds = now.unix_timestamp();
    let parts = PARTS.replace("{now}", &seconds.to_string());
    let parts = parts.replace("{days}", &arguments.days.to_string());
    sqlx::raw_sql(AssertSqlSafe(parts)).execute(&mut *connection).await.context("fill parts")?;
    sqlx::raw_sql("set role procfleet_reader").execute(&mut *connection).await?;
    println!("\n| dashboard | panels | slowest of 24 h, ms | slowest of all days, ms |");
    println!("|---|--:|---|---|");
    let mut slow = Vec::new();
    for dashboard in dashboards()? {
        let mut cells = Vec::new();
        for (length, interval_ms, bar) in
            [(Duration::hours(24), 60_000, BARS[0]), (days, 1_800_000, BARS[1])]
        {
            let mut chosen = Chosen::new(now - length, now, interval_ms)?;
            chosen.variables.insert("host".into(), format!("{:032x}", 1));
            chosen.variables.insert("label".into(), "all".into());
            chosen.choose(connection, &dashboard).await?;
            let mut times = Vec::new();
            for panel in panels(&dashboard) {
                let took = median(connection, panel, &chosen).await?;
                times.push((took, text(&panel["title"]).to_owned()));
                if took > bar {
                    slow.push(format!("{} / {}: {took:.0} ms", dashboard["title"], panel["title"]));
                }
            }
            times.sort_by(|a, b| b.0.total_cmp(&a.0));
            let (took, title) = times.first().context("a dashboard without panels")?;
            cells.push(format!("{title}: {took:.0}"));
        }
        let count = panels(&dashboard).count();
        println!("| {} | {count} | {} |", text(&dashboard["title"]), cells.join(" | "));
    }
    println!("\nOver {} ms (24 h) or {} ms (all days): {}", BARS[0], BARS[1], slow.len());
    for panel in slow {
        println!("- {panel}");
    }
    Ok(())
}

async fn median(connection: &mut PgConnection, panel: &Value, chosen: &Chosen) -> Result<f64> {
    let target = list(&panel["targets"]).first().context("a panel without a statement")?;
    let sql = chosen.expand(text(&target["rawSql"]))?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        sqlx::query(AssertSqlSafe(sql.clone()))
            .fetch_all(&mut *connection)
            .await
            .with_context(|| format!("{}: {sql}", panel["title"]))?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}
