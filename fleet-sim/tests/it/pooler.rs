//! A pooler in transaction mode between server and database is refused, in words that say what to do.

use anyhow::{Result, ensure};
use fleet_sim::pgbouncer::PgBouncerProcess;
use fleet_sim::postgres::PostgresCluster;
use fleet_sim::server::Deployment;

#[tokio::test]
async fn pgbouncer_is_refused_by_name() -> Result<()> {
    let cluster = PostgresCluster::start_new().await?;
    for lenient in [false, true] {
        let pooler = PgBouncerProcess::start(cluster.address(), lenient).await?;
        let refused = Deployment::create("pooler", &pooler.url, Vec::new()).await;
        let Err(error) = refused else {
            anyhow::bail!("migrated through a pooler (lenient: {lenient})")
        };
        let text = format!("{error:#}");
        ensure!(
            text.contains("connection pooler (such as PgBouncer)"),
            "lenient: {lenient}: {text}"
        );
        ensure!(text.contains("address of PostgreSQL itself"), "{text}");
    }
    Ok(())
}
