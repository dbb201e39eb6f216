//! What a real agent does otherwise after a change, in the same process.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child::{Child, Directory};
use fleet_sim::eventually::eventually;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Operator, quiet_agent};
use crate::fleet::{DEADLINE, Fleet, report_count, wait_for_reports};

const MIB: u64 = 1 << 20;

/// A process that holds `mib` MiB, in order to be seen, with `words` in its command line.
fn holder(name: &str, directory: &Directory, mib: u64, words: &[&str]) -> Result<Child> {
    let script = format!("x=$(head -c {} /dev/zero | tr '\\0' x); echo ready; read y", mib * MIB);
    let mut command = Command::new("sh");
    command.args(["-c", &script, name]).args(words).stdin(Stdio::piped());
    Child::spawn(name, directory.path(), &mut command)
}

async fn ready(child: &mut Child) -> Result<()> {
    eventually(DEADLINE, "the process is there", async || {
        child.check_alive()?;
        ensure!(child.log().contains("ready"), child.log());
        Ok(())
    })
    .await
}

/// Samples of the process `pid` and all samples of its host, from the report after number `after` on.
async fn samples(
    connection: &mut PgConnection,
    host_id: Uuid,
    pid: u32,
    after: i64,
) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "with later as (select sampled_at from host_samples where host_id = $1 order by sampled_at offset $3)
        select (select count(*) from procfleet_process_samples s
                join process_instances i using (host_id, instance_id)
                where s.host_id = $1 and i.pid = $2 and s.sampled_at in (select sampled_at from later)),
            (select count(*) from later)",
    )
    .bind(host_id)
    .bind(i32::try_from(pid)?)
    .bind(after)
    .fetch_one(connection)
    .await?)
}

#[tokio::test]
async fn a_threshold_of_the_centre_holds_from_the_next_report_on() -> Result<()> {
    let fleet = Fleet::start("configuration-threshold").await?;
    let operator = Operator::of(&fleet).await?;
    let mut agent = quiet_agent(&fleet, "agent", None).await?;
    let (host_id, mut connection) = (agent.host_id()?, fleet.connect().await?);
    let directory = Directory::create("holder")?;
    let mut held = holder("holder", &directory, 48, &[])?;
    ready(&mut held).await?;
    let agent_pid = agent.pid()?;

    let nothing = json!({ "profile": { "memory_bytes": 1u64 << 60 } });
    for (memory_bytes, is_seen) in [(1u64 << 60, false), (32 * MIB, true), (1 << 60, false)] {
        operator.set(host_id, json!({ "profile": { "memory_bytes": memory_bytes } })).await?;
        operator.in_force(&mut agent).await?;
        // What was in the making or on its way when it was applied may be by the old one.
        let applied_at = report_count(&mut connection, host_id).await? + 2;
        wait_for_reports(&mut connection, &mut agent, applied_at + 3).await?;
        let (seen, reports) = samples(&mut connection, host_id, held.pid(), applied_at).await?;
        assert_eq!(seen, if is_seen { reports } else { 0 }, "{memory_bytes}: {reports} reports");
        assert!(reports > 2);
    }
    assert_eq!(agent.pid()?, agent_pid, "the same process all the time");

    // Collectors are switched off and on, and the memory's null is no zero.
    let mut off = nothing.clone();
    off["collect"] = json!({ "disabled": ["memory", "filesystem"] });
    for (configuration, is_there) in [(off, false), (nothing, true)] {
        operator.set(host_id, configuration).await?;
        operator.in_force(&mut agent).await?;
        let applied_at = report_count(&mut connection, host_id).await? + 2;
        wait_for_reports(&mut connection, &mut agent, applied_at + 3).await?;
        let query = "select count(memory_used_bytes), count(*) from (select * from host_samples
            where host_id = $1 order by sampled_at offset $2) s";
        let query = sqlx::query_as(query).bind(host_id).bind(applied_at);
        let (known, all): (i64, i64) = query.fetch_one(&mut connection).await?;
        assert_eq!(known, if is_there { all } else { 0 });
    }
    agent.terminate().await
}

