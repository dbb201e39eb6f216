//! The connection to the database breaks around `COMMIT`, and its socket's options.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use collector_api::ingest::IngestSettings;
use collector_api::store::nodelay;
use fleet_sim::address::free_address;
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::kit::{Host, Replica, count};

const PASS: u8 = 0;
const CUT_BEFORE: u8 = 1;
const CUT_AFTER: u8 = 2;

/// Between a replica and its database; cuts the next connection that commits, once, when told to.
struct Cutter {
    url: String,
    address: SocketAddr,
    next: Arc<AtomicU8>,
    _relays: JoinSet<()>,
}

impl Cutter {
    async fn start(database: &TestDatabase) -> Self {
        let options = PgConnectOptions::from_str(&database.url).unwrap();
        let upstream = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind(free_address().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = database.url.replacen(&upstream, &address.to_string(), 1);
        assert_ne!(url, database.url);
        let next = Arc::new(AtomicU8::new(PASS));
        let told = Arc::clone(&next);
        let mut relays = JoinSet::new();
        relays.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.unwrap();
                let told = Arc::clone(&told);
                // A connection that breaks is what this is for.
                connections.spawn(async move { relay(client, server, &told).await.ok() });
            }
        });
        Self { url, address, next, _relays: relays }
    }
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    told: &AtomicU8,
) -> std::io::Result<()> {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let bytes = &from_client[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                // A simple query: its kind, its length, its text, NUL.
                if bytes == b"Q\0\0\0\x0bCOMMIT\0" {
                    match told.swap(PASS, Ordering::SeqCst) {
                        CUT_BEFORE => return Ok(()),
                        CUT_AFTER => {
                            server.write_all(bytes).await?;
                            // Its answer: committed, and nobody learns of it.
                            return server.read(&mut from_server).await.map(drop);
                        }
                        _ => {}
                    }
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut from_server) => {
                let bytes = &from_server[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_repeated_as_a_duplicate() {
    for engine in Engine::ALL {
        for (cut, stored, repeated) in [(CUT_AFTER, 6, (0, 5)), (CUT_BEFORE, 1, (5, 0))] {
            let database = TestDatabase::create(engine).await.unwrap();
            let host = Host::enroll(&database, 1).await;
            let cutter = Cutter::start(&database).await;
            let replica = Replica::start_with(&cutter.url, IngestSettings::default()).await;
            // The first report makes its partition, with a transaction of its own.
            let (status, answer) = replica.post_records(host.host_id, &host.reports(1..=1)).await;
            assert_eq!(status, 200, "{answer}");
            cutter.next.store(cut, Ordering::SeqCst);
            let records = host.reports(2..=6);
            let (status, problem) = replica.post_records(host.host_id, &records).await;
            assert_eq!((status.as_u16(), &problem["code"]), (503, &"database_unavailable".into()));
            assert_eq!(cutter.next.load(Ordering::SeqCst), PASS);
            assert_eq!(count(&database, "select count(*) from host_samples").await, stored);
            replica.wait_until_connected().await;
            let answer = eventually(std::time::Duration::from_secs(20), "the repeat", async || {
                let (status, answer) = replica.post_records(host.host_id, &records).await;
                if status == 200 { Ok(answer) } else { Err(answer) }
            })
            .await
            .unwrap();
            let counts =
                (answer["accepted"].as_u64().unwrap(), answer["duplicates"].as_u64().unwrap());
            assert_eq!(counts, repeated);
            assert_eq!(count(&database, "select count(*) from host_samples").await, 6);
            replica.finish().await;
        }
    }
}

#[tokio::test]
async fn the_writers_socket_does_not_wait_for_acknowledgements() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let cutter = Cutter::start(&database).await;
    let settings = IngestSettings { writers: 1, ..IngestSettings::default() };
    let replica = Replica::start_with(&cutter.url, settings).await;
    let found = nodelay::set_for_peers_at(cutter.address.port()).unwrap();
    // The pool's and the writer's: both had it already.
    assert_eq!((found.sockets, found.changed), (2, 0));
    replica.finish().await;
}
