//! `POST /v1/enroll` against real servers and a real database.

use std::collections::BTreeMap;

use fleet_sim::proxy::{Faults, FaultyProxy};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared_model::{EnrollResponse, JoinToken};

use crate::fleet::{Fleet, Server, new_host};

fn code(body: &Value) -> &str {
    body["code"].as_str().unwrap_or("-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_hosts_over_three_servers_share_fifty_uses() {
    let fleet = Fleet::create("fifty-uses").await;
    let config = fleet.config();
    let servers =
        [fleet.serve(&config).await, fleet.serve(&config).await, fleet.serve(&config).await];
    let token = fleet.token(Some(50)).await;
    let client = fleet.client(None);
    let attempts = (0..200).map(|n| {
        let (server, client, authorization) = (&servers[n % 3], &client, token.authorization());
        async move {
            let (_, body) = new_host(&format!("host-{n}"));
            let (status, answer) = server.enroll(client, &authorization, &body).await;
            (status.as_u16(), code(&answer).to_owned())
        }
    });
    let mut outcomes = BTreeMap::new();
    for outcome in join_all(attempts).await {
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    let expected =
        BTreeMap::from([((201, "-".to_owned()), 50), ((403, "token_exhausted".to_owned()), 150)]);
    assert_eq!(outcomes, expected);
    assert_eq!(fleet.count("select count(*) from hosts").await, 50);
    assert_eq!(fleet.count("select count(*) from host_certificates").await, 50);
    assert_eq!(fleet.count("select count(*) from heartbeats").await, 50);
    assert_eq!(fleet.count("select uses::bigint from enrollment_tokens").await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_again_is_the_same_host() {
    let fleet = Fleet::create("same-key").await;
    let server = fleet.serve(&fleet.config()).await;
    let (token, other) = (fleet.token(Some(1)).await, fleet.token(None).await);
    let client = fleet.client(None);
    let (_, body) = new_host("h");
    let at_once =
        (0..8).map(|_| async { server.enroll(&client, &token.authorization(), &body).await });
    let answers = join_all(at_once).await;
    let first: EnrollResponse = serde_json::from_value(answers[0].1.clone()).unwrap();
    let created = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
    assert_eq!(created, 1, "{answers:?}");
    for (status, answer) in &answers {
        assert!(status.is_success(), "{status} {answer}");
        let answer: EnrollResponse = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!(answer.host_id, first.host_id);
        assert_eq!(answer.certificate_chain_pem, first.certificate_chain_pem);
        assert!(answer.renew_after < answer.not_after && answer.renew_after > answer.server_time);
    }
    assert_eq!(fleet.count("select count(*) from hosts").await, 1);
    assert_eq!(fleet.count("select sum(uses) from enrollment_tokens").await, 1);

    // Also when the token is over: the answer may have been lost on its way.
    fleet.execute("update enrollment_tokens set revoked_at = now()").await;
    let (status, answer) = server.enroll(&client, &token.authorization(), &body).await;
    assert_eq!((status, &answer["host_id"]), (StatusCode::OK, &json!(first.host_id)));

    let (status, answer) = server.enroll(&client, &other.authorization(), &body).await;
    assert_eq!((status, code(&answer)), (StatusCode::CONFLICT, "key_already_registered"));
    fleet.execute("update hosts set lifecycle = 'decommissioned'").await;
    let (status, answer) = server.enroll(&client, &token.authorization(), &body).await;
    assert_eq!((status, code(&answer)), (StatusCode::GONE, "host_decommissioned"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_its_code() {
    let fleet = Fleet::create("refusals").await;
    let case = (&fleet, fleet.serve(&fleet.config()).await);
    let token = fleet.token(None).await;
    let (_, body) = new_host("h");

    let wrong_secret = JoinToken { secret: "wrong".into(), ..token.clone() };
    let wrong_id = JoinToken { id: uuid::Uuid::nil(), ..token.clone() };
    let mut uniform = Vec::new();
    for authorization in
        [&wrong_secret.authorization(), &wrong_id.authorization(), "Bearer x", "Basic eDp5", ""]
    {
        let mut answer = expect(&case, authorization, &body, 401, "token_invalid").await;
        answer["request_id"] = Value::Null;
        uniform.push(answer);
    }
    uniform.dedup();
    assert_eq!(uniform.len(), 1, "{uniform:?}");

    let good = token.authorization();
    let changed = |pointer: &str, value: Value| {
        let mut changed = body.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    let name = |text: &str| changed("/facts/host_name", json!(text));
    let csr = changed("/csr_pem", json!("x"));
    expect(&case, &good, &csr, 422, "bad_csr").await;
    let version = changed("/version", json!(999));
    expect(&case, &good, &version, 426, "unsupported_version").await;
    for bad in ["", "a\0b", &"x".repeat(1025)] {
        let answer = expect(&case, &good, &name(bad), 422, "invalid_field").await;
        assert_eq!(answer["errors"][0]["field"], "facts.host_name");
    }
    let large = name(&"x".repeat(40 << 10));
    expect(&case, &good, &large, 413, "body_too_large").await;
    expect(&case, &good, &json!({}), 422, "invalid_field").await;

    // A wrong secret learns nothing of a token's end; the right one does.
    fleet.execute("update enrollment_tokens set revoked_at = now()").await;
    expect(&case, &good, &body, 403, "token_revoked").await;
    let wrong = wrong_secret.authorization();
    expect(&case, &wrong, &body, 401, "token_invalid").await;
    fleet
        .execute(
            "update enrollment_tokens set revoked_at = null, created_at = now() - interval '2 d',
             expires_at = now() - interval '1 d'",
        )
        .await;
    expect(&case, &good, &body, 403, "token_expired").await;
    assert_eq!(fleet.count("select count(*) from hosts").await, 0);
}

async fn expect(
    (fleet, server): &(&Fleet, Server),
    authorization: &str,
    body: &Value,
    status: u16,
    code_expected: &str,
) -> Value {
    let (got, answer) = server.enroll(&fleet.client(None), authorization, body).await;
    assert_eq!((got.as_u16(), code(&answer)), (status, code_expected), "{answer}");
    assert!(answer["request_id"].is_string(), "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_attempts_are_told_to_wait_before_their_body_is_read() {
    let fleet = Fleet::create("rates").await;
    let mut config = fleet.config();
    config.enrollment.source_burst = 2.0;
    config.enrollment.source_per_second = 0.001;
    let server = fleet.serve(&config).await;
    let client = fleet.client(None);
    for _ in 0..2 {
        let (status, _) = server.enroll(&client, "Bearer x", &json!({})).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let request = client.post(server.agent_url("/v1/enroll")).body("not even JSON");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "60");
}

/// A network that loses every answer to an enrolment after the server committed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lost_answers_make_no_second_host() {
    use futures_util::StreamExt as _;
    const HOSTS: u64 = 1000;
    let fleet = Fleet::create("lost-answers").await;
    let mut config = fleet.config();
    // A quick machine sends more than the rates allow; they have tests of their own.
    config.enrollment.source_per_second = 1e5;
    config.enrollment.total_per_second = 1e5;
    config.enrollment.token_per_second = 1e5;
    let server = &fleet.serve(&config).await;
    let token = &fleet.token(None).await.authorization();
    let faults = Faults { drop_every: 1, ..Faults::default() };
    // The server's certificate names 127.0.0.1 alone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let proxy = FaultyProxy::start(listen, server.addresses.agent, faults).await.unwrap();
    proxy.set_harmful(true);
    let fleet_ref = &fleet;
    futures_util::stream::iter(0..HOSTS)
        .for_each_concurrent(16, |n| async move {
            let (_, body) = new_host(&format!("host-{n}"));
            let lost = fleet_ref
                .client(None)
                .post(format!("https://{listen}/v1/enroll"))
                .header("authorization", token)
                .json(&body)
                .send()
                .await;
            let lost = lost.expect_err("the answer must be lost");
            // The agent asks again with the same key.
            let (status, _) = server.enroll(&fleet_ref.client(None), token, &body).await;
            assert_eq!(status, StatusCode::OK, "committed before it was lost: {lost:?}");
        })
        .await;
    assert_eq!(proxy.counts().dropped_responses, HOSTS);
    for sql in [
        "select count(*) from hosts",
        "select count(*) from host_certificates",
        "select uses::bigint from enrollment_tokens",
    ] {
        assert_eq!(fleet.count(sql).await, i64::try_from(HOSTS).unwrap(), "{sql}");
    }
}
