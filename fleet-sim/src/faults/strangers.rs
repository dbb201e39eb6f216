//! Strangers who connect and say nothing, or very slowly, and come again when they are turned away. They are a process of their own
//! (`fleet-sim strangers`): ten thousand connections are more than both ends of one process may hold.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Arena, Done};
use crate::child::{self, Child};
use crate::eventually::eventually;

/// Connections begun in a second.
const CONNECTING: u32 = 2000;
/// Between two bytes of a slow one.
const DRIP: Duration = Duration::from_millis(500);
/// Before one that was turned away comes again.
const PAUSE: Duration = Duration::from_secs(5);
/// The beginning of a TLS `ClientHello` that announces far more than it sends.
const HELLO: [u8; 6] = [22, 3, 1, 0x3f, 0xff, 1];
/// What the process prints when all have come.
const ALL_CAME: &str = "all came";
const DEADLINE: Duration = Duration::from_mins(2);

/// Arguments of `fleet-sim strangers`.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Where they connect to, in turn.
    addresses: Vec<SocketAddr>,
    /// How many.
    #[arg(long)]
    count: usize,
    /// How long they stay.
    #[arg(long)]
    seconds: u64,
}

/// Half of them idle, half dripping a handshake; the fleet goes on.
pub(super) fn run(arena: &mut Arena) -> Done<'_> {
    Box::pin(async move {
        let (count, before) = (arena.scale.connections, turned_away(arena).await?);
        let mut command = Command::new(child::binary("fleet-sim")?);
        command.args(["strangers", "--count", &count.to_string(), "--seconds", "600"]);
        command.args(arena.servers.iter().map(|server| server.doors().agent.to_string()));
        let mut crowd = Child::spawn("strangers", arena.deployment.directory.path(), &mut command)?;
        eventually(DEADLINE, "all strangers came", async || {
            crowd.check_alive()?;
            ensure!(crowd.log().contains(ALL_CAME), "not yet");
            Ok(())
        })
        .await?;
        arena.progress(&format!("while {count} strangers are there")).await?;
        tokio::time::sleep(arena.scale.broken).await;
        arena.progress(&format!("while {count} strangers are still there")).await?;
        crowd.kill()?;
        arena.progress("strangers").await?;
        let away = turned_away(arena).await? - before;
        ensure!(away > 0.0, "{count} strangers and none was turned away");
        Ok(())
    })
}

/// Connections refused, or ended before they had said who they are.
async fn turned_away(arena: &Arena) -> Result<f64> {
    let mut all = 0.0;
    for server in &arena.servers {
        for metric in ["connections_shed_total", "connections_failed_total"] {
            let name = format!("procfleet_server_{metric}");
            all += server.metric(&arena.api_key, &name, "").await?;
        }
    }
    Ok(all)
}

/// The process of the strangers.
pub async fn come(arguments: Arguments) -> Result<()> {
    ensure!(!arguments.addresses.is_empty(), "nowhere to go");
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut crowd = JoinSet::new();
    let mut turn = tokio::time::interval(Duration::from_secs(1) / CONNECTING);
    for number in 0..arguments.count {
        turn.tick().await;
        let address = arguments.addresses[number % arguments.addresses.len()];
        crowd.spawn(async move {
            while Instant::now() < end {
                // Refused and cut off is what strangers are.
                drop(tokio::time::timeout_at(end.into(), linger(address, number)).await);
                tokio::time::sleep_until((Instant::now() + PAUSE).min(end).into()).await;
            }
        });
    }
    println!("{ALL_CAME}");
    crowd.join_all().await;
    Ok(())
}

/// Until the server has had enough of it.
async fn linger(address: SocketAddr, number: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    if number.is_multiple_of(2) {
        stream.read_u8().await.context("wait for nothing")?;
    }
    for byte in HELLO.into_iter().chain(std::iter::repeat(0)) {
        stream.write_all(&[byte]).await.context("drip")?;
        tokio::time::sleep(DRIP).await;
    }
    Ok(())
}
