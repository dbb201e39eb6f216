//! What hosts say in their reports, and what they are told in the answers.

use axum::body::Body;
use collector_api::rollouts;
use collector_api::store::audit::Actor;
use fleet_sim::database::{Engine, TestDatabase};
use shared_model::{RELEASE_HEADER, UpdateState, UpdateStatus};

use crate::kit::{Host, Replica, changed, count, frames, reports_request};

fn status(installed_seq: u64, state: UpdateState) -> UpdateStatus {
    UpdateStatus { installed_seq: Some(installed_seq), state, target_seq: None, reason: None }
}

/// Sends a report that says so; what it is told.
async fn say(
    replica: &Replica,
    host: &Host,
    sequence: u64,
    update: Option<UpdateStatus>,
) -> Option<String> {
    let report = changed(host.report(sequence), |report| report.agent.update = update);
    let request = reports_request(Body::from(frames(&[report])), "zstd");
    let (status, headers, answer) = replica.ask(host.host_id, request).await;
    assert_eq!(status, 200, "{answer}");
    headers.get(RELEASE_HEADER).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_host_is_told_in_the_answer_to_its_report_until_it_is_there() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let replica = Replica::start(&database).await;
        let store = &replica.store;
        let host = Host::enroll(&database, 1).await;
        let known = async || store.host_release(host.host_id).await.unwrap();

        assert_eq!(say(&replica, &host, 1, None).await, None);
        assert!(known().await.is_none(), "an agent that cannot update itself leaves no row");
        assert_eq!(say(&replica, &host, 2, Some(status(6, UpdateState::Idle))).await, None);
        let release = known().await.unwrap();
        assert_eq!((release.installed_seq, release.state.as_deref()), (Some(6), Some("idle")));
        let written = "select xmin::text::bigint from host_releases";
        let before = count(&database, written).await;
        say(&replica, &host, 3, Some(status(6, UpdateState::Idle))).await;
        assert_eq!(count(&database, written).await, before, "nothing new, nothing written");

        store.pin_release(host.host_id, Some(7), &Actor::cli()).await.unwrap();
        assert_eq!(say(&replica, &host, 4, Some(status(6, UpdateState::Idle))).await, None);
        replica.desired_releases.refresh(store).await.unwrap();
        let told = say(&replica, &host, 5, Some(status(6, UpdateState::Downloading))).await;
        assert_eq!(told.as_deref(), Some("7"));
        let failed = UpdateStatus {
            target_seq: Some(7),
            reason: Some("no room on the disk".into()),
            ..status(6, UpdateState::Failed)
        };
        say(&replica, &host, 6, Some(failed)).await;
        let release = known().await.unwrap();
        assert_eq!(release.reason.as_deref(), Some("no room on the disk"));
        assert_eq!((release.target_seq, release.desired_seq), (Some(7), Some(7)));

        say(&replica, &host, 7, Some(status(7, UpdateState::Confirmed))).await;
        replica.desired_releases.refresh(store).await.unwrap();
        assert_eq!(say(&replica, &host, 8, Some(status(7, UpdateState::Confirmed))).await, None);
        assert_eq!(known().await.unwrap().reason, None);

        // Switched off: nothing is to be said. Then an agent of a package takes its place.
        store.pin_release(host.host_id, Some(8), &Actor::cli()).await.unwrap();
        say(&replica, &host, 9, Some(status(7, UpdateState::Off))).await;
        replica.desired_releases.refresh(store).await.unwrap();
        assert_eq!(say(&replica, &host, 10, None).await, None);
        let release = known().await.unwrap();
        assert_eq!((release.state, release.installed_seq), (None, None));
        assert_eq!(release.pinned_seq, Some(8));
        replica.finish().await;
    }
}

#[tokio::test]
async fn what_an_old_report_says_of_the_release_is_not_believed() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let replica = Replica::start(&database).await;
    let host = Host::enroll(&database, 1).await;
    say(&replica, &host, 1, Some(status(7, UpdateState::Confirmed))).await;
    let old = changed(host.report(2), |report| {
        report.sampled_at -= time::Duration::HOUR;
        report.agent.update = Some(status(6, UpdateState::Idle));
    });
    assert_eq!(replica.post_records(host.host_id, &[old]).await.0, 200);
    let release = replica.store.host_release(host.host_id).await.unwrap().unwrap();
    assert_eq!(release.installed_seq, Some(7));
    assert_eq!(rollouts::round(&replica.store, 0.0).await.unwrap(), 0, "no rollout");
    replica.finish().await;
}
