//! What a token says of its hosts, and the end of those that come and go.

use std::time::Duration;

use collector_api::auth::join_token::{self, CreateTokenError, TokenRequest};
use collector_api::maintenance;
use collector_api::store::audit::Actor;
use uuid::Uuid;

use crate::certificates::Identity;
use crate::fleet::{Fleet, Server};

async fn enroll(fleet: &Fleet, server: &Server, ephemeral: bool) -> Uuid {
    let request = TokenRequest {
        name: "autoscaled".into(),
        ttl: Duration::from_hours(1),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        ephemeral,
        ..TokenRequest::default()
    };
    let endpoints = vec!["https://127.0.0.1:1".to_owned()];
    let token = join_token::create(&fleet.store, endpoints, &request, &Actor::cli()).await.unwrap();
    Identity::enroll_with(fleet, server, &token).await.given.host_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_come_and_go_are_ended_and_wake_nobody() {
    let fleet = Fleet::create("ephemeral").await;
    let server = fleet.serve(&fleet.config()).await;
    let mut hosts = Vec::new();
    for ephemeral in [true, true, true, true, false] {
        hosts.push(enroll(&fleet, &server, ephemeral).await);
    }
    let labelled = "select count(*) from hosts where labels = '{\"env\": \"prod\"}'";
    assert_eq!(fleet.count(labelled).await, 5);
    // One said goodbye, one vanished, one did both of late, one never reported; the last one is no such host.
    fleet
        .execute(
            "with numbered as (select host_id, row_number() over (order by enrolled_at, host_id) as n from hosts)
            update heartbeats b set last_seen_at = now() - interval '2 hours', contacted_at = now() - interval '2 hours',
                deadline_at = case n when 3 then now() - interval '59 minutes' else now() - interval '61 minutes' end,
                goodbye = case n when 1 then 'shutdown' end,
                goodbye_at = case n when 1 then now() - interval '11 minutes' end
            from numbered where numbered.host_id = b.host_id and n <> 4",
        )
        .await;
    assert_eq!(fleet.store.sweep_silence().await.unwrap().opened, 1, "of the one that stays");

    // The server would do it within a minute; its end frees the lease.
    server.lifecycle.draining.cancel();
    server.lifecycle.run(Duration::ZERO).await.unwrap();
    let mut worker = fleet.store.maintenance_connection(Uuid::new_v4()).await.unwrap().unwrap();
    maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
    let ended = "select count(*) from hosts where lifecycle = 'decommissioned' and ephemeral";
    assert_eq!(fleet.count(ended).await, 2);
    let audited = "select count(*) from audit_events e join hosts h on h.host_id::text = e.object_id
        where e.action = 'host.decommission' and e.actor = 'server' and h.lifecycle_reason in ('ephemeral: shutdown', 'ephemeral: silent')";
    assert_eq!(fleet.count(audited).await, 2);
    fleet.execute("update hosts set enrolled_at = now() - interval '61 minutes'").await;
    fleet.execute("update heartbeats set deadline_at = now() - interval '61 minutes' where deadline_at is not null").await;
    maintenance::work(&mut worker, Duration::ZERO).await.unwrap();
    assert_eq!(fleet.count(ended).await, 4);
    assert_eq!(fleet.count("select count(*) from hosts where lifecycle = 'active'").await, 1);
    assert_eq!(hosts.len(), 5);
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
}
