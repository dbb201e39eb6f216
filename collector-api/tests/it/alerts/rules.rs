//! Rules over samples: what they open and end, and that the dry run says the same of the same samples.

use collector_api::alerts::provider::Kind;
use collector_api::alerts::rules::history;
use collector_api::alerts::rules::judge_round;
use collector_api::store::audit::Actor;
use collector_api::store::rules::Rule;
use collector_api::store::rules::round::Turn;
use fleet_sim::database::Engine;
use sqlx::PgConnection;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::kit::{Alerting, StandIn};

/// A database with room for samples, and `hosts` that have just reported.
async fn prepared(name: &str, engine: Engine, hosts: i32) -> (Alerting, OffsetDateTime) {
    let alerting = Alerting::create_on(name, engine).await;
    if engine == Engine::PostgreSql {
        partitions(&alerting).await;
    }
    alerting.execute("delete from rules").await;
    alerting.hosts(hosts).await;
    let start: OffsetDateTime = sqlx::query_scalar(
        "update heartbeats set last_sampled_at = date_trunc('minute', now()) - interval '3 hours'
         returning last_sampled_at",
    )
    .fetch_one(&mut alerting.connect().await)
    .await
    .unwrap();
    assert!(judge_round(&alerting.store).await.unwrap().is_none(), "hosts begin with what comes");
    (alerting, start)
}

/// Room for samples of any time.
pub(super) async fn partitions(alerting: &Alerting) {
    let make = "do $$ declare s text; begin for s in select series from series loop
         execute format('create table %I partition of %I for values from (''2020-01-01'') to (''2200-01-01'')', s || '_all', s);
         end loop; end $$";
    alerting.execute(make).await;
}

fn rule(name: &str, metric: &str, threshold: f64) -> Rule {
    Rule {
        rule_id: Uuid::now_v7(),
        name: name.into(),
        severity: "warning".into(),
        enabled: true,
        selector: String::new(),
        metric: metric.into(),
        object: None,
        below: false,
        threshold,
        recover_threshold: threshold,
        for_s: 60,
        recover_for_s: 60,
        built_in: false,
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}

impl Alerting {
    async fn rule(&self, rule: &Rule) {
        self.store.create_rule(rule, &Actor::cli()).await.unwrap();
    }

    async fn judge(&self) -> (usize, usize) {
        let mut all = (0, 0);
        while let Some(judged) = judge_round(&self.store).await.unwrap() {
            all = (all.0 + judged.opened, all.1 + judged.resolved);
        }
        all
    }

    async fn open_rules(&self) -> Vec<String> {
        let open =
            "select a.rule || ' ' || h.host_name || coalesce(' ' || (a.detail->>'object'), '')
             from alerts a join hosts h using (host_id) where a.resolved_at is null order by 1";
        sqlx::query_scalar(open).fetch_all(&mut self.connect().await).await.unwrap()
    }
}

/// A report of `host`, with a CPU share; `None`: unknown.
async fn report(db: &mut PgConnection, host: &str, at: OffsetDateTime, cpu: Option<f64>) {
    sqlx::query(
        "insert into host_samples (host_id, sampled_at, interval_ms, cpu_user_us, cpu_system_us, cpu_idle_us)
         select host_id, $2, 30000, ($3 * 1e6)::bigint, 0, 1000000 - ($3 * 1e6)::bigint from hosts where host_name = $1",
    )
    .bind(host)
    .bind(at)
    .bind(cpu)
    .execute(&mut *db)
    .await
    .unwrap();
    sqlx::query(
        "update heartbeats set last_sampled_at = $2
         where host_id = (select host_id from hosts where host_name = $1)",
    )
    .bind(host)
    .bind(at)
    .execute(db)
    .await
    .unwrap();
}

async fn filesystem(db: &mut PgConnection, host: &str, at: OffsetDateTime, mount: &str, used: i64) {
    sqlx::query(
        "insert into filesystem_samples (host_id, sampled_at, total_bytes, used_bytes, available_bytes, mount_point, device, filesystem_type)
         select host_id, $2, 100, $4, 100 - $4, $3, 'd', 'ext4' from hosts where host_name = $1",
    )
    .bind(host)
    .bind(at)
    .bind(mount)
    .bind(used)
    .execute(db)
    .await
    .unwrap();
}

/// `cores` in the 30 s before `at`, of one instance of `command_line`.
pub(super) async fn process(
    db: &mut PgConnection,
    host: &str,
    at: OffsetDateTime,
    command_line: &str,
    cores: i32,
) {
    sqlx::query(
        "with p as (
            insert into processes values (md5($3)::uuid, $3)
            on conflict (process_id) do update set command_line = excluded.command_line returning process_id),
         i as (
            insert into process_instances (host_id, instance_id, process_id, boot_id, creation_time, described_at, start_ticks, pid)
            select host_id, 1000 + ascii($3), process_id, host_id, $2, $2, 1, 1 from hosts, p where host_name = $1
            on conflict do nothing)
         insert into process_samples (host_number, sampled_at, instance_id, interval_ms, process_count, cpu_user_us, cpu_system_us)
         select host_number, $2, 1000 + ascii($3), 30000, 1, $4 * 30000000, 0 from hosts where host_name = $1",
    )
    .bind(host)
    .bind(at)
    .bind(command_line)
    .bind(cores)
    .execute(db)
    .await
    .unwrap();
}

