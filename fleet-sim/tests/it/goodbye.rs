//! A real agent that is stopped says so; one that is killed does not.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::eventually::eventually;
use sqlx::PgConnection;

use crate::fleet::Fleet;

const DEADLINE: Duration = Duration::from_mins(1);

async fn goodbye(connection: &mut PgConnection) -> Result<Option<String>> {
    let said = "select goodbye from heartbeats";
    Ok(sqlx::query_scalar(said).fetch_one(connection).await?)
}

async fn reported(connection: &mut PgConnection, more_than: i64) -> Result<i64> {
    eventually(DEADLINE, "reports arrive", async || {
        let count = sqlx::query_scalar("select count(*) from host_samples");
        let count: i64 = count.fetch_one(&mut *connection).await?;
        ensure!(count > more_than, "{count}");
        Ok(count)
    })
    .await
}

#[tokio::test]
async fn an_agent_that_is_stopped_says_goodbye_and_a_killed_one_does_not() -> Result<()> {
    let fleet = Fleet::start("goodbye").await?;
    let mut agent = fleet.agent("agent", Duration::from_millis(500), false).await?;
    let mut connection = fleet.connect().await?;
    let count = reported(&mut connection, 0).await?;
    assert_eq!(goodbye(&mut connection).await?, None);

    agent.kill()?;
    assert_eq!(goodbye(&mut connection).await?, None, "it had no time to say anything");

    agent.run()?;
    let count = reported(&mut connection, count).await?;
    agent.terminate().await?;
    // This host does not go down: the agent is expected back.
    assert_eq!(goodbye(&mut connection).await?.as_deref(), Some("restart"));

    agent.run()?;
    reported(&mut connection, count + 1).await?;
    assert_eq!(goodbye(&mut connection).await?, None, "a report takes it back");
    agent.terminate().await?;
    agent.say_goodbye("uninstall").await?;
    assert_eq!(goodbye(&mut connection).await?.as_deref(), Some("uninstall"));
    Ok(())
}
