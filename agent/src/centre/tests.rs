//! The conversation with the server, against one that answers what a test tells it to.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use shared_model::{Problem, ProblemCode, Record, RejectedReport, ReportsAnswer, Timestamp};

use super::*;
use crate::config::layers::Local;
use crate::spool::{Limits, Spool};
use crate::testing::{Authority, Reply, Seen, Server, report};
use crate::uplink::UplinkConfig;

const PATIENCE: Duration = Duration::from_secs(50);

/// What the server does with one `PUT /v1/configuration`.
enum Step {
    Fail,
    Close,
    Garbage,
}

/// The server: what is in force there, and what it was told.
struct Centre {
    hash: String,
    interval_ms: u32,
    steps: VecDeque<Step>,
    told: Vec<ConfigurationStatus>,
    /// Requests before it took anything.
    puts: usize,
}

impl Centre {
    fn answer(&mut self, seen: &Seen) -> Reply {
        if seen.head.starts_with("put /v1/configuration ") {
            return self.put(seen);
        }
        if seen.head.starts_with("post /v1/reports ") {
            return reject(seen);
        }
        let stream_id = seen.head.split("stream_id=").nth(1).unwrap().split(' ').next().unwrap();
        let answer = ReportsAnswer {
            stream_id: stream_id.parse().unwrap(),
            acknowledged_sequence: 0,
            accepted: 0,
            duplicates: 0,
            rejected: Vec::new(),
            next_send_after_ms: None,
            server_time: Timestamp::UNIX_EPOCH,
        };
        let headers = format!("procfleet-configuration: {}\r\n", self.hash);
        Reply::Http { status: 200, headers, body: serde_json::to_vec(&answer).unwrap() }
    }

    fn put(&mut self, seen: &Seen) -> Reply {
        self.puts += 1;
        let body = match self.steps.pop_front() {
            Some(Step::Close) => return Reply::Close,
            Some(Step::Garbage) => b"{\"hash\": \"short\", \"configuration\": {}}".to_vec(),
            Some(Step::Fail) => {
                let problem = Problem::new(ProblemCode::DatabaseUnavailable, "not now");
                let body = serde_json::to_vec(&problem).unwrap();
                return Reply::Http { status: problem.status, headers: String::new(), body };
            }
            None => {
                self.told.push(serde_json::from_slice(&seen.body).unwrap());
                let configuration = json!({ "interval_ms": self.interval_ms, "later": true });
                serde_json::to_vec(&json!({ "hash": self.hash, "configuration": configuration }))
                    .unwrap()
            }
        };
        Reply::Http { status: 200, headers: String::new(), body }
    }
}

/// Stores none of the reports, and passes over them.
fn reject(seen: &Seen) -> Reply {
    let lines = zstd::bulk::decompress(&seen.body, 1 << 20).unwrap();
    let code = ProblemCode::InvalidReport;
    let rejected = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let sequence = Record::decode(line).unwrap().head().sequence;
        RejectedReport { sequence, code, detail: "no row adds up".into(), errors: Vec::new() }
    });
    let rejected: Vec<_> = rejected.collect();
    let acknowledged_sequence = rejected.last().map(|last| last.sequence);
    let problem = Problem { acknowledged_sequence, rejected, ..Problem::new(code, "no") };
    let body = serde_json::to_vec(&problem).unwrap();
    Reply::Http { status: problem.status, headers: String::new(), body }
}

fn hash(letter: char) -> String {
    letter.to_string().repeat(64)
}

struct World {
    dir: PathBuf,
    centre: Arc<Mutex<Centre>>,
    _server: Server,
    uplink: Uplink,
    spool: Arc<Spool>,
    follower: Follower,
    made: watch::Sender<Option<Made>>,
}

impl World {
    async fn new(steps: Vec<Step>) -> Self {
        let authority = Authority::new();
        let (hash, steps) = (hash('a'), steps.into());
        let centre = Centre { hash, interval_ms: 1000, steps, told: Vec::new(), puts: 0 };
        let centre = Arc::new(Mutex::new(centre));
        let answers = Arc::clone(&centre);
        let answer = move |seen: &Seen| answers.lock().unwrap().answer(seen);
        let server = Server::start(authority.leaf(|_| ()), answer).await;
        let dir = std::env::temp_dir().join(format!("procfleet-centre-{}", Uuid::new_v4()));
        let host_id = Uuid::from_u128(3);
        let spool = Spool::open(&dir.join("spool"), Limits::default(), host_id).unwrap();
        let identity = authority.identity(vec![server.endpoint.clone()]);
        let config = UplinkConfig {
            endpoints: Vec::new(),
            dead_dir: dir.join("dead"),
            place: Uuid::from_u128(4),
        };
        let uplink = Uplink::new(&identity, config).unwrap();
        let local = Local::parse("interval_ms = 20000").unwrap();
        let (desk, config) = Desk::open(dir.join("configuration.json"), local).unwrap();
        let order = Order { number: 0, config: Arc::new(config) };
        let (say_made, made) = watch::channel(None);
        let orders = watch::channel(order).0;
        let follower = Follower { desk, orders, made, sampler: thread::current() };
        let (spool, server) = (Arc::new(spool), server);
        Self { dir, centre, _server: server, uplink, spool, follower, made: say_made }
    }

