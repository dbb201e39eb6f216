//! A TCP proxy that misbehaves on purpose, between agents and a server.
//!
//! TLS passes through it untouched, but not unseen: records travel in clear frames (RFC 8446 §5.1), and
//! an agent has one request in flight. So the proxy knows what is what without a key: a client's first
//! record of application data carries the rest of its handshake (one flight, one record, in TLS 1.3
//! as rustls speaks it), the server's first one after that its session tickets, and all that follow are
//! requests and responses in turn (but for alerts, told by their length). The first request waits for the
//! tickets, so that no ticket is taken for its response. Whole records are passed on, one at a time.
//!
//! Every n-th response is lost after it left the server ([`Faults::drop_every`]); before that, requests
//! suffer what a repeating plan says. So a test knows exactly how many answers were lost.
//!
//! TLS forbids replaying bytes. A repeat therefore comes from the agent itself, which never saw the
//! answer to a request that was carried out; and a request is reordered by delivering it late, when the
//! agent has given up on its connection and already sent it again on another
//! ([`Fault::LateRequest`]), or by a connection that reaches the server later than one opened after it.

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
use records::{Kind, Records};

mod records;

/// A request is complete when its client is quiet for this long. Too short only makes a request that
/// arrives late arrive incomplete, which is a fault too.
const QUIET: Duration = Duration::from_millis(30);
/// Most bytes of a late request held back.
const MAX_HELD_BYTES: usize = 8 << 20;
/// How long a late request may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is cut towards the client at once, and the request reaches the server after this.
    LateRequest(Duration),
    /// The first bytes of the request get through, then both sides are reset.
    Reset,
    /// The response is held back for this long.
    Stall(Duration),
    /// Nothing goes through any more in either direction, and nobody is told.
    HalfOpen,
}

/// What a proxy does to those who use it.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every so many responses of the server, one is thrown away and its connection cut. 0: none is.
    pub drop_every: u64,
    /// The n-th request suffers `requests[n % len]`.
    pub requests: Vec<Fault>,
    /// Connections reach the server up to this much late, so that they overtake each other.
    pub max_accept_delay: Duration,
    /// Of the delays.
    pub seed: u64,
}

/// How often what happened while harm was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Requests begun.
    pub requests: u64,
    /// Responses that left the server and had a client to go to.
    pub responses: u64,
    /// Of these, those thrown away.
    pub dropped_responses: u64,
    /// See [`Fault::LateRequest`].
    pub late_requests: u64,
    /// Of these, those that the server answered.
    pub late_answered: u64,
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
    faults: Faults,
    next_fault: AtomicUsize,
    connections: AtomicU64,
    harm: AtomicBool,
    refuse: AtomicBool,
    counts: Mutex<ProxyCounts>,
    cut: Mutex<CancellationToken>,
}

/// A running proxy; stops with its value.
#[derive(Debug)]
pub struct FaultyProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
    // Aborts the accept loop on drop; connections end by `stop`.
    _accepting: JoinSet<()>,
}

