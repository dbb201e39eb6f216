//! Releases on their way to a fleet, on real databases: time passes by moving what was written back.

mod hosts;
mod rest;

use collector_api::rollouts;
use collector_api::store::Store;
use collector_api::store::audit::Actor;
use collector_api::store::rollouts::changes::{NewRollout, RolloutChange, RolloutChanged};
use collector_api::store::rollouts::questions::RolloutRow;
use fleet_sim::database::{Engine, TestDatabase};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// A fleet whose agents say what the test makes them say.
struct Fleet {
    database: TestDatabase,
    store: Store,
    connection: PgConnection,
}

impl Fleet {
    /// `hosts` that run release 6; the servers watch them.
    async fn create(engine: Engine, hosts: u32) -> Self {
        let database = TestDatabase::create(engine).await.unwrap();
        let store = Store::connect(&database.url, 4).await.unwrap();
        let connection = database.connect().await.unwrap();
        let mut fleet = Self { database, store, connection };
        fleet
            .execute(
                "insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
                values ('00000000-0000-0000-0000-000000000001', 'test', sha256('x'), now() + interval '1 day')",
            )
            .await;
        fleet.add(1, hosts).await;
        fleet.store.sweep_silence().await.unwrap();
        fleet
    }

    async fn add(&mut self, from: u32, to: u32) {
        self.execute(&format!(
            "with new as (
                insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, labels)
                select md5(n::text)::uuid, 'host-' || n, '6.1', 'x86_64', '0', '00000000-0000-0000-0000-000000000001',
                    case when n <= 3 then '{{\"env\": \"test\"}}'::jsonb else '{{}}' end
                from generate_series({from}, {to}) n returning host_id),
            said as (insert into host_releases (host_id, installed_seq, state, changed_at)
                select host_id, 6, 'confirmed', now() from new)
            insert into heartbeats (host_id, last_seen_at, contacted_at, deadline_at, interval_ms)
            select host_id, now(), now(), now() + interval '10 days', 30000 from new"
        ))
        .await;
    }

    async fn execute(&mut self, text: &str) {
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut self.connection).await.unwrap();
    }

    async fn count(&mut self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut self.connection)
            .await
            .unwrap()
    }

    /// Begins a rollout of release 7.
    async fn begin(&self, canaries: Option<&str>, max_in_flight: i32) -> Uuid {
        let mut new =
            NewRollout::new(7, 5, canaries.map(str::to_owned), max_in_flight, 1800).unwrap();
        // The same hosts come first in every run.
        new.rollout_id = Uuid::from_u128(self.store.rollouts(None).await.unwrap().len() as u128);
        assert!(self.store.create_rollout(&new, &Actor::cli()).await.unwrap());
        new.rollout_id
    }

    /// A server looks; the rollout after it.
    async fn round(&self) -> RolloutRow {
        // What a sweep of the servers says holds for seconds; a slow machine takes longer.
        self.store.sweep_silence().await.unwrap();
        rollouts::round(&self.store, 0.0).await.unwrap();
        self.store.rollouts(None).await.unwrap().remove(0)
    }

    /// Everybody who is told installs it, and it works.
    async fn obey(&mut self) {
        self.execute(
            "update host_releases set installed_seq = desired_seq, target_seq = desired_seq, state = 'confirmed',
                changed_at = now() where desired_seq is distinct from installed_seq and desired_seq is not null",
        )
        .await;
    }

    /// As many as that who are told say so.
    async fn say(&mut self, state: &str, hosts: u32) {
        self.execute(&format!(
            "update host_releases set state = '{state}', target_seq = desired_seq, reason = 'it is broken', changed_at = now(),
                installed_seq = case when '{state}' = 'probation' then desired_seq else installed_seq end
            where host_id in (select host_id from host_releases where state <> '{state}' and desired_seq <> installed_seq
                order by host_id limit {hosts})"
        ))
        .await;
    }

    async fn half_an_hour_passes(&mut self) {
        self.execute(
            "update rollouts set step_entered_at = step_entered_at - interval '31 minutes';
            update rollout_hosts set started_at = started_at - interval '31 minutes';
            update host_releases set changed_at = changed_at - interval '31 minutes'",
        )
        .await;
    }

    /// How many hosts are told to run release 7.
    async fn told(&mut self) -> i64 {
        self.count("select count(*) from host_releases where desired_seq = 7").await
    }

    async fn change(&self, rollout_id: Uuid, change: RolloutChange) -> RolloutChanged {
        self.store.change_rollout(rollout_id, change, &Actor::cli()).await.unwrap()
    }
}

