use std::collections::VecDeque;
use std::time::Duration;

use shared_model::{Record, Timestamp};

use super::*;
use crate::spool::Limits;
use crate::testing::{Authority, Reply, Seen, Server, report};

/// What the server does with one `POST /v1/reports`.
enum Step {
    /// Stores everything and says so.
    Take,
    /// Stores everything, and the answer is lost.
    TakeSilently,
    Problem(ProblemCode, &'static str),
    /// A problem that carries the cursor; the records before it are taken.
    ProblemAtCursor(ProblemCode),
    /// Forgets everything after this sequence, then answers 409 `sequence_gap`.
    LoseAfter(u64),
    Garbage,
    /// Stores nothing and never answers.
    Silence,
    /// Far more than an answer may be.
    Huge,
}

/// The server's truth, and the oracle: what arrived, in order.
#[derive(Default)]
struct Truth {
    steps: VecDeque<Step>,
    cursors: std::collections::BTreeMap<Uuid, u64>,
    /// (stream, first, last, is a gap) of everything stored.
    stored: Vec<(Uuid, u64, u64, bool)>,
    /// Number of records of every request.
    sizes: Vec<usize>,
    /// Digest of every record taken, by stream and sequence.
    lines: std::collections::BTreeMap<(Uuid, u64), Vec<u8>>,
}

fn lines(body: &[u8]) -> Vec<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    zstd::stream::read::Decoder::new(body)
        .unwrap()
        .take(MAX_INFLATED_BYTES as u64)
        .read_to_end(&mut text)
        .unwrap();
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

impl Truth {
    fn answer(&mut self, seen: &Seen) -> Reply {
        if let Some(rest) = seen.head.strip_prefix("get /v1/cursor?stream_id=") {
            let stream_id = rest.split(' ').next().unwrap().parse().unwrap();
            return self.ok(stream_id);
        }
        assert!(seen.head.starts_with("post /v1/reports "));
        assert!(seen.head.contains("content-type: application/x-ndjson\r\n"));
        assert!(seen.head.contains("content-encoding: zstd\r\n"));
        let lines = lines(&seen.body);
        self.sizes.push(lines.len());
        let stream_id = Record::decode(&lines[0]).unwrap().head().stream_id;
        match self.steps.pop_front().unwrap_or(Step::Take) {
            Step::Take => {
                self.take(&lines);
                self.ok(stream_id)
            }
            Step::TakeSilently => {
                self.take(&lines);
                Reply::Close
            }
            Step::Problem(code, headers) => problem(&Problem::new(code, "no"), headers),
            Step::ProblemAtCursor(code) => {
                self.take(&lines);
                let cursor = self.cursors.get(&stream_id).copied();
                let rejected = lines
                    .iter()
                    .map(|line| RejectedReport {
                        sequence: Record::decode(line).unwrap().head().sequence,
                        code,
                        detail: "poison".into(),
                        errors: Vec::new(),
                    })
                    .collect();
                let told = Problem::new(code, "no");
                problem(&Problem { acknowledged_sequence: cursor, rejected, ..told }, "")
            }
            Step::LoseAfter(cursor) => {
                self.cursors.insert(stream_id, cursor);
                self.stored.retain(|&(_, _, last, _)| last <= cursor);
                let told = Problem::new(ProblemCode::SequenceGap, "lost");
                problem(&Problem { acknowledged_sequence: Some(cursor), ..told }, "")
            }
            Step::Garbage => Reply::Garbage,
            Step::Silence => Reply::Silence,
            Step::Huge => {
                Reply::Http { status: 200, headers: String::new(), body: vec![b' '; 2 << 20] }
            }
        }
    }

    fn take(&mut self, lines: &[Vec<u8>]) {
        for line in lines {
            let record = Record::decode(line).unwrap();
            let head = record.head();
            let before = self.lines.insert((head.stream_id, head.sequence), line.clone());
            let cursor = self.cursors.entry(head.stream_id).or_default();
            if head.sequence <= *cursor {
                assert_eq!(before.as_ref(), Some(line), "a repeat is the same, byte for byte");
                continue;
            }
            assert_eq!(head.first_sequence, *cursor + 1, "in order and without holes");
            *cursor = head.sequence;
            let gap = matches!(record, Record::Gap(_));
            self.stored.push((head.stream_id, head.first_sequence, head.sequence, gap));
        }
    }

