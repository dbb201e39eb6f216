//! Planted secrets appear nowhere in the database.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_sim::eventually::eventually;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::fleet::{DEADLINE, Fleet, wait_for_deltas};

/// What no table may hold, once per command line.
const SECRET: &str = "Zq7vanilla9hunter";

/// Ends of command lines; `@` is a secret of its own.
const LINES: &[&[&str]] = &[
    &["mysql", "-uroot", "-p@", "shop"],
    &["mysqladmin", "password", "@"],
    &["psql", "postgresql://app:@@db/shop"],
    &["env", "PGPASSWORD=@", "pg_dump"],
    &["redis-cli", "-a", "@", "info"],
    &["redis-cli", "AUTH", "app", "@"],
    &["mongosh", "-u", "app", "-p", "@"],
    &["curl", "-su", "app:@", "https://h/"],
    &["curl", "-H", "Authorization: Bearer @"],
    &["curl", "-d", "{\"user\": \"a\", \"password\": \"@\"}"],
    &["openssl", "rsa", "-passin", "pass:@"],
    &["java", "-Dspring.datasource.password=@", "-jar", "a.jar"],
    &["app", "--api-key", "@", "--token=@"],
    &["app", "AWS_SECRET_ACCESS_KEY=@"],
    &["app", "AKIAIOSFODNN7ZQ7VANX"],
    &["app", "AIza@0123456789abcdef"],
    &["app", "ghp_@0123456789abcdef"],
    &["app", "xoxb-@"],
    &["app", "pfj1_@"],
    &["app", "pfk1_@"],
    &["sh", "-c", "mysql -p@ -e 'select 1'"],
    &["mysql", "-e", "alter user a identified by '@'"],
];

/// A process that waits for the end of its input, or ends at once, with `words` in its command line.
fn start(script: &str, marker: &str, words: &[&str]) -> Result<Child> {
    let words = words.iter().map(|word| {
        let mut word = (*word).to_owned();
        // Of a URL, the last one is the URL's own.
        let at = word.find('@');
        if let Some(at) = at {
            word.replace_range(at..=at, SECRET);
        }
        word
    });
    let mut command = Command::new("sh");
    command.args(["-c", script, marker]).args(words).stdin(Stdio::piped());
    Ok(command.spawn()?)
}

/// Every row of every table whose text holds `text`, by table.
pub(crate) async fn found(connection: &mut PgConnection, text: &str) -> Result<Vec<String>> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', table_schema, table_name) from information_schema.tables
        where table_type = 'BASE TABLE' and table_schema = 'public'",
    )
    .fetch_all(&mut *connection)
    .await?;
    ensure!(tables.len() > 10, "{} tables", tables.len());
    let mut found = Vec::new();
    for table in tables {
        // A row as text: every column of it, bytes as hexadecimal digits.
        let query = format!(
            "select count(*) from {table} t where t::text like '%' || $1 || '%'
            or t::text like '%' || encode(convert_to($1, 'UTF8'), 'hex') || '%'"
        );
        let rows: i64 =
            sqlx::query_scalar(AssertSqlSafe(query)).bind(text).fetch_one(&mut *connection).await?;
        if rows > 0 {
            found.push(format!("{rows} rows of {table}"));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn planted_secrets_are_nowhere_in_the_database() -> Result<()> {
    let fleet = Fleet::start("secrets").await?;
    let mut agent = fleet.agent("agent", Duration::from_millis(500), true).await?;
    let mut connection = fleet.connect().await?;
    wait_for_deltas(&mut connection, &mut agent).await?;
    let mut children = Vec::new();
    for (at, words) in LINES.iter().enumerate() {
        children.push(start("read x; exit 0", &format!("planted-{at}-"), words)?);
        // One that is dead before any tick: its exit may tell its command line.
        start("exit 0", &format!("gone-{at}-"), words)?.wait()?;
    }
    eventually(DEADLINE, "every planted command line arrives", async || {
        for at in 0..LINES.len() {
            let query = "select count(*) from processes where command_line like $1";
            let rows: i64 = sqlx::query_scalar(query)
                .bind(format!("%planted-{at}-%"))
                .fetch_one(&mut connection)
                .await?;
            ensure!(rows > 0, "line {at} is missing");
        }
        Ok(())
    })
    .await?;
    for mut child in children {
        drop(child.stdin.take());
        child.wait()?;
    }
    // What they are told apart by is there, so the search would find the rest.
    let marked = found(&mut connection, "planted-0-").await?;
    ensure!(!marked.is_empty(), "the search finds nothing");
    for secret in [SECRET, "IOSFODNN7"] {
        let found = found(&mut connection, secret).await?;
        assert!(found.is_empty(), "{secret} is in {found:?}");
    }
    agent.terminate().await
}