fn stands(row: &RolloutRow) -> (&str, i16, i64) {
    (row.state.as_str(), row.percent, row.hosts_started)
}

#[tokio::test]
async fn a_release_goes_from_five_hosts_to_all_of_them_and_to_those_that_come_later() {
    for engine in Engine::ALL {
        let mut fleet = Fleet::create(engine, 600).await;
        let rollout_id = fleet.begin(None, 200).await;
        assert_eq!(stands(&fleet.round().await), ("canary", 0, 5));
        assert_eq!((fleet.told().await, stands(&fleet.round().await)), (5, ("canary", 0, 5)));
        fleet.obey().await;
        let row = fleet.round().await;
        assert_eq!((stands(&row), row.hosts_confirmed), (("canary", 0, 5), 5));
        assert!(row.reason.unwrap().starts_with("it is looked at until"));
        let mut steps = Vec::new();
        for _ in 0..30 {
            fleet.half_an_hour_passes().await;
            let row = fleet.round().await;
            assert!(row.hosts_under_way <= 200, "{row:?}");
            if steps.last() != Some(&row.percent) {
                steps.push(row.percent);
            }
            fleet.obey().await;
            if row.state == "done" {
                break;
            }
        }
        assert_eq!(steps, [1, 10, 50, 100]);
        let row = fleet.round().await;
        assert_eq!((stands(&row), row.hosts_confirmed), (("done", 100, 600), 600));
        assert_eq!(
            fleet.count("select count(*) from host_releases where installed_seq = 7").await,
            600
        );
        // Two come later: one with an older release, one with a newer one.
        fleet.add(601, 602).await;
        fleet
            .execute("update host_releases set installed_seq = 8 where host_id = md5('602')::uuid")
            .await;
        assert_eq!(stands(&fleet.round().await), ("done", 100, 601));
        let told = "select count(*) from host_releases where desired_seq = 7 and host_id = md5('601')::uuid";
        assert_eq!(fleet.count(told).await, 1);
        let steps = "select count(*) from audit_events where object_id = (select rollout_id::text from rollouts)";
        assert_eq!(fleet.count(steps).await, 1 + 4 + 1, "made, four steps, done");
        assert_eq!(fleet.change(rollout_id, RolloutChange::Pause).await, {
            RolloutChanged::NotNow(collector_api::store::rollouts::RolloutState::Done)
        });
    }
}

#[tokio::test]
async fn one_bad_canary_halts_it_and_takes_the_release_back_from_who_does_not_run_it() {
    for engine in Engine::ALL {
        let mut fleet = Fleet::create(engine, 50).await;
        fleet.begin(Some("env=test"), 100).await;
        assert_eq!(stands(&fleet.round().await), ("canary", 0, 3));
        let selected = "select count(*) from host_releases join hosts using (host_id) where desired_seq = 7 and labels @> '{\"env\": \"test\"}'";
        assert_eq!(fleet.count(selected).await, 3);
        fleet.say("probation", 1).await;
        fleet.say("rolled_back", 1).await;
        let row = fleet.round().await;
        assert_eq!((stands(&row), row.hosts_rolled_back), (("halted", 0, 3), 1));
        assert!(row.reason.unwrap().contains("1 were rolled back"));
        assert_eq!(fleet.told().await, 1, "the one that runs it");
        // Whoever was on its way is still looked at; nobody else is started.
        fleet
            .execute("update host_releases set state = 'confirmed' where state = 'probation'")
            .await;
        let row = fleet.round().await;
        assert_eq!((stands(&row), row.hosts_confirmed), (("halted", 0, 3), 1));
        let reason = "select count(*) from rollout_hosts where outcome = 'rolled_back' and reason = 'it is broken'";
        assert_eq!(fleet.count(reason).await, 1);
        assert_eq!(
            fleet.count("select count(*) from audit_events where action = 'rollout.halt'").await,
            1
        );
        // Another may be begun.
        fleet.begin(None, 100).await;
        assert_eq!(stands(&fleet.round().await), ("canary", 0, 5));
    }
}

