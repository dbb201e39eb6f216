//! Strangers who connect and say nothing, or very slowly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Arena;

/// Connections being made at the same time.
const CONNECTING: usize = 64;
/// Between two bytes of a slow one.
const DRIP: Duration = Duration::from_millis(500);
/// The beginning of a TLS `ClientHello` that announces far more than it sends.
const HELLO: [u8; 6] = [22, 3, 1, 0x3f, 0xff, 1];

/// `count` connections to each replica's agent door, half of them idle, half dripping a handshake; the fleet goes on.
pub async fn idle_and_slow(arena: &mut Arena, count: usize, time: Duration) -> Result<()> {
    let doors: Vec<_> = arena.servers.iter().map(|server| server.doors().agent).collect();
    let end = Instant::now() + time.max(Duration::from_secs(5));
    let mut crowd = JoinSet::new();
    let (mut connected, mut connecting) = (Vec::new(), JoinSet::new());
    for number in 0..count {
        if connecting.len() >= CONNECTING {
            connected.extend(connecting.join_next().await.transpose()?.flatten());
        }
        connecting.spawn(connect(doors[number % doors.len()]));
    }
    while let Some(stream) = connecting.join_next().await {
        connected.extend(stream?);
    }
    let open = connected.len();
    for (number, stream) in connected.into_iter().enumerate() {
        crowd.spawn(linger(stream, number.is_multiple_of(2), end));
    }
    arena.progress(&format!("while {open} strangers are connected")).await?;
    crowd.join_all().await;
    let mut turned_away = 0.0;
    for server in &arena.servers {
        for metric in ["connections_shed_total", "connections_failed_total"] {
            let name = format!("procfleet_server_{metric}");
            turned_away += server.metric(&arena.api_key, &name, "").await?;
        }
    }
    ensure!(turned_away > 0.0, "{open} connections and none was turned away");
    arena.progress(&format!("{open} idle and slow connections")).await
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    let connecting = TcpStream::connect(address);
    tokio::time::timeout(Duration::from_secs(5), connecting).await.ok()?.ok()
}

/// Until `end`, or until the server has had enough of it.
async fn linger(mut stream: TcpStream, drips: bool, end: Instant) {
    for byte in HELLO.into_iter().chain(std::iter::repeat(0)) {
        if Instant::now() >= end || (drips && stream.write_all(&[byte]).await.is_err()) {
            return;
        }
        tokio::time::sleep(DRIP).await;
    }
}