#[tokio::test]
async fn a_pattern_of_the_centre_hides_from_the_next_report_on() -> Result<()> {
    let fleet = Fleet::start("configuration-redaction").await?;
    let operator = Operator::of(&fleet).await?;
    let mut agent = quiet_agent(&fleet, "agent", None).await?;
    let (host_id, mut connection) = (agent.host_id()?, fleet.connect().await?);
    let directory = Directory::create("planted")?;
    operator.set(host_id, json!({ "profile": { "keep_all": true } })).await?;
    operator.in_force(&mut agent).await?;
    let mut early = holder("early-planted", &directory, 1, &["--kennwort4711"])?;
    ready(&mut early).await?;
    let mut lines = async |like: &str| -> Result<Vec<String>> {
        let query = "select distinct command_line from processes where command_line like $1";
        Ok(sqlx::query_scalar(query).bind(like.to_owned()).fetch_all(&mut connection).await?)
    };
    eventually(DEADLINE, "no built-in rule hides it", async || {
        let lines = lines("%early-planted%").await?;
        ensure!(lines.iter().any(|line| line.ends_with("--kennwort4711")), "{lines:?}");
        Ok(())
    })
    .await?;

    let hide = json!({ "profile": { "keep_all": true }, "redaction": { "patterns": ["--kennwort([0-9]+)"] } });
    operator.set(host_id, hide).await?;
    operator.in_force(&mut agent).await?;
    let mut late = holder("late-planted", &directory, 1, &["--kennwort0815"])?;
    ready(&mut late).await?;
    // Both run; one was described before, in the clear.
    for marker in ["%early-planted%", "%late-planted%"] {
        eventually(DEADLINE, "it is described with what hides it", async || {
            let lines = lines(marker).await?;
            ensure!(lines.iter().any(|line| line.ends_with("--kennwort***")), "{lines:?}");
            Ok(())
        })
        .await
        .with_context(|| agent.log())?;
    }
    assert_eq!(lines("%0815%").await?, [""; 0], "what came after the change never left the host");
    let newest =
        "select p.command_line from process_instances i join processes p using (process_id)
        where i.host_id = $1 and i.pid = $2";
    let newest: Vec<String> = sqlx::query_scalar(newest)
        .bind(host_id)
        .bind(i32::try_from(early.pid())?)
        .fetch_all(&mut fleet.connect().await?)
        .await?;
    assert!(newest.iter().all(|line| line.ends_with("--kennwort***")), "{newest:?}");
    agent.terminate().await
}

#[tokio::test]
async fn the_limits_of_a_host_bound_the_centre_and_are_shown() -> Result<()> {
    let fleet = Fleet::start("configuration-limits").await?;
    let operator = Operator::of(&fleet).await?;
    let directory = Directory::create("limits")?;
    let limits = directory.path().join("limits.toml");
    fs::write(&limits, "min_interval_ms = 300\n[profile]\nkeep_all = false\n")?;
    let mut agent = quiet_agent(&fleet, "agent", Some(&limits)).await?;
    let beyond = json!({ "interval_ms": 100, "profile": { "keep_all": true, "top": 1 } });
    operator.set(agent.host_id()?, beyond).await?;
    let shown = operator.in_force(&mut agent).await?;
    assert_eq!(shown["status"]["limited"], json!(["interval_ms", "profile.keep_all"]));
    let effective = agent.show_configuration().await?;
    let of = |key: &str| {
        let rows = effective.as_array().into_iter().flatten();
        let row = rows.into_iter().find(|row| row["key"] == key);
        row.map(|row| (row["value"].clone(), row["origin"].clone()))
    };
    assert_eq!(of("interval_ms"), Some((json!(300), json!("limit"))), "{effective}");
    assert_eq!(of("profile.keep_all"), Some((json!(false), json!("limit"))));
    assert_eq!(of("profile.top"), Some((json!(1), json!("centre"))));
    assert_eq!(of("profile.cpu_cores"), Some((json!(1000.0), json!("variable"))));
    assert_eq!(of("budget.cpu_cores"), Some((json!(8.0), json!("file"))));
    assert_eq!(of("budget.memory_bytes").map(|row| row.1), Some(json!("default")));
    agent.terminate().await
}
