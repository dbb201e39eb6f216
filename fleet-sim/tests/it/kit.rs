//! The kit's own parts: a test that trusts a broken instrument proves nothing.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::address::free_address;
use fleet_sim::child::{self, Child, Directory};
use fleet_sim::eventually::eventually;
use fleet_sim::haproxy::HaproxyProcess;
use fleet_sim::postgres::PostgresCluster;
use fleet_sim::proxy::{Fault, Faults, FaultyProxy};
use fleet_sim::server::Doors;
use fleet_sim::simulated::generator::Generator;
use shared_model::HostFacts;
use time::macros::datetime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uuid::Uuid;

/// `ContentType` of TLS records.
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// Answers every TLS record of one byte by one of its kind, the byte in upper case, and remembers all of
/// them in order. Nothing is encrypted: the proxy cannot tell.
struct Echo {
    address: SocketAddr,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Echo {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind(free_address()?).await?;
        let address = listener.local_addr()?;
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let bytes = std::sync::Arc::clone(&seen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let bytes = std::sync::Arc::clone(&bytes);
                connections.spawn(async move {
                    let mut record = [0; 6];
                    while stream.read_exact(&mut record).await.is_ok() {
                        bytes.lock().unwrap().push(record[5]);
                        record[5] = record[5].to_ascii_uppercase();
                        if stream.write_all(&record).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(Self { address, seen, _tasks: tasks })
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

/// One record there and one back.
async fn exchange(stream: &mut TcpStream, kind: u8, byte: u8) -> std::io::Result<u8> {
    let mut record = [kind, 3, 3, 0, 1, byte];
    stream.write_all(&record).await?;
    stream.read_exact(&mut record).await?;
    Ok(record[5])
}

/// A request and its response, as the proxy sees them.
async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    exchange(stream, DATA, byte).await
}

/// Both ways of a handshake: in clear (`1`), then the client's end of it and the server's tickets (`2`).
async fn shake_hands(stream: &mut TcpStream) -> Result<()> {
    assert_eq!(exchange(stream, HANDSHAKE, b'1').await?, b'1');
    assert_eq!(exchange(stream, DATA, b'2').await?, b'2');
    Ok(())
}

async fn proxy(
    echo: &Echo,
    drop_every: u64,
    requests: Vec<Fault>,
) -> Result<(FaultyProxy, TcpStream)> {
    let address = free_address()?;
    let faults = Faults { drop_every, requests, ..Faults::default() };
    let proxy = FaultyProxy::start(address, echo.address, faults).await?;
    proxy.set_harmful(true);
    let mut stream = TcpStream::connect(address).await?;
    shake_hands(&mut stream).await.context("the handshake is never harmed")?;
    Ok((proxy, stream))
}

#[tokio::test]
async fn every_third_response_is_dropped_after_it_was_carried_out() -> Result<()> {
    let echo = Echo::start().await?;
    let (proxy, mut stream) = proxy(&echo, 3, Vec::new()).await?;
    for number in 1..=10 {
        let answer = ask(&mut stream, b'a').await;
        assert_eq!(answer.is_ok(), number % 3 != 0, "{number}: {answer:?}");
        if answer.is_err() {
            stream = TcpStream::connect(proxy.address()).await?;
            shake_hands(&mut stream).await?;
        }
    }
    let seen: Vec<_> = echo.seen().into_iter().filter(u8::is_ascii_lowercase).collect();
    assert_eq!(seen, [b'a'; 10]);
    let counts = proxy.counts();
    assert_eq!((counts.requests, counts.responses, counts.dropped_responses), (10, 10, 3));
    proxy.set_harmful(false);
    for _ in 0..3 {
        assert_eq!(ask(&mut stream, b'b').await?, b'B');
    }
    assert_eq!(proxy.counts(), counts, "only harm is counted");
    Ok(())
}

#[tokio::test]
async fn a_first_request_sent_with_the_handshake_is_told_from_it() -> Result<()> {
    let echo = Echo::start().await?;
    let (proxy, _) = proxy(&echo, 1, Vec::new()).await?;
    let mut stream = TcpStream::connect(proxy.address()).await?;
    assert_eq!(exchange(&mut stream, HANDSHAKE, b'1').await?, b'1');
    stream.write_all(&[DATA, 3, 3, 0, 1, b'2', DATA, 3, 3, 0, 1, b'a']).await?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await?;
    assert_eq!(received, [DATA, 3, 3, 0, 1, b'2'], "the tickets, and nothing more");
    assert!(echo.seen().ends_with(b"12a"));
    Ok(())
}

#[tokio::test]
async fn a_late_request_arrives_after_its_repeat() -> Result<()> {
    let echo = Echo::start().await?;
    let late = Fault::LateRequest(Duration::from_millis(300));
    let (proxy, mut stream) = proxy(&echo, 0, vec![late]).await?;
    assert!(ask(&mut stream, b'a').await.is_err(), "the client is cut off");
    let mut again = TcpStream::connect(echo.address).await?;
    assert_eq!(ask(&mut again, b'b').await?, b'B');
    eventually(Duration::from_secs(5), "the late request arrives", async || {
        if echo.seen() == b"12ba" { Ok(()) } else { Err(format!("{:?}", echo.seen())) }
    })
    .await?;
    assert_eq!(proxy.counts().late_requests, 1);
    Ok(())
}

#[tokio::test]
async fn the_other_faults_do_what_they_say() -> Result<()> {
    let echo = Echo::start().await?;
    let stall = Fault::Stall(Duration::from_millis(20));
    let (reset, mut stream) = proxy(&echo, 0, vec![stall, Fault::Reset]).await?;
    assert_eq!(ask(&mut stream, b'a').await?, b'A', "a stalled response arrives");
    assert!(ask(&mut stream, b'b').await.is_err(), "a reset ends the connection");
    assert_eq!((reset.counts().stalls, reset.counts().resets), (1, 1));

    let (half_open, mut stream) = proxy(&echo, 0, vec![Fault::HalfOpen]).await?;
    let answer = tokio::time::timeout(Duration::from_millis(200), ask(&mut stream, b'c')).await;
    assert!(answer.is_err(), "nobody is told: {answer:?}");
    assert!(!echo.seen().contains(&b'c'));
    half_open.set_refusing(true);
    assert!(stream.read_u8().await.is_err(), "refusing cuts what is open");
    Ok(())
}

/// One process for both doors: says 200 to `/readyz`, and its number to everybody.
fn web_server(number: u8, doors: Doors, tasks: &mut JoinSet<()>) {
    for address in [doors.agent, doors.operator] {
        tasks.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                drop(stream.read(&mut request).await);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
    }
}

async fn answer_of(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(!answer.is_empty(), "closed without an answer");
    Ok(answer[answer.len() - 1..].to_owned())
}

#[tokio::test]
async fn haproxy_spreads_and_takes_the_dead_out() -> Result<()> {
    let doors = [Doors::free()?, Doors::free()?];
    let listen = free_address()?;
    let mut tasks = [JoinSet::new(), JoinSet::new()];
    for (number, tasks) in tasks.iter_mut().enumerate() {
        web_server(u8::try_from(number)?, doors[number], tasks);
    }
    let mut haproxy = HaproxyProcess::start(listen, &doors).await?;
    eventually(Duration::from_secs(5), "both serve", async || {
        let pair = [answer_of(listen).await?, answer_of(listen).await?];
        ensure!(pair.contains(&"0".into()) && pair.contains(&"1".into()), "{pair:?}");
        Ok(())
    })
    .await?;
    tasks[0].shutdown().await;
    eventually(Duration::from_secs(5), "only the living one serves", async || {
        for _ in 0..4 {
            let answer = answer_of(listen).await?;
            ensure!(answer == "1", "{answer}");
        }
        Ok(())
    })
    .await?;
    haproxy.check_alive()
}

#[tokio::test]
async fn a_private_postgresql_stops_and_starts() -> Result<()> {
    use sqlx::Connection as _;

    let mut cluster = PostgresCluster::start_new().await?;
    cluster.stop().await?;
    assert!(sqlx::PgConnection::connect(&cluster.url).await.is_err());
    cluster.start().await
}

#[tokio::test]
async fn the_workload_uses_what_it_is_told_and_rewrites_its_arguments() -> Result<()> {
    let directory = Directory::create("workload")?;
    let mut command = Command::new(child::binary("fleet-sim")?);
    command.args(["workload", "--rewrite", "a\u{1}b", ""]).stdin(Stdio::piped());
    let mut workload = Child::spawn("workload", directory.path(), &mut command)?;
    let mut stdin = workload.stdin().context("a pipe")?;
    writeln!(stdin, "burn 50")?;
    eventually(Duration::from_secs(10), "the workload is done", async || {
        workload.check_alive()?;
        ensure!(workload.log().contains("done burn 50"), workload.log());
        Ok(())
    })
    .await?;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", workload.pid()))?;
    assert!(arguments.ends_with(b"\0workload\0--rewrite\0a\0b\0\0"), "{arguments:?}");
    drop(stdin);
    assert!(workload.wait(Duration::from_secs(5)).await?.success());
    Ok(())
}

#[test]
fn generated_reports_are_valid_and_reproducible() {
    let now = datetime!(2026-05-06 07:08:09 UTC);
    let facts = HostFacts {
        host_name: "sim".into(),
        kernel_release: "6.1".into(),
        host_arch: "x86_64".into(),
        agent_version: "1".into(),
        ..HostFacts::default()
    };
    let make = || Generator::new(Uuid::nil(), Uuid::max(), facts.clone(), 7, now);
    for sequence in 1..50 {
        let record = make().report(sequence);
        record.validate().unwrap();
        assert_eq!(record, make().report(sequence));
        assert_eq!(record.head().sequence, sequence);
    }
}
