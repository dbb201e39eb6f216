//! The databases that `deploy/` sets up let in whom they should.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child;
use fleet_sim::postgres::PostgresCluster;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{repository, run, secrets};

#[tokio::test]
async fn the_database_of_compose_lets_the_server_and_grafana_in() -> Result<()> {
    let secrets = secrets()?;
    let cluster = PostgresCluster::start_new().await?;
    let address = cluster.address();
    let mut command = Command::new("sh");
    // Sourced, as the image does with what is not executable.
    command.args(["-euc", ". \"$0\""]).arg(repository().join("deploy/docker/create-database.sh"));
    command.env("PROCFLEET_SECRETS", secrets.path()).env("PGHOST", address.ip().to_string());
    command.env("PGPORT", address.port().to_string());
    run(&mut command)?;

    let server = |arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new(child::binary("procfleet-server")?);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_")) {
            command.env_remove(name);
        }
        command.env("PROCFLEET_CA_KEY_FILE", secrets.path().join("ca.key"));
        let url = format!("postgres://procfleet@{address}/procfleet");
        run(command.env("PROCFLEET_DATABASE_URL", url).args(arguments))
    };
    server(&["migrate"])?;
    server(&["init"])?;

    let url = format!("postgres://procfleet_reader@{address}/procfleet");
    let mut reader = PgConnection::connect(&url).await?;
    sqlx::query("select * from procfleet_hosts limit 1").fetch_optional(&mut reader).await?;
    let refused = sqlx::query("select * from api_keys").fetch_optional(&mut reader).await;
    ensure!(refused.is_err(), "Grafana's role reads secrets");
    let timeout: String =
        sqlx::query_scalar("show statement_timeout").fetch_one(&mut reader).await?;
    assert_eq!(timeout, "30s", "migrate could not set what the role is limited to");
    let query = "select count(*) from pg_roles where rolname like 'procfleet%' and rolsuper";
    let supers: i64 = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut reader).await?;
    assert_eq!(supers, 0);
    Ok(())
}

#[tokio::test]
async fn who_is_no_superuser_migrates_timescaledb() -> Result<()> {
    let url = std::env::var("PROCFLEET_TEST_TIMESCALEDB_URL").context("run `cargo xtask test`")?;
    let name = format!("owner_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&url).await?;
    let role = format!("create role {name} login createrole password '{name}'");
    let database = format!("create database {name} owner {name}");
    for statement in [role, database] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await?;
    }
    let mut own: reqwest::Url = url.parse()?;
    let taken = own.set_username(&name).and_then(|()| own.set_password(Some(&name)));
    ensure!(taken.is_ok(), "{own}");
    own.set_path(&name);
    let migrated = Command::new(child::binary("procfleet-server")?)
        .env("PROCFLEET_DATABASE_URL", own.as_str())
        .arg("migrate")
        .output()?;
    let mut owner = PgConnection::connect(own.as_str()).await?;
    let query = "select count(*) from pg_extension where extname = 'timescaledb'";
    let extensions: i64 = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut owner).await?;
    owner.close().await?;
    for statement in [format!("drop database {name} (force)"), format!("drop role {name}")] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await?;
    }
    ensure!(migrated.status.success(), "{migrated:?}");
    assert_eq!(extensions, 1);
    Ok(())
}
