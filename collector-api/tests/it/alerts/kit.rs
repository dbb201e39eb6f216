//! A database with hosts of known heartbeats, a provider's stand-in, and a channel to it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_api::alerts::delivery::deliver_one;
use collector_api::alerts::provider::{Destination, Kind, Verdict};
use collector_api::alerts::sender::Sender;
use collector_api::authority::sealing::SealingKey;
use collector_api::config::Alerts;
use collector_api::store::Store;
use collector_api::store::audit::Actor;
use collector_api::store::channels::{CreateChannel, NewChannel, SealedChannel};
use fleet_sim::child::Directory;
use fleet_sim::database::{Engine, TestDatabase};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

/// What the stand-in answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// Status, further headers (`name: value\r\n` each), body.
    Http(u16, &'static str, &'static str),
    /// The head and half of the body, then a reset.
    Torn,
    /// Nothing at all, then a close.
    Closed,
}

/// `WeCom`'s and `DingTalk`'s yes.
pub(super) const TAKEN: Answer = Answer::Http(200, "", r#"{"errcode":0,"errmsg":"ok"}"#);

/// A provider that remembers what it was told.
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    pub(super) received: Arc<Mutex<Vec<Value>>>,
    script: Arc<Mutex<VecDeque<Answer>>>,
    task: AbortHandle,
    _tasks: JoinSet<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIn {
    /// Says `answers`, then [`TAKEN`] for ever.
    pub(super) async fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Value>>>::default();
        let script = Arc::new(Mutex::new(answers.iter().cloned().collect::<VecDeque<_>>()));
        let (to, from) = (Arc::clone(&received), Arc::clone(&script));
        let mut tasks = JoinSet::new();
        let task = tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (to, from) = (Arc::clone(&to), Arc::clone(&from));
                open.spawn(async move {
                    let answer = || from.lock().unwrap().pop_front().unwrap_or(TAKEN);
                    drop(serve(stream, &to, answer).await);
                });
            }
        });
        Self { address, received, script, task, _tasks: tasks }
    }

    pub(super) fn messages(&self) -> Vec<Value> {
        self.received.lock().unwrap().clone()
    }

    pub(super) fn will_say(&self, answer: Answer) {
        self.script.lock().unwrap().push_back(answer);
    }
}

async fn serve(
    mut stream: TcpStream,
    received: &Mutex<Vec<Value>>,
    answer: impl FnOnce() -> Answer,
) -> std::io::Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let body = loop {
        let read = stream.read(&mut chunk).await?;
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                break serde_json::from_str(body).unwrap_or(Value::Null);
            }
        }
        if read == 0 {
            return Ok(());
        }
    };
    received.lock().unwrap().push(body);
    // Long enough for a replica to die while it waits.
    tokio::time::sleep(Duration::from_millis(3)).await;
    match answer() {
        Answer::Http(status, headers, body) => {
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n");
            stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).await
        }
        Answer::Torn => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"errco").await?;
            stream.set_zero_linger()
        }
        Answer::Closed => Ok(()),
    }
}

/// The parts of a server that tell alerts.
pub(super) struct Alerting {
    pub(super) database: TestDatabase,
    pub(super) store: Store,
    pub(super) sender: Sender,
    _directory: Directory,
}

impl Alerting {
    pub(super) async fn create(name: &str) -> Self {
        Self::create_on(name, Engine::PostgreSql).await
    }

    pub(super) async fn create_on(name: &str, engine: Engine) -> Self {
        Self::create_with(name, engine, Alerts::default()).await
    }

    /// With more of the configuration; loopback is allowed.
    pub(super) async fn create_with(name: &str, engine: Engine, mut alerts: Alerts) -> Self {
        alerts.allowed_networks = vec!["127.0.0.0/8".to_owned().try_into().unwrap()];
        let database = TestDatabase::create(engine).await.unwrap();
        let store = Store::connect(&database.url, 8).await.unwrap();
        let directory = Directory::create(name).unwrap();
        let key_file = directory.path().join("ca.key");
        SealingKey::read_or_create(&key_file).unwrap();
        let sender = Sender::new(key_file, &alerts).unwrap();
        Self { database, store, sender, _directory: directory }
    }

    pub(super) async fn connect(&self) -> PgConnection {
        self.database.connect().await.unwrap()
    }

    pub(super) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.unwrap();
    }

    pub(super) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
    }

    pub(super) async fn channel(&self, kind: Kind, stand_in: &StandIn) -> Uuid {
        self.channel_at(kind, format!("http://{}/send?key=canary-key", stand_in.address)).await
    }

    pub(super) async fn channel_at(&self, kind: Kind, url: String) -> Uuid {
        let channel_id = Uuid::now_v7();
        let destination = Destination { url, secret: Some("canary-secret".into()) };
        let new = NewChannel {
            channel_id,
            name: channel_id.to_string(),
            kind: kind.as_str(),
            language: "en",
            per_minute: kind.per_minute(),
            sealed: self.sender.seal(channel_id, &destination).unwrap(),
        };
        let created = self.store.create_channel(&new, &Actor::cli()).await.unwrap();
        assert_eq!(created, CreateChannel::Created);
        channel_id
    }

    /// Of the database.
    pub(super) async fn now(&self) -> OffsetDateTime {
        sqlx::query_scalar("select now()").fetch_one(&mut self.connect().await).await.unwrap()
    }

    /// What a test of a channel says.
    pub(super) async fn test(&self, channel: &SealedChannel) -> Verdict {
        self.sender.test(channel, self.now().await).await
    }

    /// `count` hosts that report now, every 30 s.
    pub(super) async fn hosts(&self, count: i32) {
        let mut connection = self.connect().await;
        sqlx::query(
            "with token as (
                insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
                values (gen_random_uuid(), 'test', decode(repeat('00', 32), 'hex'), now() + interval '1 day')
                returning token_id),
            made as (
                insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, labels)
                select gen_random_uuid(), 'host-' || n, '6.1', 'x86_64', '0', token_id,
                    jsonb_build_object('rack', 'r' || n % 4)
                from token, generate_series(1, $1) n returning host_id)
            insert into heartbeats (host_id, last_seen_at, last_sampled_at, interval_ms, deadline_at)
            select host_id, now(), now(), 30000, now() + interval '105 s' from made",
        )
        .bind(count)
        .execute(&mut connection)
        .await
        .unwrap();
    }

    /// Sends until nothing is due.
    pub(super) async fn deliver(&self) {
        while deliver_one(&self.store, &self.sender).await.unwrap() {}
    }

    pub(super) async fn host_alerts(&self) -> i64 {
        self.count("select count(*) from alerts where rule = 'host_silent' and resolved_at is null")
            .await
    }
}
