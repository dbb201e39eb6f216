//! A primary dies whose standby had stopped receiving: what was acknowledged meanwhile is lost, and the
//! agents fill it in again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, PgConnection};

use super::{Arena, Done, Scale, Verdict};
use crate::address::free_address;
use crate::eventually::eventually;
use crate::haproxy::HaproxyProcess;
use crate::postgres::PostgresCluster;

const DEADLINE: Duration = Duration::from_mins(1);

pub(super) fn run(scale: Scale) -> Done<'static, Verdict> {
    Box::pin(fail_over(scale))
}

async fn fail_over(scale: Scale) -> Result<Verdict> {
    let primary = PostgresCluster::start_new().await?;
    let standby = primary.standby().await?;
    let listen = free_address()?;
    let _balancer =
        HaproxyProcess::start_for_databases(listen, [primary.address(), standby.address()]).await?;
    let url = format!("postgres://postgres@{listen}/postgres");
    let mut arena = Arena::start("fail-over", primary, Some(&url), None, scale).await?;
    wait_for_standby(&arena.cluster.url, &standby.url).await?;
    let mut to_standby = PgConnection::connect(&standby.url).await?;
    // The standby goes on serving, but hears nothing more.
    for statement in ["alter system set primary_conninfo = ''", "select pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut to_standby).await.context(statement)?;
    }
    eventually(DEADLINE, "the primary has lost its standby", async || {
        let mut connection = PgConnection::connect(&arena.cluster.url).await?;
        let senders: i64 = sqlx::query_scalar("select count(*) from pg_stat_replication")
            .fetch_one(&mut connection)
            .await?;
        ensure!(senders == 0, "{senders} senders");
        Ok(())
    })
    .await?;
    arena.progress("the loss of the standby").await?;
    arena.progress("the loss of the standby, again").await?;
    arena.cluster.kill()?;
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
