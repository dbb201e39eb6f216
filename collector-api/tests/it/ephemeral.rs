//! Ephemeral hosts: the server ends those that are gone, and only those.

use std::time::Duration;

use collector_api::auth::join_token::{self, CreateTokenError, TokenRequest};
use collector_api::maintenance;
use collector_api::store::audit::Actor;
use uuid::Uuid;

use crate::certificates::Identity;
use crate::fleet::Fleet;

/// Hosts that are only rows: name, ephemeral, life cycle, heartbeat.
const HOSTS: &str = r"
    with token as (
        insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
        values ('00000000-0000-0000-0000-000000000001', 't', sha256('x'), now() + interval '1 day')
        returning token_id
    ), given (name, ephemeral, lifecycle, enrolled, seen, deadline, goodbye, said) as (values
        ('up', true, 'active', 9999, 10, -90, null, null),
        ('silent for long', true, 'active', 9999, 1900, 1810, null, null),
        ('silent just now', true, 'active', 9999, 1900, 1790, null, null),
        ('shut down', true, 'active', 9999, 400, 300, 'shutdown', 310),
        ('shut down just now', true, 'active', 9999, 400, 300, 'shutdown', 290),
        ('uninstalled', true, 'active', 9999, 400, 300, 'uninstall', 310),
        ('restarts', true, 'active', 9999, 400, 100, 'restart', 390),
        ('never reported', true, 'active', 86500, null, null, null, null),
        ('enrolled just now', true, 'active', 3600, null, null, null, null),
        ('waits', true, 'pending', 90000, 86500, 86500, null, null),
        ('set aside', true, 'quarantined', 90000, 86500, 86500, 'shutdown', 86500),
        ('stays', false, 'active', 90000, 86500, 86500, null, null),
        ('stays, shut down', false, 'active', 90000, 86500, 86500, 'shutdown', 86500)
    ), made as (
        insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id,
            lifecycle, ephemeral, enrolled_at, lifecycle_changed_at)
        select md5(name)::uuid, name, '6.1', 'x86_64', '0.1', token_id, lifecycle, ephemeral,
            now() - enrolled * interval '1 s', now() - enrolled * interval '1 s'
        from token, given
        returning host_id
    )
    insert into heartbeats (host_id, last_seen_at, contacted_at, last_sampled_at, deadline_at, interval_ms, goodbye, goodbye_at)
    select md5(name)::uuid, now() - seen * interval '1 s', now() - seen * interval '1 s', now() - seen * interval '1 s',
        now() - deadline * interval '1 s', 30000, goodbye, now() - said * interval '1 s' from given";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_are_gone_end_without_an_alert_and_all_others_stay() {
    let fleet = Fleet::create("ephemeral").await;
    fleet.execute(HOSTS).await;
    let mut worker = fleet.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
    let decommissioned = "select count(*) from hosts where lifecycle = 'decommissioned'";
    for unsure in [
        "update alert_sweep set last_ok_at = null",
        "update alert_sweep set last_ok_at = now() - interval '21 s'",
        "update alert_sweep set last_ok_at = now(), deaf_since = now()",
    ] {
        fleet.execute(unsure).await;
        assert_eq!(worker.retire_ephemeral().await.unwrap(), 0, "{unsure}");
    }
    fleet.execute("update alert_sweep set last_ok_at = null, deaf_since = null").await;
    fleet.store.sweep_silence().await.unwrap();
    let alerts = "select count(*) from alerts a join hosts h using (host_id) where h.ephemeral and a.rule = 'host_silent'";
    assert_eq!(fleet.count(alerts).await, 0, "ephemeral hosts go silent unheard");
    assert_eq!(
        fleet.count("select count(*) from alerts where rule = 'host_silent'").await,
        1,
        "the one that stays is told"
    );
    maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
    assert_eq!(fleet.count(decommissioned).await, 4);
    assert_eq!(worker.retire_ephemeral().await.unwrap(), 0, "once");

    let gone = "select count(*) from hosts where lifecycle = 'decommissioned'
        and host_name in ('never reported', 'shut down', 'silent for long', 'uninstalled')";
    assert_eq!(fleet.count(gone).await, 4);
    let audited =
        "select count(*) from audit_events where actor = 'server' and action = 'host.decommission'
        and object_id in (select host_id::text from hosts where lifecycle = 'decommissioned')";
    assert_eq!(fleet.count(audited).await, 4);
    let reasons =
        "select count(*) from hosts where lifecycle_reason = 'ephemeral, and it shut down'";
    assert_eq!(fleet.count(reasons).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_labels_that_hosts_can_have() {
    let fleet = Fleet::create("token-labels").await;
    let many = (0..33).map(|n| (format!("n{n}"), String::new())).collect();
    for labels in [[("a b".to_owned(), String::new())].into(), many] {
        let ttl = Duration::from_hours(1);
        let request = TokenRequest { name: "n".into(), ttl, labels, ..TokenRequest::default() };
        let refused = join_token::create(&fleet.store, Vec::new(), &request, &Actor::cli()).await;
        assert!(matches!(refused, Err(CreateTokenError::Labels(_))));
    }
    assert_eq!(fleet.count("select count(*) from enrollment_tokens").await, 0);

    let request = TokenRequest {
        name: "autoscaled".into(),
        ttl: Duration::from_hours(1),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        ephemeral: true,
        ..TokenRequest::default()
    };
    let endpoints = vec!["https://127.0.0.1:1".to_owned()];
    let token = join_token::create(&fleet.store, endpoints, &request, &Actor::cli()).await.unwrap();
    let server = fleet.serve(&fleet.config()).await;
    Identity::enroll_with(&fleet, &server, &token).await;
    let enrolled = "select count(*) from hosts where ephemeral and labels = '{\"env\": \"prod\"}'";
    assert_eq!(fleet.count(enrolled).await, 1);
}