    fn ok(&self, stream_id: Uuid) -> Reply {
        let answer = ReportsAnswer {
            stream_id,
            acknowledged_sequence: self.cursors.get(&stream_id).copied().unwrap_or(0),
            accepted: 0,
            duplicates: 0,
            rejected: Vec::new(),
            next_send_after_ms: None,
            server_time: Timestamp::UNIX_EPOCH,
        };
        let body = serde_json::to_vec(&answer).unwrap();
        Reply::Http { status: 200, headers: String::new(), body }
    }
}

fn problem(problem: &Problem, headers: &str) -> Reply {
    let body = serde_json::to_vec(problem).unwrap();
    Reply::Http { status: problem.status, headers: headers.into(), body }
}

struct World {
    dir: PathBuf,
    spool: Arc<Spool>,
    truth: Arc<Mutex<Truth>>,
    server: Server,
    uplink: Uplink,
}

impl World {
    async fn new(steps: Vec<Step>) -> Self {
        let authority = Authority::new();
        let truth = Arc::new(Mutex::new(Truth { steps: steps.into(), ..Truth::default() }));
        let answers = Arc::clone(&truth);
        let answer = move |seen: &Seen| answers.lock().unwrap().answer(seen);
        let server = Server::start(authority.leaf(|_| ()), answer).await;
        let dir = std::env::temp_dir().join(format!("procfleet-uplink-{}", Uuid::new_v4()));
        let limits = Limits { max_free_percent: 100, ..Limits::default() };
        let spool = Spool::open(&dir.join("spool"), limits, Uuid::from_u128(3)).unwrap();
        // The first is away: every test fails over.
        let endpoints = vec!["https://127.0.0.1:1".into(), server.endpoint.clone()];
        let identity = authority.identity(endpoints);
        let config = UplinkConfig {
            endpoints: Vec::new(),
            dead_dir: dir.join("dead"),
            place: Uuid::from_u128(4),
        };
        let mut uplink = Uplink::new(&identity, config).unwrap();
        let moment = Duration::from_millis(1);
        uplink.pace = Pace {
            first: moment,
            longest: moment,
            first_slow: moment,
            longest_slow: moment,
            longest_asked: moment,
            ..Pace::default()
        };
        Self { dir, spool: Arc::new(spool), truth, server, uplink }
    }

    fn append(&self, reports: usize) {
        for _ in 0..reports {
            self.spool.append(report);
        }
    }

    /// Delivers until nothing is left in the spool.
    async fn deliver(&self) {
        let stop = CancellationToken::new();
        let done = async {
            while self.spool.stats().reports > 0 || !self.truth.lock().unwrap().steps.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            stop.cancel();
        };
        let run = self.uplink.run(Arc::clone(&self.spool), stop.clone());
        tokio::time::timeout(Duration::from_mins(1), async { tokio::join!(run, done) })
            .await
            .expect("everything is delivered in a minute");
    }

    /// (first, last, gap) of everything stored, in its order.
    fn stored(&self) -> Vec<(u64, u64, bool)> {
        let truth = self.truth.lock().unwrap();
        truth.stored.iter().map(|&(_, first, last, gap)| (first, last, gap)).collect()
    }