#[tokio::test]
async fn hosts_that_are_not_heard_of_any_more_halt_it_unless_nobody_listens() {
    let mut fleet = Fleet::create(Engine::PostgreSql, 20).await;
    fleet.begin(None, 100).await;
    fleet.round().await;
    fleet.half_an_hour_passes().await;
    fleet
        .execute(
            "update heartbeats set deadline_at = now() - interval '15 minutes', last_seen_at = now() - interval '17 minutes'
            where host_id = (select host_id from rollout_hosts limit 1);
            update alert_sweep set last_ok_at = now() - interval '1 minute'",
        )
        .await;
    rollouts::round(&fleet.store, 0.0).await.unwrap();
    let row = fleet.store.rollouts(None).await.unwrap().remove(0);
    assert_eq!((stands(&row), row.hosts_lost), (("canary", 0, 5), 0));
    fleet.execute("update alert_sweep set last_ok_at = now()").await;
    let row = fleet.round().await;
    assert_eq!((stands(&row), row.hosts_lost), (("halted", 0, 5), 1));
}

#[tokio::test]
async fn pause_holds_resume_goes_on_advance_skips_the_soak_cancel_ends() {
    let mut fleet = Fleet::create(Engine::PostgreSql, 300).await;
    let rollout_id = fleet.begin(None, 2).await;
    assert_eq!(stands(&fleet.round().await), ("canary", 0, 2));
    assert_eq!(fleet.change(rollout_id, RolloutChange::Pause).await, RolloutChanged::Done);
    fleet.obey().await;
    let row = fleet.round().await;
    assert_eq!((stands(&row), row.hosts_confirmed), (("paused", 0, 2), 2), "who was told goes on");
    let paused = collector_api::store::rollouts::RolloutState::Paused;
    let advanced = fleet.change(rollout_id, RolloutChange::Advance).await;
    assert_eq!(advanced, RolloutChanged::NotNow(paused));
    assert_eq!(fleet.change(rollout_id, RolloutChange::Resume).await, RolloutChanged::Done);
    for started in [4, 5, 5] {
        assert_eq!(stands(&fleet.round().await), ("canary", 0, started));
        fleet.obey().await;
    }
    assert_eq!(fleet.change(rollout_id, RolloutChange::Advance).await, RolloutChanged::Done);
    // The next step soaks again.
    for _ in 0..5 {
        let row = fleet.round().await;
        assert_eq!((row.state.as_str(), row.percent), ("rolling", 1));
        fleet.obey().await;
    }
    fleet.half_an_hour_passes().await;
    let row = fleet.round().await;
    assert_eq!((row.percent, row.hosts_under_way), (10, 2));
    fleet.say("downloading", 1).await;
    assert_eq!(fleet.change(rollout_id, RolloutChange::Cancel).await, RolloutChanged::Done);
    let installed = fleet.count("select count(*) from host_releases where installed_seq = 7").await;
    assert_eq!(fleet.told().await, installed, "who runs it keeps it, the others are told nothing");
    let row = fleet.round().await;
    assert_eq!((row.state.as_str(), row.hosts_started), ("cancelled", installed + 2));
    let nobody = fleet.change(Uuid::new_v4(), RolloutChange::Cancel).await;
    assert_eq!(nobody, RolloutChanged::NoRollout);
}