impl FaultyProxy {
    /// Listens on `listen`, and does no harm yet.
    pub async fn start(listen: SocketAddr, upstream: SocketAddr, faults: Faults) -> Result<Self> {
        let listener = TcpListener::bind(listen).await.context("bind the proxy")?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream,
            faults,
            next_fault: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            harm: AtomicBool::new(false),
            refuse: AtomicBool::new(false),
            counts: Mutex::default(),
            cut: Mutex::new(stop.child_token()),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address: listen, stop, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened so far.
    pub fn counts(&self) -> ProxyCounts {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether harm is done from now on.
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
    fn is_harmful(&self) -> bool {
        self.harm.load(Ordering::Relaxed)
    }

    fn count<T>(&self, change: impl FnOnce(&mut ProxyCounts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the next request suffers.
    fn next_fault(&self) -> Fault {
        if !self.is_harmful() {
            return Fault::None;
        }
        self.count(|counts| counts.requests += 1);
        let number = self.next_fault.fetch_add(1, Ordering::Relaxed);
        let plan = &self.faults.requests;
        number.checked_rem(plan.len()).map_or(Fault::None, |place| plan[place])
    }

    /// Whether the response that begins now is lost.
    fn drops_response(&self) -> bool {
        self.is_harmful()
            && self.count(|counts| {
                counts.responses += 1;
                let drops = counts.responses.checked_rem(self.faults.drop_every) == Some(0);
                counts.dropped_responses += u64::from(drops);
                drops
            })
    }

    fn accept_delay(&self) -> Duration {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let bound = u64::try_from(self.faults.max_accept_delay.as_millis()).unwrap_or(0) + 1;
        Duration::from_millis(Random::new(self.faults.seed ^ number).below(bound))
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
    let mut relay = Relay { client, server, stage: Stage::Hello, held: Vec::new(), shared };
    let (mut from_client, mut from_server) = (Records::default(), Records::default());
    loop {
        tokio::select! {
            read = relay.client.read_buf(&mut from_client.buffer) => if read? == 0 { return Ok(()) },
            read = relay.server.read_buf(&mut from_server.buffer) => if read? == 0 { return Ok(()) },
        }
        // The server first: what the client says next may depend on where the server is.
        while let Some(record) = from_server.next() {
            if !relay.on_server(&record).await? {
                return Ok(());
            }
        }
        while relay.stage != Stage::Finished
            && let Some(record) = from_client.next()
        {
            if !relay.on_client(&record).await? {
                return relay.late_request(from_client).await;
            }
        }
    }
}

/// What the next record of application data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client's last flight of the handshake.
    Hello,
    /// The server's tickets.
    Finished,
    /// The client's, a new request; the server's, more of the response.
    Response,
    /// The client's, more of the request; the server's, its response.
    Request(Fault),
}

struct Relay<'a> {
    client: TcpStream,
    server: TcpStream,
    stage: Stage,
    /// A late request.
    held: Vec<u8>,
    shared: &'a Shared,
}

impl Relay<'_> {
    /// Passes a client's record on. Whether the connection goes on.
    async fn on_client(&mut self, record: &[u8]) -> std::io::Result<bool> {
        if Kind::of(record) == Kind::Data {
            self.stage = match self.stage {
                Stage::Hello | Stage::Finished => Stage::Finished,
                Stage::Response => Stage::Request(self.shared.next_fault()),
                Stage::Request(fault) => Stage::Request(fault),
            };
        }
        let Stage::Request(fault) = self.stage else {
            self.server.write_all(record).await?;
            return Ok(true);
        };
        match fault {
            Fault::LateRequest(_) => {
                self.held.extend_from_slice(record);
                return Ok(false);
            }
            Fault::Reset => {
                self.shared.count(|counts| counts.resets += 1);
                self.server.write_all(&record[..record.len() / 2]).await?;
                self.client.set_zero_linger()?;
                self.server.set_zero_linger()?;
                return Ok(false);
            }
            Fault::HalfOpen => {
                self.shared.count(|counts| counts.half_open += 1);
                return std::future::pending().await;
            }
            Fault::None | Fault::Stall(_) => {}
        }
        self.server.write_all(record).await?;
        Ok(true)
    }

    /// Passes a server's record on. Whether the connection goes on.
    async fn on_server(&mut self, record: &[u8]) -> std::io::Result<bool> {
        match self.stage {
            Stage::Finished if Kind::of(record) == Kind::Data => self.stage = Stage::Response,
            Stage::Request(fault) if Kind::of(record) == Kind::Data => {
                self.stage = Stage::Response;
                if self.shared.drops_response() {
                    return Ok(false);
                }
                if let Fault::Stall(delay) = fault {
                    self.shared.count(|counts| counts.stalls += 1);
                    tokio::time::sleep(delay).await;
                }
            }
            _ => {}
        }
        self.client.write_all(record).await?;
        Ok(true)
    }

    /// Cuts the client off, and delivers what it said when it has long said it again elsewhere.
    async fn late_request(mut self, mut from_client: Records) -> std::io::Result<()> {
        let Stage::Request(Fault::LateRequest(delay)) = self.stage else { return Ok(()) };
        self.shared.count(|counts| counts.late_requests += 1);
        while self.held.len() + from_client.buffer.len() < MAX_HELD_BYTES {
            let more = self.client.read_buf(&mut from_client.buffer);
            match tokio::time::timeout(QUIET, more).await {
                Ok(Ok(length)) if length > 0 => {}
                _ => break,
            }
        }
        self.held.append(&mut from_client.buffer);
        drop(self.client);
        tokio::time::sleep(delay).await;
        self.server.write_all(&self.held).await?;
        // Its answer has nobody to go to; reading it lets the server finish.
        let mut answer = [0; 1024];
        let read = tokio::time::timeout(ANSWER_DEADLINE, self.server.read(&mut answer)).await??;
        self.shared.count(|counts| counts.late_answered += u64::from(read > 0));
        Ok(())
    }
}
