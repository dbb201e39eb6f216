//! What does not fit is turned away before its body is read.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use collector_api::ingest::IngestSettings;
use fleet_sim::database::{Engine, TestDatabase};
use futures_util::stream;
use tokio::sync::oneshot;

use crate::kit::{Host, Replica, frames, reports_request};

#[tokio::test]
async fn one_request_per_host_at_a_time() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 1).await);
    let other = Host::enroll(&database, 2).await;
    let (reading, read) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let body = frames(&host.reports(1..=1));
    let slow = Body::from_stream(stream::once(async move {
        reading.send(()).unwrap();
        released.await.unwrap();
        Ok::<_, Infallible>(Bytes::from(body))
    }));
    let first = replica.send(host.host_id, reports_request(slow, "zstd"));
    let second = async {
        read.await.unwrap();
        let refused = replica.post_records(host.host_id, &host.reports(1..=1)).await;
        let others = replica.post_records(other.host_id, &other.reports(1..=1)).await;
        release.send(()).unwrap();
        (refused, others)
    };
    let ((status, answer), ((refused, problem), (others, _))) = tokio::join!(first, second);
    assert_eq!((refused.as_u16(), &problem["code"]), (429, &"too_many_requests".into()));
    assert_eq!(others, 200);
    assert_eq!(status, 200, "{answer}");
    // The place is free again.
    let (status, answer) = replica.post_records(host.host_id, &host.reports(2..=2)).await;
    assert_eq!(status, 200, "{answer}");
    replica.finish().await;
}

#[tokio::test]
async fn a_request_beyond_the_memory_budget_is_not_even_read() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let host = Host::enroll(&database, 1).await;
    let settings = IngestSettings { memory_bytes: 4096, ..IngestSettings::default() };
    let replica = Replica::start_with(&database.url, settings).await;
    let touched = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&touched);
    let body = Body::from_stream(stream::once(async move {
        seen.store(true, Ordering::Relaxed);
        Ok::<_, Infallible>(Bytes::new())
    }));
    let (status, problem) = replica.send(host.host_id, reports_request(body, "zstd")).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &"overloaded".into()));
    assert!(!touched.load(Ordering::Relaxed));
    assert_eq!(replica.cursor(host.host_id, host.stream_id).await, 0);
    replica.finish().await;
}