#[tokio::test]
async fn a_pin_prevails_and_a_host_that_is_off_or_gone_is_no_part_of_it() {
    let mut fleet = Fleet::create(Engine::PostgreSql, 12).await;
    let host = |n: u32| format!("host_id = md5('{n}')::uuid");
    let id = async |fleet: &mut Fleet, n: u32| -> Uuid {
        let query = format!("select host_id from hosts where {}", host(n));
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut fleet.connection).await.unwrap()
    };
    fleet.execute("update host_releases set state = 'off' where host_id in (select host_id from hosts where host_name in ('host-1', 'host-2'))").await;
    fleet.execute("update host_releases set state = null where host_id = md5('3')::uuid").await;
    let pinned = id(&mut fleet, 4).await;
    let pin = async |fleet: &Fleet, host: Uuid, seq| {
        fleet.store.pin_release(host, seq, &Actor::cli()).await.unwrap()
    };
    assert!(pin(&fleet, pinned, Some(5)).await);
    assert!(!pin(&fleet, Uuid::new_v4(), Some(5)).await, "no such host");
    fleet.begin(None, 100).await;
    // Enough for all of them to be canaries.
    fleet.execute("update rollouts set canary_count = 100").await;
    assert_eq!(stands(&fleet.round().await), ("canary", 0, 8));
    let others = "select count(*) from rollout_hosts where host_id in (select host_id from hosts where host_name in ('host-1', 'host-2', 'host-3', 'host-4'))";
    assert_eq!(fleet.count(others).await, 0);
    assert_eq!(fleet.store.host_release(pinned).await.unwrap().unwrap().desired_seq, Some(5));
    // Under way: one is pinned, one switched off, one stops and says so, one is decommissioned.
    let late = id(&mut fleet, 5).await;
    assert!(pin(&fleet, late, Some(6)).await);
    fleet.execute("update host_releases set state = 'off' where host_id = md5('6')::uuid").await;
    fleet
        .execute("update heartbeats set goodbye = 'shutdown' where host_id = md5('7')::uuid")
        .await;
    fleet
        .execute("update hosts set lifecycle = 'decommissioned' where host_id = md5('8')::uuid")
        .await;
    assert_eq!(stands(&fleet.round().await), ("canary", 0, 4));
    let release = fleet.store.host_release(late).await.unwrap().unwrap();
    assert_eq!((release.desired_seq, release.pinned_seq), (Some(6), Some(6)));
    assert_eq!(fleet.told().await, 4);
    // Back again, and not pinned any more.
    fleet.execute("update heartbeats set goodbye = null where host_id = md5('7')::uuid").await;
    assert!(pin(&fleet, late, None).await && pin(&fleet, late, None).await);
    assert_eq!(stands(&fleet.round().await), ("canary", 0, 6));
    assert_eq!(fleet.store.host_release(late).await.unwrap().unwrap().desired_seq, Some(7));
    let audited = "select count(*) from audit_events where action like 'host.%pin_release'";
    assert_eq!(fleet.count(audited).await, 3, "what changed nothing is not in it");
}

#[tokio::test]
async fn servers_that_look_at_once_start_nobody_twice_and_none_beyond_the_limit() {
    for engine in Engine::ALL {
        let mut fleet = Fleet::create(engine, 400).await;
        fleet.begin(None, 30).await;
        fleet.execute("update rollouts set state = 'rolling', percent = 100").await;
        fleet.store.sweep_silence().await.unwrap();
        let other = Store::connect(&fleet.database.url, 4).await.unwrap();
        let mut expected = 0;
        while expected < 120 {
            let (a, b, c) = tokio::join!(
                rollouts::round(&fleet.store, 0.0),
                rollouts::round(&other, 0.0),
                rollouts::round(&fleet.store, 0.0)
            );
            assert!(a.unwrap() + b.unwrap() + c.unwrap() >= 1);
            expected += 30;
            assert_eq!(fleet.told().await, expected);
            assert_eq!(fleet.count("select count(*) from rollout_hosts").await, expected);
            fleet.obey().await;
        }
        // What another looked at a moment ago is left alone.
        assert_eq!(rollouts::round(&fleet.store, 3600.0).await.unwrap(), 0);
        assert_eq!(fleet.told().await, 120);
    }
}

#[tokio::test]
async fn old_rollouts_are_forgotten_but_for_the_one_that_serves_who_comes() {
    let mut fleet = Fleet::create(Engine::PostgreSql, 3).await;
    fleet
        .execute(
            "insert into rollouts (rollout_id, created_by, target_seq, state, created_at)
            select md5('r' || n)::uuid, 'ada', n, case when n = 2 then 'done' else 'cancelled' end,
                now() - n * interval '-1 s' - interval '1 day'
            from generate_series(1, 120) n;
            insert into rollout_hosts (rollout_id, host_id, is_canary)
            select rollout_id, host_id, true from rollouts, hosts",
        )
        .await;
    fleet.begin(None, 100).await;
    let kept: Vec<i64> = sqlx::query_scalar("select target_seq from rollouts order by created_at")
        .fetch_all(&mut fleet.connection)
        .await
        .unwrap();
    assert_eq!(kept, [2].into_iter().chain(22..=120).chain([7]).collect::<Vec<i64>>());
    assert_eq!(fleet.count("select count(*) from rollout_hosts").await, 100 * 3);
}
