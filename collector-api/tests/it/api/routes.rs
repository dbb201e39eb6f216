//! One row for every route that takes an API key: who may call it, and what it leaves in the audit.
//!
//! A new route has no row, and the tests say so. Add one to [`ROUTES`]: method, path, the scope,
//! and for what changes something the body and the action that the audit must show, or why there is
//! none. Where the change needs an object, [`prepare`] makes it and says its id.

use std::collections::BTreeSet;

use collector_api::auth::operator::{MintedApiKey, Role, Scope};
use collector_api::document;
use collector_api::store::audit::Actor;
use fleet_sim::database::Engine;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::kit::{self, Api, sql};
use crate::openapi::operations;

/// What a route changes.
enum Effect {
    /// Nothing.
    Reads,
    /// Something: an example of the body, and the action in the audit.
    Audited(&'static str, &'static str),
    /// Something that no audit row is owed for; why. Or: it is tested where it is made; where.
    Elsewhere(#[expect(dead_code, reason = "for the reader")] &'static str),
}

use Effect::{Audited, Elsewhere, Reads};
use Role::Admin;
use Scope::{
    AlertsWrite, ApiKeysWrite, AuditRead, CertificatesWrite, ChannelsWrite, ConfigurationWrite,
    DataDelete, FleetRead, HostsWrite, ReleasesWrite, TokensWrite,
};

/// Every route, in the order of the document.
const ROUTES: &[(&str, &str, Scope, Effect)] = &[
    ("GET", "/v1/alerts", FleetRead, Reads),
    ("PUT", "/v1/alerts/{alert_id}/acknowledgement", AlertsWrite, Audited("", "alert.acknowledge")),
    ("GET", "/v1/api-keys", ApiKeysWrite, Reads),
    (
        "POST",
        "/v1/api-keys",
        ApiKeysWrite,
        Audited(r#"{"name":"n","role":"viewer"}"#, "api_key.create"),
    ),
    ("DELETE", "/v1/api-keys/{api_key_id}", ApiKeysWrite, Audited("", "api_key.revoke")),
    ("GET", "/v1/audit-events", AuditRead, Reads),
    ("GET", "/v1/authorities", FleetRead, Reads),
    (
        "POST",
        "/v1/authorities/{purpose}/rotation",
        CertificatesWrite,
        Elsewhere("it/rotation.rs: needs the key"),
    ),
    (
        "PUT",
        "/v1/authorities/{purpose}/rotation",
        CertificatesWrite,
        Elsewhere("it/rotation.rs: needs a rotation"),
    ),
    ("GET", "/v1/channels", ChannelsWrite, Reads),
    (
        "POST",
        "/v1/channels",
        ChannelsWrite,
        Elsewhere("it/alerts/channels.rs: needs the key that seals"),
    ),
    ("DELETE", "/v1/channels/{channel_id}", ChannelsWrite, Audited("", "channel.delete")),
    (
        "POST",
        "/v1/channels/{channel_id}/test",
        ChannelsWrite,
        Elsewhere("it/alerts/channels.rs: needs the key that seals"),
    ),
    ("GET", "/v1/compare", FleetRead, Reads),
    ("GET", "/v1/connections", FleetRead, Reads),
    ("GET", "/v1/enrollment-tokens", TokensWrite, Reads),
    (
        "POST",
        "/v1/enrollment-tokens",
        TokensWrite,
        Audited(r#"{"name":"n","max_uses":1}"#, "enrollment_token.create"),
    ),
    (
        "DELETE",
        "/v1/enrollment-tokens/{token_id}",
        TokensWrite,
        Audited("", "enrollment_token.revoke"),
    ),
    ("GET", "/v1/exits", FleetRead, Reads),
    ("GET", "/v1/host-configurations", FleetRead, Reads),
    ("GET", "/v1/hosts", FleetRead, Reads),
    (
        "POST",
        "/v1/hosts/bulk",
        HostsWrite,
        Audited(
            r#"{"selector":"!x","lifecycle":"quarantined","dry_run":false}"#,
            "host.quarantine",
        ),
    ),
    ("GET", "/v1/hosts/{host}", FleetRead, Reads),
    ("GET", "/v1/hosts/{host}/certificates", FleetRead, Reads),
    (
        "DELETE",
        "/v1/hosts/{host}/certificates",
        CertificatesWrite,
        Audited("", "host.revoke_certificates"),
    ),
    (
        "DELETE",
        "/v1/hosts/{host}/clone-conflict",
        HostsWrite,
        Audited("", "host.clear_clone_conflict"),
    ),
    ("GET", "/v1/hosts/{host}/configuration", FleetRead, Reads),
    (
        "PUT",
        "/v1/hosts/{host}/configuration",
        ConfigurationWrite,
        Audited(r#"{"configuration":{"interval_ms":10000}}"#, "host.configure"),
    ),
    ("DELETE", "/v1/hosts/{host}/configuration", ConfigurationWrite, Audited("", "host.configure")),
    ("GET", "/v1/hosts/{host}/instances/{instance_id}/samples", FleetRead, Reads),
    ("GET", "/v1/hosts/{host}/labels", FleetRead, Reads),
    (
        "PUT",
        "/v1/hosts/{host}/labels",
        HostsWrite,
        Audited(r#"{"labels":{"a":"b"}}"#, "host.label"),
    ),
    (
        "PUT",
        "/v1/hosts/{host}/lifecycle",
        HostsWrite,
        Audited(r#"{"lifecycle":"quarantined"}"#, "host.quarantine"),
    ),
    ("GET", "/v1/hosts/{host}/processes", FleetRead, Reads),
    ("GET", "/v1/hosts/{host}/processes/{process_id}/samples", FleetRead, Reads),
    ("GET", "/v1/hosts/{host}/purge", FleetRead, Reads),
    (
        "POST",
        "/v1/hosts/{host}/purge",
        DataDelete,
        Elsewhere("it/purges.rs: needs a decommissioned host"),
    ),
    (
        "PUT",
        "/v1/hosts/{host}/release-pin",
        ReleasesWrite,
        Audited(r#"{"seq":6}"#, "host.pin_release"),
    ),
    ("DELETE", "/v1/hosts/{host}/release-pin", ReleasesWrite, Audited("", "host.unpin_release")),
    ("GET", "/v1/hosts/{host}/samples", FleetRead, Reads),
    ("GET", "/v1/hosts/{host}/stack", FleetRead, Reads),
    ("GET", "/v1/instances", FleetRead, Reads),
    ("GET", "/v1/maintenance", FleetRead, Reads),
    ("GET", "/v1/processes", FleetRead, Reads),
    ("GET", "/v1/processes/{process_id}/runs", FleetRead, Reads),
    ("GET", "/v1/profiles", FleetRead, Reads),
    (
        "POST",
        "/v1/profiles",
        ConfigurationWrite,
        Audited(r#"{"name":"n","configuration":{"profile":{"top":3}}}"#, "profile.create"),
    ),
    ("POST", "/v1/profiles/preview", FleetRead, Elsewhere("changes nothing: it/configuration.rs")),
    ("GET", "/v1/profiles/{profile_id}", FleetRead, Reads),
    (
        "PUT",
        "/v1/profiles/{profile_id}",
        ConfigurationWrite,
        Audited(r#"{"name":"n","configuration":{}}"#, "profile.replace"),
    ),
    ("DELETE", "/v1/profiles/{profile_id}", ConfigurationWrite, Audited("", "profile.delete")),
    ("GET", "/v1/replicas", FleetRead, Reads),
    ("GET", "/v1/rollouts", FleetRead, Reads),
    ("POST", "/v1/rollouts", ReleasesWrite, Audited(r#"{"target_seq":7}"#, "rollout.create")),
    ("GET", "/v1/rollouts/{rollout_id}", FleetRead, Reads),
    ("POST", "/v1/rollouts/{rollout_id}/advance", ReleasesWrite, Audited("", "rollout.advance")),
    ("POST", "/v1/rollouts/{rollout_id}/cancel", ReleasesWrite, Audited("", "rollout.cancel")),
    ("POST", "/v1/rollouts/{rollout_id}/pause", ReleasesWrite, Audited("", "rollout.pause")),
    ("POST", "/v1/rollouts/{rollout_id}/resume", ReleasesWrite, Audited("", "rollout.resume")),
    ("GET", "/v1/rules", FleetRead, Reads),
    ("POST", "/v1/rules", AlertsWrite, Audited(RULE, "rule.create")),
    (
        "POST",
        "/v1/rules/test",
        AlertsWrite,
        Elsewhere("changes nothing: asks the past; it/alerts/rules.rs"),
    ),
    ("PUT", "/v1/rules/{rule_id}", AlertsWrite, Audited(RULE, "rule.replace")),
    ("DELETE", "/v1/rules/{rule_id}", AlertsWrite, Audited("", "rule.delete")),
    ("GET", "/v1/session", FleetRead, Reads),
    ("GET", "/v1/silences", FleetRead, Reads),
    (
        "POST",
        "/v1/silences",
        AlertsWrite,
        Elsewhere("it/alerts/silences.rs: needs an end after now"),
    ),
    ("DELETE", "/v1/silences/{silence_id}", AlertsWrite, Audited("", "silence.end")),
    ("GET", "/v1/sparklines", FleetRead, Reads),
    ("GET", "/v1/top", FleetRead, Reads),
];

/// A rule.
const RULE: &str = r#"{"name":"r","severity":"warning","metric":"host.cpu_ratio","threshold":0.9}"#;

/// Id of an object that a change needs.
const SUBJECT: &str = "00000000-0000-0000-0000-000000000009";

/// Makes a host, and what a change of it needs. Its id.
async fn prepare_host(db: &mut PgConnection, path: &str) -> String {
    let host_id = kit::host(db, 7, "subject").await;
    sql(
        db,
        "insert into host_certificates (serial, host_id, spki_sha256, chain_pem, not_before, not_after, status)
         values ('a1', '00000000-0000-0000-0000-000000000007', sha256('x'), '', now(), now() + interval '1 day', 'active')",
    )
    .await;
    sql(
        db,
        "insert into host_overrides (host_id, configuration) values ('00000000-0000-0000-0000-000000000007', '{}')",
    )
    .await;
    if path.ends_with("/release-pin") {
        let pin = "insert into host_releases (host_id, pinned_seq) values ('00000000-0000-0000-0000-000000000007', 5)";
        sql(db, pin).await;
    }
    host_id.to_string()
}

/// Makes what a change needs. The value of the path's parameter.
async fn prepare(api: &Api, path: &str) -> String {
    let mut db = api.connect().await;
    if path.starts_with("/v1/hosts/") {
        return prepare_host(&mut db, path).await;
    }
    if path.starts_with("/v1/rollouts/") {
        let state = if path.ends_with("/resume") { "paused" } else { "canary" };
        let rollout = format!(
            "insert into rollouts (rollout_id, created_by, target_seq, state) values ('{SUBJECT}', 'ada', 7, '{state}')"
        );
        sql(&mut db, &rollout).await;
        return SUBJECT.to_owned();
    }
    match path {
        "/v1/alerts/{alert_id}/acknowledgement" => {
            let alert = "insert into alerts (alert_id, fingerprint, rule, severity, began_at)
                 values ('00000000-0000-0000-0000-000000000009', 'f', 'no_reports', 'critical', now())";
            sql(&mut db, alert).await;
            SUBJECT.to_owned()
        }
        "/v1/rules/{rule_id}" => {
            let rule = "insert into rules (rule_id, name, severity, metric, threshold, recover_threshold, for_s, recover_for_s)
                 values ('00000000-0000-0000-0000-000000000009', 'old', 'info', 'host.cpu_ratio', 1, 1, 0, 0)";
            sql(&mut db, rule).await;
            SUBJECT.to_owned()
        }
        "/v1/silences/{silence_id}" => {
            let silence = "insert into silences (silence_id, comment, created_by, starts_at, ends_at)
                 values ('00000000-0000-0000-0000-000000000009', 'c', 'a', now() - interval '1 s', now() + interval '1 h')";
            sql(&mut db, silence).await;
            SUBJECT.to_owned()
        }
        "/v1/profiles/{profile_id}" => {
            let profile = "insert into profiles (profile_id, name, priority, configuration)
                 values ('00000000-0000-0000-0000-000000000009', 'p', 0, '{}')";
            sql(&mut db, profile).await;
            SUBJECT.to_owned()
        }
        "/v1/channels/{channel_id}" => {
            let channel = "insert into channels (channel_id, name, kind, language, sealed, per_minute, budget)
                 values ('00000000-0000-0000-0000-000000000009', 'c', 'wecom', 'en', '', 20, 20)";
            sql(&mut db, channel).await;
            SUBJECT.to_owned()
        }
        "/v1/api-keys/{api_key_id}" => {
            let body = json!({ "name": "subject", "role": "viewer" });
            let (status, made) = api.send_as(Admin, "POST", "/v1/api-keys", Some(body)).await;
            assert_eq!(status, 201, "{made}");
            made["api_key_id"].as_str().unwrap().to_owned()
        }
        "/v1/enrollment-tokens/{token_id}" => "00000000-0000-0000-0000-000000000001".to_owned(),
        "/v1/enrollment-tokens" => {
            sql(
                &mut db,
                "insert into certificate_authorities (authority_id, purpose, certificate_pem, spki_sha256, sealed_private_key, sealing_key_id, not_after)
                 values (gen_random_uuid(), 'server', '', sha256('ca'), '', '', now() + interval '1 day')",
            )
            .await;
            String::new()
        }
        _ => String::new(),
    }
}

fn filled(path: &str, id: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_has_a_row() {
    let document = serde_json::to_value(document::document()).unwrap();
    let mut documented = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let Some(scopes) = operation["security"][0]["api_key"].as_array() else { continue };
        let needed: Scope = scopes[0].as_str().unwrap().parse().unwrap();
        let row = ROUTES.iter().find(|(m, p, ..)| (*m, *p) == (&*method, &*path));
        let Some((.., scope, effect)) = row else {
            panic!(
                "{method} {path} has no row in ROUTES of collector-api/tests/it/api/routes.rs: \
                 say who may call it, and which audit action it leaves"
            );
        };
        assert_eq!(*scope, needed, "{method} {path}: the document says otherwise than the table");
        let reads = matches!(effect, Reads);
        assert_eq!(reads, method == "GET", "{method} {path}: what changes something leaves a row");
        documented.insert((method, path));
    }
    for (method, path, ..) in ROUTES {
        let known = documented.contains(&((*method).to_owned(), (*path).to_owned()));
        assert!(known, "{method} {path} has a row, but is no route");
    }
}

async fn events(api: &Api) -> Vec<Value> {
    let (status, page) = api.send_as(Admin, "GET", "/v1/audit-events?limit=1000", None).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

/// Every route is asked with a key of every scope alone: all but one are refused before anything else is
/// looked at. (The same with every role: `api/access.rs`.)
#[tokio::test]
async fn no_key_can_do_more_than_its_scopes() {
    let api = Api::start(Engine::PostgreSql).await;
    let mut keys = Vec::new();
    for (n, scope) in (100..).zip(Scope::ALL) {
        let name = scope.to_string();
        let mut minted = MintedApiKey::from_random([n; 48], name, Admin, None);
        minted.new.rights.scopes = Some(vec![scope]);
        api.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        keys.push((minted.to_paste(), scope));
    }
    for (method, path, needed, _) in ROUTES {
        // Of nobody: what may, finds nothing; what may not, is not told so.
        let target = filled(path, "00000000-0000-0000-0000-0000000000ff");
        for (key, scope) in &keys {
            let bearer = format!("Bearer {key}");
            let (status, answer) = api.send(method, &target, Some(&bearer), None).await;
            let refused = status == 403 && answer["code"] == "forbidden";
            assert_eq!(refused, scope != needed, "{method} {path} with {scope}: {status} {answer}");
        }
    }
}

#[tokio::test]
async fn a_key_is_made_for_what_it_is_for() {
    let api = Api::start(Engine::PostgreSql).await;
    for (role, scopes, wrong) in [
        ("viewer", json!(["hosts:write"]), "the role viewer does not have the scope hosts:write"),
        ("admin", json!([]), "at least one scope"),
        ("admin", json!(["hosts:all"]), "unknown variant"),
    ] {
        let body = json!({ "name": "n", "role": role, "scopes": scopes });
        let (status, answer) = api.send_as(Admin, "POST", "/v1/api-keys", Some(body)).await;
        assert!(status.is_client_error() && answer.to_string().contains(wrong), "{answer}");
    }
    let body = json!({ "name": "n", "role": "operator", "scopes": ["alerts:write", "fleet:read"] });
    let (status, made) = api.send_as(Admin, "POST", "/v1/api-keys", Some(body)).await;
    assert_eq!((status.as_u16(), &made["scopes"]), (201, &json!(["alerts:write", "fleet:read"])));
    let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
    let (_, session) = api.send("GET", "/v1/session", Some(&bearer), None).await;
    assert_eq!(session["scopes"], json!(["fleet:read", "alerts:write"]));
    let (_, listed) = api.send_as(Admin, "GET", "/v1/api-keys", None).await;
    assert_eq!(
        listed["items"].as_array().unwrap().iter().filter(|k| !k["scopes"].is_null()).count(),
        1
    );
}

/// Each change once: its row says who, what and which; a change that is refused leaves none.
#[tokio::test]
async fn every_change_leaves_its_row() {
    for (method, path, scope, effect) in ROUTES {
        let Audited(body, action) = effect else { continue };
        let api = Api::start(Engine::PostgreSql).await;
        let id = prepare(&api, path).await;
        let before = events(&api).await.len();
        let body = (!body.is_empty()).then(|| serde_json::from_str(body).unwrap());
        let target = filled(path, &id);
        for role in [Role::Viewer, Role::Operator].into_iter().filter(|r| *r < scope.least_role()) {
            let (status, _) = api.send_as(role, method, &target, body.clone()).await;
            assert_eq!(status, 403, "{method} {path} as {role}");
        }
        assert_eq!(events(&api).await.len(), before, "{method} {path}: refused, yet audited");
        let (status, answer) = api.send_as(Admin, method, &target, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        let after = events(&api).await;
        assert_eq!(after.len(), before + 1, "{method} {path} must leave one audit row: {after:?}");
        assert_eq!(after[0]["action"], *action, "{method} {path}");
        assert_eq!(after[0]["actor_name"], "admin-key");
        assert!(after[0]["actor"].as_str().unwrap().starts_with("api_key:"));
        if !id.is_empty() {
            assert_eq!(after[0]["object_id"], *id, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_sent_twice_with_one_key_is_done_once() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let bearer = format!("Bearer {}", api.key(Admin));
        let headers = [("authorization", &*bearer), ("idempotency-key", "one")];
        let body = json!({ "name": "ci", "role": "viewer" });
        let path = "/v1/api-keys";
        let (status, first_headers, first) =
            api.send_with("POST", path, &headers, Some(body.clone())).await;
        assert_eq!(status, 201);
        assert!(!first_headers.contains_key("idempotency-replayed"));
        let (status, replayed, again) =
            api.send_with("POST", path, &headers, Some(body.clone())).await;
        assert_eq!((status.as_u16(), &again), (201, &first), "the same answer, secret and all");
        assert_eq!(replayed["idempotency-replayed"], "true");
        let made = events(&api).await.iter().filter(|e| e["action"] == "api_key.create").count();
        assert_eq!(made, 4, "three of the kit and one");

        let other = json!({ "name": "other", "role": "viewer" });
        let (status, _, problem) = api.send_with("POST", path, &headers, Some(other)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("idempotency_key_reused")));

        // Nothing of the secret is stored.
        let secret = first["key"].as_str().unwrap().as_bytes();
        let mut db = api.connect().await;
        let (status, sealed): (i16, Vec<u8>) =
            sqlx::query_as("select status, sealed_answer from idempotency_keys")
                .fetch_one(&mut db)
                .await
                .unwrap();
        assert_eq!(status, 201);
        assert!(!sealed.windows(16).any(|window| window == &secret[40..56]));

        // What failed may be repeated; what has no answer yet is not begun again.
        let headers = [("authorization", &*bearer), ("idempotency-key", "two")];
        let wrong = json!({ "name": "", "role": "viewer" });
        for _ in 0..2 {
            let (status, ..) = api.send_with("POST", path, &headers, Some(wrong.clone())).await;
            assert_eq!(status, 422);
        }
        let (status, ..) = api.send_with("POST", path, &headers, Some(body.clone())).await;
        assert_eq!(status, 201);
        sql(&mut db, "update idempotency_keys set status = null, sealed_answer = null").await;
        let (status, _, problem) = api.send_with("POST", path, &headers, Some(body.clone())).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("idempotency_in_progress")));
        // A day later the key is forgotten.
        sql(&mut db, "update idempotency_keys set begun_at = now() - interval '25 h'").await;
        let (status, ..) = api.send_with("POST", path, &headers, Some(body)).await;
        assert_eq!(status, 201);
    }
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let api = Api::start(Engine::PostgreSql).await;
    let bearer = format!("Bearer {}", api.key(Role::Viewer));
    let headers = [("authorization", &*bearer)];
    // Refused for its role, and counted: more than the burst and what the bucket gains meanwhile.
    let mut refused = None;
    for _ in 0..20_000 {
        let (status, headers, problem) =
            api.send_with("POST", "/v1/api-keys", &headers, None).await;
        if status == 429 {
            refused = Some((headers, problem));
            break;
        }
        assert_eq!(status, 403);
    }
    let (headers, problem) = refused.expect("no limit in 20,000 requests");
    assert_eq!(problem["code"], "too_many_requests");
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let (status, _) = api.send_as(Admin, "GET", "/v1/hosts", None).await;
    assert_eq!(status, 200, "another key is not meant");
}
