//! Whatever arrives is answered with a problem that names its code, and the next good report is stored.

use axum::body::Body;
use axum::http::{Request, header};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::simulated::encode_frame;
use shared_model::limits::{MAX_BODY_BYTES, MAX_INFLATED_BYTES};
use uuid::Uuid;

use crate::kit::{Host, Replica, changed, count, frames, reports_request};

fn compressed(text: impl AsRef<[u8]>) -> Vec<u8> {
    zstd::bulk::compress(text.as_ref(), 3).unwrap()
}

/// Requests that store nothing and leave the cursor: (name, request, status, code).
fn refused(host: &Host) -> Vec<(&'static str, Request<Body>, u16, &'static str)> {
    let zstd = |body: Vec<u8>| reports_request(Body::from(body), "zstd");
    let text = String::from_utf8(host.report(1).encode()).unwrap();
    let good = frames(&host.reports(1..=1));
    let other = changed(host.report(1), |report| report.host_id = Uuid::new_v4());
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    let newest = text.replacen("\"version\":1", "\"version\":900,\"host\":7,\"was\":1", 1);
    let nested = text.replacen(
        "\"facts\":",
        &format!("\"x\":{}1{},\"facts\":", "[".repeat(5000), "]".repeat(5000)),
        1,
    );
    let with_type = |content_type: &str| {
        let mut request = zstd(good.clone());
        request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        request
    };
    let mut many = Vec::new();
    for sequence in 1..=513 {
        many.extend(host.report(sequence).encode());
    }
    vec![
        ("other content type", with_type("application/json"), 415, "unsupported_media_type"),
        (
            "other encoding",
            reports_request(Body::from(good.clone()), "gzip"),
            415,
            "unsupported_media_type",
        ),
        ("empty", zstd(Vec::new()), 400, "malformed"),
        ("not zstd", zstd(b"hello\n".to_vec()), 400, "malformed"),
        ("not JSON", zstd(compressed("hello\n")), 400, "malformed"),
        ("JSON, no record", zstd(compressed("{\"hello\":1}\n")), 400, "malformed"),
        ("cut frame", zstd(good[..good.len() - 7].to_vec()), 400, "truncated"),
        ("cut line", zstd(compressed(&text[..text.len() - 1])), 400, "truncated"),
        ("not UTF-8", zstd(compressed(b"{\"report\":\"\xff\"}\n")), 400, "invalid_utf8"),
        ("nested", zstd(compressed(nested)), 400, "too_deep"),
        ("oversized", zstd(vec![7; MAX_BODY_BYTES + 1]), 413, "body_too_large"),
        ("bomb", zstd(compressed(vec![b' '; MAX_INFLATED_BYTES + 1])), 413, "inflated_too_large"),
        ("huge bomb", zstd(compressed(vec![0; 1 << 30])), 413, "inflated_too_large"),
        ("too many", zstd(compressed(many)), 413, "too_many_records"),
        ("another host", zstd(frames(&[other])), 403, "identity_mismatch"),
        ("newer protocol", zstd(compressed(newer)), 426, "unsupported_version"),
        ("unreadable newer protocol", zstd(compressed(newest)), 426, "unsupported_version"),
        ("hole inside", zstd(frames(&[host.report(1), host.report(3)])), 400, "not_consecutive"),
        (
            "sequence 0",
            zstd(frames(&[changed(host.report(1), |report| report.sequence = 0)])),
            400,
            "malformed",
        ),
        (
            "sequence beyond bigint",
            zstd(frames(&[changed(host.report(1), |report| report.sequence = u64::MAX)])),
            400,
            "malformed",
        ),
    ]
}

/// Single reports that are recorded and passed over: (name, line, code).
fn rejected(host: &Host, sequence: u64) -> Vec<(&'static str, String, &'static str)> {
    let text = |record: shared_model::Record| String::from_utf8(record.encode()).unwrap();
    let replaced = |sequence, from: &str, to: &str| {
        let line = text(host.report(sequence));
        assert!(line.contains(from), "{from} is not in {line}");
        line.replacen(from, to, 1)
    };
    let n = sequence;
    vec![
        ("negative", replaced(n, "\"process_count\":", "\"process_count\":-"), "invalid_report"),
        ("huge", replaced(n + 1, "\"cpu_count\":4", "\"cpu_count\":1e300"), "invalid_report"),
        (
            "beyond u64",
            replaced(n + 2, "\"cpu_count\":4", "\"cpu_count\":99999999999999999999999"),
            "invalid_report",
        ),
        ("NUL", replaced(n + 3, "\"device\":\"", "\"device\":\"\\u0000"), "invalid_report"),
        (
            "future",
            text(changed(host.report(n + 4), |report| {
                report.sampled_at += time::Duration::days(400);
            })),
            "timestamp_in_future",
        ),
        (
            "ancient",
            text(changed(host.report(n + 5), |report| {
                report.sampled_at = time::OffsetDateTime::UNIX_EPOCH;
            })),
            "timestamp_too_old",
        ),
        (
            "year -9999",
            text(changed(host.report(n + 6), |report| {
                report.sampled_at = time::macros::datetime!(0000-01-01 0:00 UTC);
            })),
            "timestamp_too_old",
        ),
        (
            "wrong md5",
            text(changed(host.report(1), |report| {
                report.sequence = n + 7;
                report.process_definitions[0].command_line = "other".into();
            })),
            "invalid_report",
        ),
    ]
}

#[tokio::test]
async fn bad_input_gets_its_code_and_good_reports_go_on() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let (replica, host) = (Replica::start(&database).await, Host::enroll(&database, 3).await);
        for (name, request, status, code) in refused(&host) {
            let (got, problem) = replica.send(host.host_id, request).await;
            assert_eq!(
                (got.as_u16(), problem["code"].as_str().unwrap()),
                (status, code),
                "{name}: {problem}"
            );
            assert_eq!(problem["type"], format!("urn:procfleet:problem:{code}"));
        }
        assert_eq!(replica.cursor(host.host_id, host.stream_id).await, 0);
        assert_eq!(count(&database, "select count(*) from ingest_rejects").await, 0);

        let mut sequence = 1;
        for index in 0..rejected(&host, 1).len() {
            let (status, answer) =
                replica.post_records(host.host_id, &host.reports(sequence..=sequence)).await;
            assert_eq!(status, 200, "{answer}");
            // The list is made for consecutive sequences; shift it so that this one is next.
            let (name, line, code) =
                rejected(&host, sequence + 1 - index as u64).swap_remove(index);
            let (status, problem) = replica.post(host.host_id, compressed(line)).await;
            assert_eq!(
                (status.as_u16(), problem["code"].as_str().unwrap()),
                (422, code),
                "{name}: {problem}"
            );
            assert_eq!(problem["acknowledged_sequence"], sequence + 1, "{name}");
            sequence += 2;
        }
        let (status, answer) =
            replica.post(host.host_id, encode_frame(&host.report(sequence)).unwrap()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(count(&database, "select count(*) from ingest_rejects").await, 8);
        assert_eq!(count(&database, "select count(*) from host_samples").await, 9);
        replica.finish().await;
    }
}
