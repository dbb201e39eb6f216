//! Machines that enrol again, against a real server: who is the host of before, and who is not.

use std::time::Duration;

use collector_api::auth::join_token::{self, TokenRequest};
use collector_api::store::audit::Actor;
use fleet_sim::eventually::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared_model::{EnrollResponse, JoinToken};
use sqlx::Connection as _;
use uuid::Uuid;

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server, new_host};

struct Hall {
    fleet: Fleet,
    server: Server,
    same_machine: JoinToken,
    plain: JoinToken,
}

/// `machine-id`, firmware's id, host name.
type Machine = (Option<&'static str>, Option<&'static str>, &'static str);

const MACHINE: Machine = (Some("m1"), Some("p1"), "db-1");

impl Hall {
    async fn open(name: &str, machine_per_hour: u32) -> Self {
        let fleet = Fleet::create(name).await;
        let mut config = fleet.config();
        config.enrollment.machine_per_hour = machine_per_hour;
        let server = fleet.serve(&config).await;
        let request = TokenRequest {
            name: "reinstalled".into(),
            ttl: Duration::from_hours(1),
            labels: [("env".to_owned(), "token".to_owned()), ("site".into(), "b".into())].into(),
            same_machine: true,
            ..TokenRequest::default()
        };
        let endpoints = vec!["https://127.0.0.1:1".to_owned()];
        let made = join_token::create(&fleet.store, endpoints, &request, &Actor::cli()).await;
        let (same_machine, plain) = (made.unwrap(), fleet.token(None).await);
        Self { fleet, server, same_machine, plain }
    }

    async fn ask(&self, token: &JoinToken, body: &Value) -> (StatusCode, Value) {
        self.server.enroll(&self.fleet.client(None), &token.authorization(), body).await
    }

    async fn enroll(&self, token: &JoinToken, machine: Machine) -> Identity {
        let (key, body) = of(machine);
        let (status, answer) = self.ask(token, &body).await;
        assert_eq!(status, StatusCode::CREATED, "{machine:?}: {answer}");
        let given: EnrollResponse = serde_json::from_value(answer).unwrap();
        Identity { key, given }
    }

    /// Enrols a machine, long ago; its host falls silent.
    async fn gone(&self, machine: Machine) -> Identity {
        let identity = self.enroll(&self.plain, machine).await;
        self.set(identity.given.host_id, SILENT).await;
        identity
    }

    async fn set(&self, host_id: Uuid, what: &'static str) {
        let mut connection = self.fleet.database.connect().await.unwrap();
        let update = format!("update heartbeats set {what} where host_id = $1");
        let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(host_id);
        assert_eq!(update.execute(&mut connection).await.unwrap().rows_affected(), 1);
        self.fleet.execute("update hosts set enrolled_at = now() - interval '1 hour'").await;
        // Somebody watches the fleet.
        self.fleet.execute(WATCHED).await;
    }
}

const WATCHED: &str =
    "update alert_sweep set last_ok_at = now() + interval '1 min', deaf_since = null";
const SILENT: &str = "contacted_at = now() - interval '11 min', deadline_at = now() - interval '9 min', goodbye = null";

fn of((machine_id, firmware, name): Machine) -> (rcgen::KeyPair, Value) {
    let (key, mut body) = new_host(name);
    body["facts"]["machine_id_hash"] = json!(machine_id);
    body["facts"]["product_uuid_hash"] = json!(firmware);
    (key, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_is_its_machine_again_and_its_old_certificate_ends() {
    let hall = Hall::open("machine-again", 0).await;
    let old = hall.gone(MACHINE).await;
    hall.fleet.execute(r#"update hosts set labels = '{"env": "prod", "team": "a"}'"#).await;
    let (_, body) = of((Some("m2"), Some("p1"), "db-1"));
    let (status, answer) = hall.ask(&hall.same_machine, &body).await;
    assert_eq!((status, &answer["host_id"]), (StatusCode::CREATED, &json!(old.given.host_id)));
    // The answer was lost.
    let (status, again) = hall.ask(&hall.same_machine, &body).await;
    assert_eq!((status, &again["host_id"]), (StatusCode::OK, &answer["host_id"]));
    assert_eq!(again["certificate_chain_pem"], answer["certificate_chain_pem"]);

    let url = hall.server.agent_url("/v1/certificate");
    let refused = old.client(&hall.fleet).get(url).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["code"], "certificate_revoked");

    let labels = r#"select count(*) from hosts where machine_id_hash = 'm2' and lifecycle = 'active'
        and labels = '{"env": "prod", "team": "a", "site": "b"}'"#;
    assert_eq!(hall.fleet.count(labels).await, 1, "the host's own labels win");
    assert_eq!(hall.fleet.count("select count(*) from hosts").await, 1);
    assert_eq!(hall.fleet.count("select sum(uses)::bigint from enrollment_tokens").await, 2);
    let told = "select count(*) from audit_events where action = 'host.reenroll' and detail->>'certificates_revoked' = '1'";
    assert_eq!(hall.fleet.count(told).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_lives_and_nobody_else_is_taken_over() {
    let lives = "contacted_at = now(), deadline_at = now() + interval '1 min'";
    let missed = "contacted_at = now() - interval '9 min', deadline_at = now() - interval '7 min'";
    let stopped = "contacted_at = now(), deadline_at = now() + interval '1 min', goodbye = 'uninstall', goodbye_at = now()";
    let restarts = "contacted_at = now(), deadline_at = now() + interval '1 min', goodbye = 'restart', goodbye_at = now()";
    let without_firmware: Machine = (Some("m1"), None, "db-1");
    for (what, state, before, now, token, again) in [
        ("lives", lives, MACHINE, MACHINE, true, false),
        ("restarts", restarts, MACHINE, MACHINE, true, false),
        ("missed for a while", missed, MACHINE, MACHINE, true, false),
        ("silent", SILENT, MACHINE, MACHINE, true, true),
        ("stopped", stopped, MACHINE, MACHINE, true, true),
        ("another token", SILENT, MACHINE, MACHINE, false, false),
        ("renamed", SILENT, MACHINE, (Some("m1"), Some("p1"), "new"), true, true),
        ("new system", SILENT, MACHINE, (Some("m2"), Some("p1"), "db-1"), true, true),
        ("another container", SILENT, MACHINE, (Some("m2"), Some("p1"), "web"), true, false),
        ("copied image", SILENT, MACHINE, (Some("m1"), Some("p2"), "db-1"), true, false),
        ("no firmware", SILENT, without_firmware, without_firmware, true, true),
        ("firmware now", SILENT, without_firmware, MACHINE, true, true),
        ("only the name", SILENT, (None, None, "db-1"), (None, None, "db-1"), true, false),
    ] {
        let hall = Hall::open("machine-table", 0).await;
        let old = hall.gone(before).await;
        hall.set(old.given.host_id, state).await;
        let token = if token { &hall.same_machine } else { &hall.plain };
        let new = hall.enroll(token, now).await;
        assert_eq!(new.given.host_id == old.given.host_id, again, "{what}");
        let marked = "select count(*) from hosts where duplicate_machine_at is not null";
        let expected = if [lives, missed, restarts].contains(&state) { 2 } else { 0 };
        assert_eq!(hall.fleet.count(marked).await, expected, "{what}");
        let url = hall.server.agent_url("/v1/certificate");
        let in_force = old.client(&hall.fleet).get(url).send().await.unwrap().status().is_success();
        assert_eq!(in_force, !again, "{what}: a certificate ends with the takeover alone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_set_aside_stays_so_and_one_that_ended_does_not_return() {
    let hall = Hall::open("machine-lifecycle", 0).await;
    let aside = hall.gone(MACHINE).await.given.host_id;
    hall.fleet.execute("update hosts set lifecycle = 'quarantined'").await;
    // Its agent asks every quarter of an hour.
    assert_ne!(hall.enroll(&hall.same_machine, MACHINE).await.given.host_id, aside);
    hall.fleet
        .execute("update hosts set lifecycle = 'decommissioned' where lifecycle = 'active'")
        .await;
    hall.set(aside, "contacted_at = now() - interval '20 min'").await;
    assert_eq!(hall.enroll(&hall.same_machine, MACHINE).await.given.host_id, aside);
    let quarantined = "select count(*) from hosts where lifecycle = 'quarantined'";
    assert_eq!(hall.fleet.count(quarantined).await, 1);
    hall.set(aside, SILENT).await;
    hall.fleet
        .execute("update hosts set lifecycle = 'pending' where lifecycle = 'quarantined'")
        .await;
    assert_ne!(hall.enroll(&hall.same_machine, MACHINE).await.given.host_id, aside);
    hall.fleet.execute("update hosts set lifecycle = 'decommissioned'").await;
    assert_ne!(hall.enroll(&hall.same_machine, MACHINE).await.given.host_id, aside);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_enrols_again_and_again_waits_and_others_do_not() {
    let hall = Hall::open("machine-churn", 3).await;
    for _ in 0..3 {
        hall.enroll(&hall.plain, MACHINE).await;
    }
    let (_, body) = of(MACHINE);
    let url = hall.server.agent_url("/v1/enroll");
    let request = hall.fleet.client(None).post(url).json(&body);
    let refused = request.header("authorization", hall.plain.authorization()).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1200");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too_many_requests");
    assert_eq!(hall.fleet.count("select count(*) from hosts").await, 3);
    assert_eq!(hall.fleet.count("select sum(uses)::bigint from enrollment_tokens").await, 3);
    // Copies of its image, containers on it, and who does not know both ids.
    for other in [(Some("m1"), Some("p2"), "db-1"), (Some("m2"), Some("p1"), "db-1")] {
        hall.enroll(&hall.plain, other).await;
    }
    for unknown in [(None, None, "db-1"), (Some("m1"), None, "db-1")] {
        for _ in 0..4 {
            hall.enroll(&hall.plain, unknown).await;
        }
    }
    // Operators hear of it, and its hour passes.
    let open =
        "select count(*) from alerts where rule = 'host_enrolls_too_often' and resolved_at is null";
    hall.fleet.store.sweep_silence().await.unwrap();
    assert_eq!(hall.fleet.count(open).await, 1);
    for over in [
        "update machine_enrollments set enrolled_at = enrolled_at - interval '1 hour'",
        "update hosts set enrollment_refused_at = enrollment_refused_at - interval '1 hour'",
    ] {
        hall.fleet.execute(over).await;
    }
    hall.enroll(&hall.plain, MACHINE).await;
    hall.fleet.store.sweep_silence().await.unwrap();
    assert_eq!(hall.fleet.count(open).await, 0);
    assert_eq!(hall.fleet.count("select count(*) from machine_enrollments").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_say_they_are_one_machine_the_first_is_it() {
    let hall = Hall::open("machine-at-once", 0).await;
    let old = hall.gone(MACHINE).await.given.host_id;
    let asked: Vec<_> = (0..8).map(|_| of(MACHINE)).collect();
    let at_once = asked.iter().map(|(_, body)| hall.ask(&hall.same_machine, body));
    let answers = futures_util::future::join_all(at_once).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::CREATED), "{answers:?}");
    let again = answers.iter().filter(|(_, answer)| answer["host_id"] == json!(old)).count();
    assert_eq!(again, 1, "nobody takes it from who has just got it");
    let active = "select count(*) from host_certificates where status = 'active'";
    assert_eq!(hall.fleet.count(active).await, 8);
    let marked = "select count(*) from hosts where duplicate_machine_at is not null";
    assert_eq!(hall.fleet.count(marked).await, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_over_while_nobody_watches_and_no_tombstone_returns() {
    let hall = Hall::open("machine-outage", 0).await;
    let old = hall.gone(MACHINE).await.given.host_id;
    for outage in [
        "update alert_sweep set last_ok_at = now() - interval '21 s'",
        "update alert_sweep set last_ok_at = now() + interval '1 min', deaf_since = now()",
    ] {
        let known = "select count(*) from hosts";
        let before = hall.fleet.count(known).await;
        hall.fleet.execute(outage).await;
        assert_ne!(hall.enroll(&hall.same_machine, MACHINE).await.given.host_id, old, "{outage}");
        assert_eq!(hall.fleet.count(known).await, before + 1);
        hall.fleet.execute("update hosts set lifecycle = 'decommissioned' where duplicate_machine_at is not null and enrolled_at > now() - interval '1 min'").await;
    }
    // An operator ends it between the look and the lock: the machine is a new host.
    hall.fleet.execute(WATCHED).await;
    let mut connection = hall.fleet.database.connect().await.unwrap();
    let mut ending = connection.begin().await.unwrap();
    sqlx::query("select from heartbeats where host_id = $1 for update")
        .bind(old)
        .execute(&mut *ending)
        .await
        .unwrap();
    let (_, body) = of(MACHINE);
    let enrolled = hall.ask(&hall.same_machine, &body);
    let ended = async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database()
            and wait_event_type = 'Lock'";
        eventually(Duration::from_secs(20), "the enrolment waits", async || {
            anyhow::ensure!(hall.fleet.count(waiting).await > 0);
            Ok::<_, anyhow::Error>(())
        })
        .await
        .unwrap();
        let end = "update hosts set lifecycle = 'decommissioned' where host_id = $1";
        sqlx::query(end).bind(old).execute(&mut *ending).await.unwrap();
        ending.commit().await.unwrap();
    };
    let ((status, answer), ()) = tokio::join!(enrolled, ended);
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_ne!(answer["host_id"], json!(old));
    let tombstone = "select count(*) from hosts where lifecycle = 'decommissioned'";
    assert_eq!(hall.fleet.count(tombstone).await, 3, "it does not return");
}