/// `count` ends of the instance of [`process`], and as many connections of it.
async fn ends(
    db: &mut PgConnection,
    host: &str,
    at: OffsetDateTime,
    command_line: &str,
    count: i32,
) {
    for insert in [
        "insert into process_exits (host_id, sampled_at, instance_id, process_id, interval_ms, process_count)
         select host_id, $2, 0, md5($3)::uuid, 30000, $4 from hosts where host_name = $1",
        "insert into connection_samples (host_id, sampled_at, instance_id, interval_ms, connection_count, local_port,
             remote_port, shared, protocol, local_address, remote_address)
         select host_id, $2, 1000 + ascii($3), 30000, $4, 0, 443, false, 'tcp', '10.0.0.1', '10.0.0.2'
         from hosts where host_name = $1",
    ] {
        let insert = sqlx::query(insert).bind(host).bind(at).bind(command_line).bind(count);
        insert.execute(&mut *db).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_begins_and_ends_by_the_samples_and_unknown_is_neither() {
    let (alerting, start) = prepared("rules", Engine::PostgreSql, 2).await;
    let stand_in = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &stand_in).await;
    alerting.rule(&rule("cpu busy", "host.cpu_ratio", 0.9)).await;
    let mut db = alerting.connect().await;
    let at = |n: i64| start + Duration::seconds(30 * n);
    for (n, cpu) in [(1, Some(0.95)), (2, None), (3, Some(0.99))] {
        report(&mut db, "host-1", at(n), cpu).await;
        report(&mut db, "host-2", at(n), Some(0.5)).await;
        let opened = usize::from(n == 3);
        assert_eq!(alerting.judge().await, (opened, 0), "sample {n}");
    }
    assert_eq!(alerting.open_rules().await, ["cpu busy host-1"]);
    alerting.deliver().await;
    let text = stand_in.messages()[0].to_string();
    assert!(text.contains("host-1: cpu busy 99.0 %, above 90.0 %"), "{text}");
    // Nothing known is no recovery; neither is silence.
    for (n, cpu, ended) in
        [(4, None, 0), (5, None, 0), (6, Some(0.1), 0), (7, None, 0), (8, Some(0.1), 1)]
    {
        report(&mut db, "host-1", at(n), cpu).await;
        assert_eq!(alerting.judge().await, (0, ended), "sample {n}");
    }
    alerting.deliver().await;
    assert!(stand_in.messages()[1].to_string().contains("over after"), "{:?}", stand_in.messages());
    // What comes late and is older is not judged.
    for n in 0..9 {
        let late = at(n) + Duration::SECOND;
        sqlx::query("insert into host_samples (host_id, sampled_at, interval_ms, cpu_user_us, cpu_system_us, cpu_idle_us) select host_id, $1, 30000, 100, 0, 0 from hosts where host_name = 'host-1'")
            .bind(late)
            .execute(&mut db)
            .await
            .unwrap();
    }
    assert_eq!(alerting.judge().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_object_is_judged_for_itself_and_a_process_that_is_not_there_is_counted_as_none() {
    let (alerting, start) = prepared("objects", Engine::PostgreSql, 1).await;
    let mut full = rule("disk full", "filesystem.used_ratio", 0.9);
    full.for_s = 0;
    alerting.rule(&full).await;
    let mut busy = rule("process busy", "process.cpu_cores", 2.0);
    busy.object = Some("worker".into());
    alerting.rule(&busy).await;
    let mut gone = rule("database gone", "process.count", 1.0);
    (gone.below, gone.object) = (true, Some("postgres".into()));
    alerting.rule(&gone).await;
    let mut elsewhere = rule("elsewhere", "host.cpu_ratio", 0.1);
    (elsewhere.selector, elsewhere.for_s) = ("rack=r9".into(), 0);
    alerting.rule(&elsewhere).await;
    let mut db = alerting.connect().await;
    for n in 1..=5 {
        let at = start + Duration::seconds(30 * n);
        filesystem(&mut db, "host-1", at, "/", 50).await;
        filesystem(&mut db, "host-1", at, "/data", 95).await;
        process(&mut db, "host-1", at, "/bin/worker --all", 3).await;
        process(&mut db, "host-1", at, "/bin/idle", 3).await;
        if n <= 2 {
            process(&mut db, "host-1", at, "postgres: writer", 1).await;
        }
        report(&mut db, "host-1", at, Some(0.5)).await;
        alerting.judge().await;
    }
    assert_eq!(
        alerting.open_rules().await,
        ["database gone host-1", "disk full host-1 /data", "process busy host-1 /bin/worker --all"]
    );
    // A report whose processes are missing says nothing of them; one without a process says that it rests.
    let troubled = "update host_samples set agent_collectors = '[{\"collector\":\"process\",\"outcome\":\"late\"}]'
         where sampled_at > (select max(sampled_at) from host_samples) - interval '61 s'";
    for n in 6..=8 {
        report(&mut db, "host-1", start + Duration::seconds(30 * n), Some(0.5)).await;
    }
    alerting.execute(troubled).await;
    alerting.judge().await;
    assert_eq!(alerting.open_rules().await.len(), 3, "{:?}", alerting.open_rules().await);
    for n in 9..=12 {
        let at = start + Duration::seconds(30 * n);
        process(&mut db, "host-1", at, "postgres: writer", 1).await;
        report(&mut db, "host-1", at, Some(0.5)).await;
    }
    alerting.judge().await;
    assert_eq!(alerting.open_rules().await, ["disk full host-1 /data"]);
    // A rule that is replaced or removed takes its alerts with it.
    full.threshold = 0.99;
    full.recover_threshold = 0.99;
    alerting.store.replace_rule(&full, &Actor::cli()).await.unwrap();
    assert_eq!(alerting.open_rules().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_what_is_started_again_and_again_and_who_has_many_connections() {
    let (alerting, start) = prepared("behaviour", Engine::PostgreSql, 1).await;
    let now = |name: &str, metric: &str, threshold| Rule {
        for_s: 0,
        recover_for_s: 0,
        ..rule(name, metric, threshold)
    };
    let mut again = now("again", "process.exits_in_an_hour", 5.0);
    again.recover_for_s = 90;
    for rule in [
        &again,
        &now("new", "process.is_new", 0.0),
        &now("many", "process.connections", 2.0),
        &now("ended", "process.exits", 2.0),
    ] {
        alerting.rule(rule).await;
    }
    let mut db = alerting.connect().await;
    // Second, ends and connections of the one; what is open after it.
    for (second, count, open) in [
        (30, 2, vec!["new host-1 /bin/crashes"]),
        (60, 0, vec!["new host-1 /bin/crashes"]),
        (360, 3, vec!["ended host-1 /bin/crashes", "many host-1 /bin/crashes"]),
        // Six within an hour; the hour of the first two ends.
        (3620, 1, vec!["again host-1 /bin/crashes"]),
        (3660, 0, vec!["again host-1 /bin/crashes"]),
        (3690, 1, vec!["again host-1 /bin/crashes"]),
        (3780, 0, vec![]),
    ] {
        let at = start + Duration::seconds(second);
        for command_line in ["/bin/crashes", "/bin/stays"] {
            process(&mut db, "host-1", at, command_line, 1).await;
        }
        if second == 30 {
            sqlx::query("update processes set first_seen_at = $1 - (command_line = '/bin/stays')::int * interval '1 day'")
                .bind(start)
                .execute(&mut db)
                .await
                .unwrap();
        }
        if count > 0 {
            ends(&mut db, "host-1", at, "/bin/crashes", count).await;
        }
        report(&mut db, "host-1", at, None).await;
        alerting.judge().await;
        assert_eq!(alerting.open_rules().await, open, "after {second} s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_fills_is_told_before_it_is_full() {
    let (alerting, start) = prepared("filling", Engine::PostgreSql, 1).await;
    let mut filling = rule("filling", "filesystem.full_in_hours", 6.0);
    (filling.below, filling.recover_threshold) = (true, 8.0);
    (filling.for_s, filling.recover_for_s) = (0, 0);
    alerting.rule(&filling).await;
    let mut db = alerting.connect().await;
    let mut told = Vec::new();
    // 1 of 100 bytes every twelve minutes, five an hour; the other stays, the third is nearly empty.
    for n in 1..=60_i64 {
        let at = start + Duration::minutes(3 * n);
        let used = 60 + n / 4;
        for (mount, used) in [("/data", used), ("/stays", 99), ("/empty", n / 4)] {
            filesystem(&mut db, "host-1", at, mount, used).await;
        }
        report(&mut db, "host-1", at, None).await;
        if alerting.judge().await.0 > 0 {
            told.push((used, 3 * n));
        }
    }
    // Six hours are left when 70 are used; two hours were to be seen before.
    assert_eq!(told.len(), 1, "{told:?}");
    assert!((70..=72).contains(&told[0].0), "{told:?}");
    assert_eq!(alerting.open_rules().await, ["filling host-1 /data"]);
    // Somebody makes room: over, however steep the line was.
    let at = start + Duration::minutes(183);
    filesystem(&mut db, "host-1", at, "/data", 50).await;
    report(&mut db, "host-1", at, None).await;
    alerting.judge().await;
    assert_eq!(alerting.open_rules().await, [""; 0]);
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Rule, host, object, began, fired, ended.
type Found = (String, Uuid, String, String, String, Option<String>);

fn found(rule: &Rule, turns: &[Turn]) -> Vec<Found> {
    let text = |at: OffsetDateTime| at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap();
    history::alerts(turns)
        .into_iter()
        .map(|(begin, end)| {
            let name = rule.name.clone();
            let object = begin.title.clone().unwrap_or_default();
            let (began, fired) = (text(begin.began_at), text(begin.at));
            (name, begin.host_id, object, began, fired, end.map(|end| text(end.at)))
        })
        .collect()
}

fn random_rules() -> [Rule; 6] {
    let mut rules = [
        rule("cpu", "host.cpu_ratio", 0.6),
        rule("disk", "filesystem.used_ratio", 0.7),
        rule("worker", "process.cpu_cores", 2.0),
        rule("count", "process.count", 1.0),
        rule("restarts", "process.exits_in_an_hour", 30.0),
        rule("connections", "process.connections", 2.0),
    ];
    (rules[4].for_s, rules[5].for_s) = (0, 0);
    rules[0].recover_threshold = 0.4;
    rules[0].for_s = 30;
    rules[2].object = Some("worker".into());
    rules[2].recover_for_s = 0;
    (rules[3].below, rules[3].object) = (true, Some("worker".into()));
    rules
}

/// Three hours of three hosts, in reports that are missing, unknown or late in pieces of random length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dry_run_says_what_the_live_rounds_said_of_the_same_samples() {
    for engine in Engine::ALL {
        let (alerting, start) = prepared("dry-run", engine, 3).await;
        let rules = random_rules();
        for rule in &rules {
            alerting.rule(rule).await;
        }
        let mut db = alerting.connect().await;
        let mut numbers = Numbers(0xfeed);
        for n in 1..=320 {
            let at = start + Duration::seconds(30 * n);
            for host in ["host-1", "host-2", "host-3"] {
                if numbers.below(12) == 0 {
                    continue; // no report
                }
                if numbers.below(9) != 0 {
                    filesystem(&mut db, host, at, "/data", 60 + numbers.below(25).cast_signed())
                        .await;
                }
                if numbers.below(3) != 0 {
                    process(
                        &mut db,
                        host,
                        at,
                        "/bin/worker",
                        1 + i32::try_from(numbers.below(4)).unwrap(),
                    )
                    .await;
                }
                if numbers.below(4) == 0 {
                    let count = 1 + i32::try_from(numbers.below(3)).unwrap();
                    ends(&mut db, host, at, "/bin/worker", count).await;
                }
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let cpu = (numbers.below(10) != 0).then(|| numbers.below(100) as f64 / 100.0);
                report(&mut db, host, at, cpu).await;
            }
            if numbers.below(15) == 0 {
                alerting.judge().await;
            }
        }
        alerting.judge().await;
        let mut live: Vec<Found> = sqlx::query_as(
            "select rule, host_id, coalesce(detail->>'object', ''), to_char(began_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                 detail->>'sampled_at', detail->>'ended_at' from alerts",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        let hosts: Vec<_> =
            alerting.store.judged_hosts().await.unwrap().into_iter().map(|host| host.0).collect();
        let mut dry = Vec::new();
        for rule in &rules {
            let window = (start, start + Duration::hours(3));
            let history = history::judge(&alerting.store, rule, &hosts, window).await.unwrap();
            assert_eq!((history.hosts, history.judged), (3, 3));
            let of_rule = found(rule, &history.turns);
            assert!(of_rule.len() >= 3, "{}: {} alerts", rule.name, of_rule.len());
            dry.extend(of_rule);
        }
        live.sort();
        dry.sort();
        assert_eq!(live, dry);
        println!("{engine:?}: {} alerts, live and dry", dry.len());
    }
}