    /// Works until the server was told `count` times, or `patience` is over.
    async fn run(&mut self, patience: Duration, count: usize) {
        let stop = CancellationToken::new();
        let centre = Arc::clone(&self.centre);
        let done = async {
            let all = async {
                while centre.lock().unwrap().told.len() < count {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(patience, all).await.ok();
            stop.cancel();
        };
        let deliver = self.uplink.run(Arc::clone(&self.spool), stop.clone());
        tokio::join!(deliver, self.follower.run(&self.uplink, &stop), done);
    }

    /// received, applied and failed of every status that the server took, by the letters of their hashes.
    fn told(&self) -> Vec<[Option<char>; 3]> {
        let letter = |hash: &Option<String>| hash.as_ref().and_then(|hash| hash.chars().next());
        let told = &self.centre.lock().unwrap().told;
        let letters =
            |it: &ConfigurationStatus| [&it.received, &it.applied, &it.failed].map(letter);
        told.iter().map(letters).collect()
    }

    fn interval_ms(&self) -> u128 {
        self.follower.orders.borrow().config.interval().as_millis()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

#[tokio::test]
async fn what_is_named_is_fetched_applied_and_said() {
    let mut world = World::new(vec![]).await;
    world.run(PATIENCE, 2).await;
    assert_eq!(world.told(), [[None; 3], [Some('a'), Some('a'), None]]);
    assert_eq!(world.interval_ms(), 1000);
    // The next agent has nothing to fetch, and says where it is once.
    let local = Local::parse("").unwrap();
    let (desk, config) = Desk::open(world.dir.join("configuration.json"), local).unwrap();
    assert_eq!((desk.received(), config.interval_ms), (Some(&*hash('a')), 1000));
    world.follower.desk = desk;
    world.run(PATIENCE, 3).await;
    assert_eq!(world.told()[2], [Some('a'), Some('a'), None]);
}

#[tokio::test]
async fn a_status_that_was_not_taken_waits_for_the_next_contact() {
    for step in [Step::Fail, Step::Close, Step::Garbage] {
        let mut world = World::new(vec![step]).await;
        // One contact: the cursor. Another try would need another.
        world.run(Duration::from_secs(3), 1).await;
        let puts = world.centre.lock().unwrap().puts;
        assert_eq!((puts, world.interval_ms()), (1, 20_000));
        assert_eq!(world.told(), [[None; 3]; 0]);
        world.run(PATIENCE, 2).await;
        assert_eq!(world.told()[0], [None; 3]);
        assert_eq!(world.told().last(), Some(&[Some('a'), Some('a'), None]));
    }
}

#[tokio::test]
async fn one_that_cannot_be_applied_is_said_and_not_fetched_again() {
    let mut world = World::new(vec![]).await;
    world.centre.lock().unwrap().interval_ms = 1;
    world.run(PATIENCE, 2).await;
    assert_eq!(world.told(), [[None; 3], [Some('a'), None, Some('a')]]);
    let error = world.centre.lock().unwrap().told[1].error.clone().unwrap();
    assert!(error.starts_with("interval_ms must lie between"), "{error}");
    assert_eq!(world.interval_ms(), 20_000);
    {
        let mut centre = world.centre.lock().unwrap();
        (centre.hash, centre.interval_ms) = (hash('b'), 3000);
    }
    world.run(PATIENCE, 4).await;
    assert_eq!(world.told().last(), Some(&[Some('b'), Some('b'), Some('a')]));
    assert_eq!(world.interval_ms(), 3000);
}

#[tokio::test]
async fn one_by_which_reports_are_rejected_is_taken_back() {
    let mut world = World::new(vec![]).await;
    let stop = CancellationToken::new();
    let (centre, spool, mut delivered) =
        (Arc::clone(&world.centre), Arc::clone(&world.spool), world.uplink.delivered());
    let (made, mut orders) = (world.made.clone(), world.follower.orders.subscribe());
    let sampler = async {
        orders.wait_for(|order| order.number == 1).await.unwrap();
        for _ in 0..2 {
            let mut last = None;
            spool.append(|position| {
                last = Some((position.stream_id, position.sequence));
                report(position)
            });
            let (stream_id, sequence) = last.unwrap();
            made.send_replace(Some(Made { number: 1, stream_id, sequence }));
            delivered.wait_for(|delivered| delivered.sequence >= sequence).await.unwrap();
        }
        orders.wait_for(|order| order.number == 2).await.unwrap();
        while centre.lock().unwrap().told.len() < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.cancel();
    };
    let deliver = world.uplink.run(Arc::clone(&world.spool), stop.clone());
    let all = async { tokio::join!(deliver, world.follower.run(&world.uplink, &stop), sampler) };
    tokio::time::timeout(PATIENCE, all).await.expect("it is taken back and said");
    assert_eq!(world.told()[1..], [[Some('a'), Some('a'), None], [Some('a'), None, Some('a')]]);
    assert_eq!(world.interval_ms(), 20_000);
    let error = world.centre.lock().unwrap().told[2].error.clone().unwrap();
    assert!(error.ends_with("invalid_report: no row adds up"), "{error}");
}
