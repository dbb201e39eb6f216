//! Faults of the database: killed, restarted, hanging, and replaced by a standby that lags behind.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};

use super::{Arena, Scale, Verdict};
use crate::address::free_address;
use crate::eventually::eventually;
use crate::haproxy::HaproxyProcess;
use crate::postgres::PostgresCluster;

const DEADLINE: Duration = Duration::from_mins(1);

/// SIGKILL of the whole server, and crash recovery.
pub async fn kill(arena: &mut Arena, cluster: &mut PostgresCluster) -> Result<()> {
    cluster.kill()?;
    cluster.revive().await?;
    arena.progress("SIGKILL of the database").await
}

/// A fast shutdown and a start.
pub async fn restart(arena: &mut Arena, cluster: &mut PostgresCluster) -> Result<()> {
    cluster.stop().await?;
    cluster.start().await?;
    arena.progress("a restart of the database").await
}

/// SIGKILL of the backend of a writer: the database throws everybody out and recovers by itself.
pub async fn kill_writer(arena: &mut Arena, cluster: &PostgresCluster) -> Result<()> {
    let writers = writers(&cluster.url).await?;
    let mut bystander = PgConnection::connect(&cluster.url).await?;
    kill_process(*writers.first().context("no writer")?, Signal::KILL)?;
    eventually(DEADLINE, "the database throws everybody out", async || {
        let answer = sqlx::query("select 1").execute(&mut bystander).await;
        ensure!(answer.is_err(), "it still answers");
        Ok(())
    })
    .await?;
    arena.progress("SIGKILL of a writer's backend").await
}

/// SIGSTOP of the backends that write: connections are open and nothing comes back.
pub async fn stop_writers(
    arena: &mut Arena,
    cluster: &PostgresCluster,
    time: Duration,
) -> Result<()> {
    let writers = writers(&cluster.url).await?;
    for writer in &writers {
        kill_process(*writer, Signal::STOP)?;
    }
    tokio::time::sleep(time).await;
    for writer in &writers {
        kill_process(*writer, Signal::CONT)?;
    }
    arena.progress(&format!("SIGSTOP of the writers' backends for {} s", time.as_secs())).await
}

/// The backends of all replicas' writers, of this test's own cluster.
async fn writers(url: &str) -> Result<Vec<Pid>> {
    eventually(DEADLINE, "writers are connected", async || {
        let mut connection = PgConnection::connect(url).await?;
        let pids: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where application_name = 'procfleet-writer'",
        )
        .fetch_all(&mut connection)
        .await?;
        ensure!(!pids.is_empty(), "none");
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    })
    .await
}

/// A primary dies whose standby had stopped receiving: what was acknowledged meanwhile is lost, and the
/// agents fill it in again.
pub async fn fail_over(scale: Scale) -> Result<Verdict> {
    let mut primary = PostgresCluster::start_new().await?;
    let standby = primary.standby().await?;
    let listen = free_address()?;
    let _balancer =
        HaproxyProcess::start_for_databases(listen, [primary.address(), standby.address()]).await?;
    let url = format!("postgres://postgres@{listen}/postgres");
    let mut arena = Arena::start("fail-over", &url, scale).await?;
    wait_for_standby(&primary.url, &standby.url).await?;
    let mut to_standby = PgConnection::connect(&standby.url).await?;
    // The standby goes on serving, but hears nothing more.
    for statement in ["alter system set primary_conninfo = ''", "select pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut to_standby).await.context(statement)?;
    }
    eventually(DEADLINE, "the primary has lost its standby", async || {
        let mut connection = PgConnection::connect(&primary.url).await?;
        let senders: i64 = sqlx::query_scalar("select count(*) from pg_stat_replication")
            .fetch_one(&mut connection)
            .await?;
        ensure!(senders == 0, "{senders} senders");
        Ok(())
    })
    .await?;
    arena.progress("the loss of the standby").await?;
    arena.progress("the loss of the standby, again").await?;
    primary.kill()?;
    sqlx::query("select pg_promote(true, 30)").execute(&mut to_standby).await?;
    arena.progress("the promotion of the standby").await?;
    let verdict = arena.finish().await?;
    ensure!(verdict.refilled > 0, "the standby had lost nothing: {verdict:?}");
    Ok(verdict)
}

/// Waits until the standby has replayed what the primary has written by now.
async fn wait_for_standby(primary: &str, standby: &str) -> Result<()> {
    let written: String = sqlx::query_scalar("select pg_current_wal_lsn()::text")
        .fetch_one(&mut PgConnection::connect(primary).await?)
        .await?;
    let mut connection = PgConnection::connect(standby).await?;
    eventually(DEADLINE, "the standby has caught up", async || {
        let replayed: bool =
            sqlx::query_scalar("select coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)")
                .bind(&written)
                .fetch_one(&mut connection)
                .await?;
        ensure!(replayed, "not at {written}");
        Ok(())
    })
    .await
}
