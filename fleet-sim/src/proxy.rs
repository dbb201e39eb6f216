//! A TCP proxy that misbehaves on purpose, between agents and a server.
//!
//! TLS passes through it untouched, so it sees bytes, not requests. What it can tell is who speaks: a
//! client's first byte after the server's last one begins an *exchange*. The first [`HANDSHAKE_EXCHANGES`]
//! of a connection may be the handshake and its session tickets; those after them are one HTTP request
//! and its response each, because an agent has one request in flight. Only they are harmed, in the order
//! of a plan that repeats, so a test knows what share of its responses were lost.
//!
//! TLS forbids replaying bytes. A repeat therefore comes from the agent itself, which never saw the
//! answer to a request that was carried out ([`Fault::DropResponse`]); and a request is reordered by
//! delivering it late, when the agent has given up on its connection and already sent it again on
//! another ([`Fault::LateRequest`]).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::random::Random;

/// Exchanges of a connection that are never harmed: hello, and finished with the session tickets.
pub const HANDSHAKE_EXCHANGES: u32 = 3;
const BUFFER_BYTES: usize = 64 << 10;
/// A request is complete when its client is quiet for this long. Too short only makes a request that
/// arrives late arrive incomplete, which is a fault too.
const QUIET: Duration = Duration::from_millis(30);
/// Most bytes of a late request held back.
const MAX_HELD_BYTES: usize = 8 << 20;
/// How long a late request may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What happens to one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The request is carried out; its response is thrown away and the connection cut.
    DropResponse,
    /// The connection is cut towards the client at once, and the request reaches the server after this.
    LateRequest(Duration),
    /// The first bytes of the request get through, then both sides are reset.
    Reset,
    /// The response is held back for this long.
    Stall(Duration),
    /// Nothing goes through any more in either direction, and nobody is told.
    HalfOpen,
}

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Exchanges that went through whole.
    pub delivered: u64,
    /// See [`Fault::DropResponse`].
    pub dropped_responses: u64,
    /// See [`Fault::LateRequest`].
    pub late_requests: u64,
    /// See [`Fault::Reset`].
    pub resets: u64,
    /// See [`Fault::Stall`].
    pub stalls: u64,
    /// See [`Fault::HalfOpen`].
    pub half_open: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    plan: Vec<Fault>,
    next_fault: AtomicUsize,
    connections: AtomicU64,
    harm: AtomicBool,
    refuse: AtomicBool,
    counts: Mutex<ProxyCounts>,
    max_accept_delay: Duration,
    seed: u64,
    cut: Mutex<CancellationToken>,
}

/// A running proxy; stops with its value.
#[derive(Debug)]
pub struct FaultyProxy {
    shared: Arc<Shared>,
    stop: CancellationToken,
    // Aborts the accept loop on drop; connections end by `stop`.
    _accepting: JoinSet<()>,
}

impl FaultyProxy {
    /// Listens on `listen`; the n-th harmful exchange suffers `plan[n % plan.len()]`. Connections
    /// reach the server up to `max_accept_delay` late, so that they overtake each other.
    pub async fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        plan: Vec<Fault>,
        max_accept_delay: Duration,
        seed: u64,
    ) -> Result<Self> {
        let listener = TcpListener::bind(listen).await.context("bind the proxy")?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream,
            plan,
            next_fault: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            harm: AtomicBool::new(true),
            refuse: AtomicBool::new(false),
            counts: Mutex::default(),
            max_accept_delay,
            seed,
            cut: Mutex::new(stop.child_token()),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, stop, _accepting: accepting })
    }

    /// What happened so far.
    pub fn counts(&self) -> ProxyCounts {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether exchanges are harmed from now on.
    pub fn set_harmful(&self, harm: bool) {
        self.shared.harm.store(harm, Ordering::Relaxed);
    }

    /// Cuts every connection, and closes new ones at once for as long as `refuse`.
    pub fn set_refusing(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::Relaxed);
        if refuse {
            let fresh = self.stop.child_token();
            let mut cut = self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *cut, fresh).cancel();
        }
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let connections = TaskTracker::new();
    while let Ok((client, _)) = listener.accept().await {
        if shared.refuse.load(Ordering::Relaxed) {
            continue;
        }
        let cut = shared.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                // Errors are connections that ended, which is what connections do.
                result = relay(client, &shared) => drop(result),
            }
        });
    }
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut ProxyCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the next exchange that may be harmed suffers.
    fn next_fault(&self) -> Fault {
        if self.plan.is_empty() || !self.harm.load(Ordering::Relaxed) {
            return Fault::None;
        }
        self.plan[self.next_fault.fetch_add(1, Ordering::Relaxed) % self.plan.len()]
    }

    fn accept_delay(&self) -> Duration {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let bound = u64::try_from(self.max_accept_delay.as_millis()).unwrap_or(0) + 1;
        Duration::from_millis(Random::new(self.seed ^ number).below(bound))
    }
}

