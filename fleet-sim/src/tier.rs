//! `fleet-sim tier`: replicas of the server behind a real HAProxy in TCP passthrough, to try things on.
//!
//! TLS ends in the replicas; the balancer asks each one's `/readyz`, which says 200 also while the database is down, so
//! that it never takes all of them out at once. Its configuration is printed: it is the one to copy.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::address::free_address;
use crate::haproxy::{HaproxyProcess, configuration};
use crate::server::{Deployment, Doors};

/// What to start.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A database that may be migrated and filled.
    #[arg(long, env = "PROCFLEET_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Servers.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Where an enrolment token is written.
    #[arg(long, default_value = "tier.token")]
    token_file: PathBuf,
}

/// Starts all of it, says how to use it, and stops it at Ctrl-C.
pub async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.replicas > 0, "at least one replica");
    let listen = free_address()?;
    let endpoint = format!("https://{listen}");
    let deployment =
        Deployment::create("tier", &arguments.database_url, vec![endpoint.clone()]).await?;
    let (mut doors, mut servers) = (Vec::new(), Vec::new());
    for number in 0..arguments.replicas {
        doors.push(Doors::free()?);
        servers.push(deployment.start(&format!("server-{number}"), doors[number]).await?);
    }
    let mut balancer = HaproxyProcess::start(listen, &doors).await?;
    let token = deployment.create_token("tier", &["--max-uses", "100000"]).await?;
    std::fs::copy(&token, &arguments.token_file)
        .with_context(|| format!("write {}", arguments.token_file.display()))?;
    println!("{}", configuration(listen, &doors)?);
    println!("Agents connect to {endpoint}; operators to:");
    for door in &doors {
        println!("  http://{}", door.operator);
    }
    println!("A fleet: fleet-sim run --token-file {}", arguments.token_file.display());
    println!("Ctrl-C stops it.");
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    balancer.check_alive()?;
    for server in &mut servers {
        server.terminate().await?;
    }
    Ok(())
}