    fn sizes(&self) -> Vec<usize> {
        self.truth.lock().unwrap().sizes.clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn whole(last: u64) -> Vec<(u64, u64, bool)> {
    (1..=last).map(|sequence| (sequence, sequence, false)).collect()
}

#[tokio::test]
async fn delivers_in_order_after_asking_for_the_cursor_and_wakes_for_more() {
    let world = World::new(vec![]).await;
    world.append(5);
    world.deliver().await;
    assert!(world.server.seen()[0].head.starts_with("get /v1/cursor"));
    assert_eq!(world.stored(), whole(5));
    assert_eq!(world.uplink.status().consecutive_failures, 0);
    assert_eq!(world.uplink.status().endpoint.unwrap(), format!("{}/", world.server.endpoint));

    let stop = CancellationToken::new();
    let later = async {
        let asked =
            || world.server.seen().iter().filter(|seen| seen.head.starts_with("get")).count();
        while asked() < 2 || world.uplink.status().consecutive_failures > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        world.append(2);
        // The stop comes with reports in the spool: they are drained.
        stop.cancel();
    };
    tokio::join!(world.uplink.run(Arc::clone(&world.spool), stop.clone()), later);
    assert_eq!(world.stored(), whole(7));
}

#[tokio::test]
async fn whatever_is_not_an_answer_is_sent_again_as_it_was() {
    use ProblemCode as Code;
    let retry = |code| Step::Problem(code, "retry-after: 7\r\n");
    let world = World::new(vec![
        retry(Code::TooManyRequests),
        retry(Code::Overloaded),
        retry(Code::DatabaseUnavailable),
        Step::Problem(Code::ShuttingDown, ""),
        Step::Problem(Code::Internal, "retry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),
        Step::Garbage,
        Step::Huge,
        Step::Problem(Code::HostUnknown, ""),
        Step::Problem(Code::CertificateRevoked, ""),
        Step::Problem(Code::IdentityMismatch, ""),
        Step::Problem(Code::HostDecommissioned, ""),
        Step::Problem(Code::UnsupportedVersion, ""),
        Step::TakeSilently,
    ])
    .await;
    world.append(4);
    world.deliver().await;
    assert_eq!(world.stored(), whole(4));
    assert!(world.spool.stats().lost.is_empty());
    let sizes = world.sizes();
    assert!(sizes.len() >= 13 && sizes.iter().all(|&size| size == 4), "{sizes:?}");
}

#[tokio::test]
async fn halves_what_is_too_large() {
    let split = || Step::Problem(ProblemCode::BodyTooLarge, "");
    let world = World::new(vec![split(), split()]).await;
    world.append(8);
    world.deliver().await;
    assert_eq!(world.stored(), whole(8));
    assert_eq!(world.sizes(), [8, 4, 2, 4, 2]);
}

/// Else a line that cannot carry the batch in time would never carry any.
#[tokio::test]
async fn halves_what_took_too_long() {
    let mut world = World::new(vec![Step::Silence, Step::Silence]).await;
    world.uplink.pace.request = Duration::from_millis(500);
    world.append(8);
    world.deliver().await;
    assert_eq!(world.stored(), whole(8));
    assert_eq!(world.sizes()[..3], [8, 4, 2]);
}

#[tokio::test]
async fn one_record_that_no_server_reads_becomes_a_gap_and_is_kept_for_people() {
    let refuse = || Step::Problem(ProblemCode::Malformed, "");
    let world = World::new(vec![refuse(), refuse(), refuse(), refuse()]).await;
    world.append(2);
    let epoch = world.spool.dictionary_epoch();
    world.deliver().await;
    assert_eq!(world.stored(), [(1, 1, true), (2, 2, false)]);
    assert_eq!(world.sizes()[..4], [2, 1, 1, 1], "split, then refused three times alone");
    assert_eq!(world.spool.stats().lost["rejected"], 1);
    assert!(world.spool.dictionary_epoch() > epoch);
    let dead: Vec<_> = std::fs::read_dir(world.dir.join("dead")).unwrap().collect();
    assert_eq!(dead.len(), 1);
    let name = dead[0].as_ref().unwrap().file_name().into_string().unwrap();
    assert!(name.ends_with("-00000000000000000001-malformed.json.zst"), "{name}");
}

#[tokio::test]
async fn poison_that_the_server_passed_over_is_an_answer() {
    let world = World::new(vec![Step::ProblemAtCursor(ProblemCode::InvalidReport)]).await;
    world.append(2);
    world.deliver().await;
    assert_eq!(world.sizes(), [2], "not sent again");
    assert_eq!(world.spool.stats().lost["rejected"], 2);
    assert_eq!(std::fs::read_dir(world.dir.join("dead")).unwrap().count(), 2);
}

#[tokio::test]
async fn goes_back_to_the_cursor_of_a_server_that_lost_data() {
    let world = World::new(vec![Step::Take]).await;
    world.append(6);
    world.deliver().await;
    world.truth.lock().unwrap().steps.push_back(Step::LoseAfter(2));
    world.append(1);
    world.deliver().await;
    assert_eq!(world.stored(), whole(7));
    assert!(world.spool.stats().lost.is_empty());
}

#[tokio::test]
async fn two_writers_of_a_stream_part() {
    let world = World::new(vec![Step::Problem(ProblemCode::StreamConflict, "")]).await;
    world.append(3);
    let old = world.spool.stream_id();
    world.deliver().await;
    assert_ne!(world.spool.stream_id(), old);
    assert_eq!(world.stored(), whole(3));
    assert!(world.truth.lock().unwrap().stored.iter().all(|&(stream, ..)| stream != old));
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_asked_slowly() {
    let conflict = || Step::Problem(ProblemCode::StreamConflict, "");
    let world = World::new(vec![conflict(), conflict(), conflict()]).await;
    world.append(2);
    let before = crate::metrics::REQUESTS_FAILED.get();
    world.deliver().await;
    // Three of the endpoint that is away, then the second and the third stream, which came too soon.
    assert_eq!(crate::metrics::REQUESTS_FAILED.get() - before, 5);
    assert_eq!(world.stored(), whole(2));
}