/// One connection.
async fn relay(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let delay = shared.accept_delay();
    shared.count(|counts| counts.connections += 1);
    tokio::time::sleep(delay).await;
    let server = TcpStream::connect(shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut relay = Relay {
        client,
        server,
        exchange: 0,
        client_speaks: false,
        fault: Fault::None,
        held: Vec::new(),
        shared,
    };
    let mut from_client = vec![0; BUFFER_BYTES];
    let mut from_server = vec![0; BUFFER_BYTES];
    loop {
        let goes_on = tokio::select! {
            read = relay.client.read(&mut from_client) => match read? {
                0 => return Ok(()),
                length => relay.on_request(&from_client[..length]).await?,
            },
            read = relay.server.read(&mut from_server) => match read? {
                0 => return Ok(()),
                length => relay.on_response(&from_server[..length]).await?,
            },
        };
        if !goes_on {
            break;
        }
    }
    relay.late_request(&mut from_client).await
}

struct Relay<'a> {
    client: TcpStream,
    server: TcpStream,
    exchange: u32,
    client_speaks: bool,
    fault: Fault,
    held: Vec<u8>,
    shared: &'a Shared,
}

impl Relay<'_> {
    /// Whether the connection goes on.
    async fn on_request(&mut self, bytes: &[u8]) -> std::io::Result<bool> {
        if !self.client_speaks {
            self.client_speaks = true;
            self.exchange += 1;
            let mature = self.exchange > HANDSHAKE_EXCHANGES;
            self.fault = if mature { self.shared.next_fault() } else { Fault::None };
        }
        match self.fault {
            Fault::LateRequest(_) => {
                self.held.extend_from_slice(bytes);
                return Ok(false);
            }
            Fault::Reset => {
                self.shared.count(|counts| counts.resets += 1);
                self.server.write_all(&bytes[..bytes.len() / 2]).await?;
                self.client.set_zero_linger()?;
                self.server.set_zero_linger()?;
                return Ok(false);
            }
            Fault::HalfOpen => {
                self.shared.count(|counts| counts.half_open += 1);
                return std::future::pending().await;
            }
            Fault::None | Fault::DropResponse | Fault::Stall(_) => {}
        }
        self.server.write_all(bytes).await?;
        Ok(true)
    }

    /// Whether the connection goes on.
    async fn on_response(&mut self, bytes: &[u8]) -> std::io::Result<bool> {
        if self.client_speaks {
            self.client_speaks = false;
            match self.fault {
                Fault::DropResponse => {
                    self.shared.count(|counts| counts.dropped_responses += 1);
                    return Ok(false);
                }
                Fault::Stall(delay) => {
                    self.shared.count(|counts| counts.stalls += 1);
                    tokio::time::sleep(delay).await;
                }
                _ => self.shared.count(|counts| counts.delivered += 1),
            }
        }
        self.client.write_all(bytes).await?;
        Ok(true)
    }

    /// Cuts the client off, and delivers what it said when it has long said it again elsewhere.
    async fn late_request(mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        let Fault::LateRequest(delay) = self.fault else { return Ok(()) };
        self.shared.count(|counts| counts.late_requests += 1);
        while self.held.len() < MAX_HELD_BYTES {
            match tokio::time::timeout(QUIET, self.client.read(buffer)).await {
                Ok(Ok(length)) if length > 0 => self.held.extend_from_slice(&buffer[..length]),
                _ => break,
            }
        }
        drop(self.client);
        tokio::time::sleep(delay).await;
        self.server.write_all(&self.held).await?;
        // Its answer has nobody to go to; reading it lets the server finish.
        tokio::time::timeout(ANSWER_DEADLINE, self.server.read(buffer)).await??;
        Ok(())
    }
}
