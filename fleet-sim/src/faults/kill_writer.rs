//! SIGKILL of the backend of a writer: the database throws everybody out and recovers by itself.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Signal, kill_process};
use sqlx::{Connection as _, PgConnection};

use super::{Arena, Done};
use crate::eventually::eventually;

const DEADLINE: Duration = Duration::from_mins(1);

pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let writers = arena.writers().await?;
        let mut bystander = PgConnection::connect(&arena.cluster.url).await?;
        kill_process(*writers.first().context("no writer")?, Signal::KILL)?;
        eventually(DEADLINE, "the database throws everybody out", async || {
            let answer = sqlx::query("select 1").execute(&mut bystander).await;
            ensure!(answer.is_err(), "it still answers");
            Ok(())
        })
        .await?;
        eventually(DEADLINE, "the database has recovered", async || {
            PgConnection::connect(&arena.cluster.url).await?.close().await
        })
        .await?;
        arena.progress("SIGKILL of a writer's backend").await
    })
}
