//! A receiver of messages, as a provider runs one: takes its time, says yes, and remembers all it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::address::free_address;
use crate::random::Random;

/// Longest it takes to answer: so long that whoever tells it may die meanwhile.
const MAX_DELAY_MS: u64 = 200;
/// A whole request, head and body.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// One that listens until it is dropped.
#[derive(Debug)]
pub struct ProviderStandIn {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Value>>>,
    _tasks: JoinSet<()>,
}

impl ProviderStandIn {
    /// Listens on a free port of this process's own address.
    pub async fn start(seed: u64) -> Result<Self> {
        let address = free_address()?;
        let listener = TcpListener::bind(address).await.context("listen for messages")?;
        let received = Arc::<Mutex<Vec<Value>>>::default();
        let told = Arc::clone(&received);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut random = Random::new(seed);
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                let delay = Duration::from_millis(random.below(MAX_DELAY_MS));
                let told = Arc::clone(&told);
                open.spawn(async move { drop(serve(stream, &told, delay).await) });
            }
        });
        Ok(Self { address, received, _tasks: tasks })
    }

    /// The bodies in the order in which they were complete; what is no JSON is null.
    pub fn messages(&self) -> Vec<Value> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    received: &Mutex<Vec<Value>>,
    delay: Duration,
) -> std::io::Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 16384]);
    let body = loop {
        let read = stream.read(&mut chunk).await?;
        bytes.extend_from_slice(&chunk[..read]);
        if read == 0 || bytes.len() > MAX_REQUEST_BYTES {
            return Ok(());
        }
        if let Some(body) = body(&bytes) {
            break serde_json::from_slice(body).unwrap_or(Value::Null);
        }
    };
    received.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    tokio::time::sleep(delay).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    stream.write_all(answer.as_bytes()).await
}

/// The body, once all of it is there.
fn body(request: &[u8]) -> Option<&[u8]> {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    request[end..].get(..length.trim().parse().ok()?)
}
