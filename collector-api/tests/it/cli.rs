//! The commands that ask a running server, as a process of their own, and what they leave in the database.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use collector_api::auth::operator::{MintedApiKey, Role};
use collector_api::store::audit::Actor;
use fleet_sim::child::Directory;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use crate::fleet::{Fleet, Server};

/// Hosts that are only rows.
const HOSTS: &str = r"
    with token as (
        insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
        values ('00000000-0000-0000-0000-000000000001', 't', sha256('x'), now() + interval '1 day')
        returning token_id
    )
    insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, lifecycle, labels)
    select md5(n::text)::uuid, 'host-' || to_char(n, 'FM0000'), '6.1', 'x86_64', '0.1', token_id,
        case when n % 2 = 0 then 'pending' else 'active' end,
        jsonb_build_object('env', (array['prod', 'test'])[1 + n % 2])
    from token, generate_series(1, 2500) n";

/// An operator's terminal.
struct Terminal {
    directory: Directory,
    url: String,
}

impl Terminal {
    async fn open(name: &str, fleet: &Fleet, server: &Server, role: Role) -> Self {
        let directory = Directory::create(name).unwrap();
        let minted = MintedApiKey::from_random([role as u8 + 1; 48], "ada".into(), role, None);
        fleet.store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
        let terminal = Self { directory, url: format!("http://{}", server.addresses.operator) };
        terminal.write("key", &minted.to_paste());
        terminal
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_procfleet-server"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PROCFLEET_URL", &self.url)
            .env("PROCFLEET_API_KEY_FILE", "key")
            .output()
            .await
            .unwrap()
    }

    /// What it printed; it must have succeeded.
    async fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[arguments, &["--output", "json"]].concat()).await)
            .unwrap()
    }

    /// Exit code and the last line of stderr.
    async fn bad(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said.lines().last().unwrap_or_default().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_listed_in_full_and_changed_by_name_and_by_selector() {
    let fleet = Fleet::create("cli_hosts").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let ada = Terminal::open("cli_hosts_ada", &fleet, &server, Role::Admin).await;

    let all = ada.json(&["hosts", "list", "--limit", "5000"]).await;
    let names: Vec<&str> =
        all["items"].as_array().unwrap().iter().map(|h| h["host_name"].as_str().unwrap()).collect();
    let expected: Vec<String> = (1..=2500).map(|n| format!("host-{n:04}")).collect();
    assert_eq!(names, expected, "three pages, every host once and in order");
    assert_eq!(all["next"], Value::Null);
    let cut = ada.json(&["hosts", "list", "--limit", "1200"]).await;
    assert_eq!(cut["items"].as_array().unwrap().len(), 1200);
    let after = cut["next"].as_str().unwrap();
    let rest = ada.json(&["hosts", "list", "--limit", "5000", "--after", after]).await;
    assert_eq!(rest["items"][0]["host_name"], "host-1201");
    assert_eq!(rest["items"].as_array().unwrap().len(), 1300);

    let table = ada.good(&["hosts", "list", "--search", "host-0007"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("HOST       LIFECYCLE  LIVENESS"), "{table}");
    assert!(lines[1].starts_with("host-0007  active     never_reported  -"), "{table}");
    assert!(lines[1].ends_with("env=test"), "{table}");

    let pending = "select count(*) from hosts where lifecycle = 'pending'";
    ada.good(&["hosts", "approve", "host-0002", "host-0004", "--reason", "known"]).await;
    assert_eq!(fleet.count(pending).await, 1248);
    let reasons =
        "select count(*) from audit_events where action = 'host.approve' and actor_name = 'ada'
        and detail->>'reason' = 'known'";
    assert_eq!(fleet.count(reasons).await, 2);
    let some = ada.run(&["hosts", "quarantine", "host-0001", "nobody"]).await;
    assert_eq!(some.status.code(), Some(3));
    let table = String::from_utf8(some.stdout).unwrap();
    assert!(
        table.contains("host-0001") && table.contains("There is no host \"nobody\""),
        "{table}"
    );
    assert_eq!(fleet.count("select count(*) from hosts where lifecycle = 'quarantined'").await, 1);

    let looked = ada.json(&["hosts", "decommission", "--selector", "env=prod"]).await;
    assert_eq!((&looked["dry_run"], &looked["changed"]), (&json!(true), &json!(1250)));
    let gone = "select count(*) from hosts where lifecycle = 'decommissioned'";
    assert_eq!(fleet.count(gone).await, 0, "a look changes nothing");
    let one = "env=prod,one";
    ada.good(&["hosts", "label", "host-0002", "--set", "one=1", "--remove", "none"]).await;
    ada.good(&["hosts", "decommission", "--selector", one, "--yes"]).await;
    assert_eq!(fleet.count(gone).await, 1);
    let kept = "select count(*) from hosts where host_name = 'host-0002' and labels = '{\"env\": \"prod\", \"one\": \"1\"}'";
    assert_eq!(fleet.count(kept).await, 1, "a label more, and none lost");
    let (code, said) = ada.bad(&["hosts", "approve", "host-0002"]).await;
    assert_eq!(code, 3, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_go_where_they_were_asked_to_and_nowhere_else() {
    let fleet = Fleet::create("cli_secrets").await;
    let server = fleet.serve(&fleet.config()).await;
    let ada = Terminal::open("cli_secrets_ada", &fleet, &server, Role::Admin).await;

    let create = ["tokens", "create", "--name", "rack 12", "--max-uses", "3", "--ttl", "2h"];
    let paste = ada.good(&create).await;
    assert!(paste.starts_with("pfj1_") && paste.lines().count() == 1, "nothing but the token");
    let said = ada.json(&[&create[..], &["--secret-file", "token"]].concat()).await;
    assert!(said.get("paste").is_none(), "{said}");
    assert!(ada.read("token").starts_with("pfj1_"));
    let mode = fs::metadata(ada.directory.path().join("token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = ada.json(&["tokens", "list"]).await;
    let ids: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["token_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(listed["items"][0]["max_uses"], 3);
    ada.good(&["tokens", "revoke", ids[1]]).await;
    let revoked = "select count(*) from enrollment_tokens where revoked_at is not null";
    assert_eq!(fleet.count(revoked).await, 1);

    let key = ["api-keys", "create", "--name", "grafana", "--role", "viewer", "--ttl", "30d"];
    ada.good(&[&key[..], &["--secret-file", "key2"]].concat()).await;
    let viewer = ["--key-file", "key2", "hosts", "list"];
    // The flag may stand before and behind the command's own words.
    ada.good(&[&viewer[2..], &viewer[..2]].concat()).await;
    let (code, said) = ada.bad(&["audit", "list", "--key-file", "key2"]).await;
    assert!(code == 3 && said.contains("forbidden"), "{said}");
    let id = ada.json(&["api-keys", "list"]).await["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["name"] == "grafana")
        .unwrap()["api_key_id"]
        .as_str()
        .unwrap()
        .to_owned();
    ada.good(&["api-keys", "revoke", &id]).await;
    let (code, said) = ada.bad(&["hosts", "list", "--key-file", "key2"]).await;
    assert!(code == 3 && said.contains("unauthorized"), "{said}");

    let audit = ada.json(&["audit", "list", "--object", &id]).await;
    let actions: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["api_key.revoke", "api_key.create"]);
    assert!(ada.good(&["audit", "list"]).await.contains("enrollment_token.revoke"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_key_needs_no_key() {
    let fleet = Fleet::create("cli_direct").await;
    let server = fleet.serve(&fleet.config()).await;
    let ada = Terminal::open("cli_direct_ada", &fleet, &server, Role::Viewer).await;
    fs::remove_file(ada.directory.path().join("key")).unwrap();
    ada.write("server.toml", &format!("database_url = {:?}\n", fleet.database.url));
    let direct = ["--config", "server.toml", "--direct"];
    let create =
        ["api-keys", "create", "--name", "first", "--role", "admin", "--secret-file", "key"];
    // Before the words of `api-keys` it is no flag of `procfleet-server` itself.
    ada.good(&[&create[..], &direct[..]].concat()).await;
    assert_eq!(ada.json(&["api-keys", "list"]).await["items"].as_array().unwrap().len(), 2);
    let paste = ada.good(&[&["tokens", "create", "--name", "t"], &direct[..]].concat()).await;
    assert!(paste.starts_with("pfj1_"));
    let by_rest = ada.json(&["tokens", "list"]).await;
    let by_database = ada.json(&[&["tokens", "list"], &direct[..]].concat()).await;
    assert_eq!(by_database, by_rest, "two ways, one answer");
    let id = by_rest["items"][0]["token_id"].as_str().unwrap();
    ada.good(&[&["tokens", "revoke", id], &direct[..]].concat()).await;
    let cli = "select count(*) from audit_events where actor = 'cli' and action = 'enrollment_token.revoke'";
    assert_eq!(fleet.count(cli).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_one_line_and_an_exit_code() {
    let fleet = Fleet::create("cli_wrong").await;
    let server = fleet.serve(&fleet.config()).await;
    let ada = Terminal::open("cli_wrong_ada", &fleet, &server, Role::Admin).await;
    let nobody = Uuid::from_u128(5).to_string();
    for (arguments, code, words) in [
        (&["hosts", "show", "nobody"][..], 3, "(not_found)"),
        (&["hosts", "list", "--selector", "env=("], 3, "(bad_parameter)"),
        (&["tokens", "create", "--name", "x", "--ttl", "91d"], 3, "(invalid_field)"),
        (&["tokens", "revoke", &nobody], 3, "(not_found)"),
        (&["hosts", "list", "--key-file", "missing"], 1, "cannot read the key file missing"),
        (&["hosts", "list", "--url", "http://127.0.0.1:9"], 4, "no answer from http://127.0.0.1:9"),
        (&["hosts", "list", "--url", "http://192.0.2.1"], 1, "--plain-http"),
        (&["hosts", "approve"], 2, "--help"),
        (&["hosts", "approve", "x", "--selector", "y"], 2, "--help"),
        (&["tokens", "list", "--after", "x"], 3, "(bad_parameter)"),
    ] {
        let (exit, said) = ada.bad(arguments).await;
        assert!(exit == code && said.contains(words), "{arguments:?}: {exit} {said}");
    }
    ada.write("key", "pfk1_00000000000000000000000000000000_wrong-canary");
    let (code, said) = ada.bad(&["hosts", "list"]).await;
    assert!(code == 3 && said.contains("--key-file") && !said.contains("canary"), "{said}");
    fs::set_permissions(ada.directory.path().join("key"), Permissions::from_mode(0o644)).unwrap();
    let (code, said) = ada.bad(&["hosts", "list"]).await;
    assert!(code == 1 && said.contains("chmod 600"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_own_authority_is_trusted_and_no_other() {
    let fleet = Fleet::create("cli_tls").await;
    let directory = fleet.ca_key_file().parent().unwrap().to_owned();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    fs::write(directory.join("o.crt"), certificate.pem()).unwrap();
    fs::write(directory.join("o.key"), key.serialize_pem()).unwrap();
    let mut config = fleet.config();
    config.operator_door.tls_certificate_file = Some(directory.join("o.crt"));
    config.operator_door.tls_key_file = Some(directory.join("o.key"));
    let server = fleet.serve(&config).await;
    let mut ada = Terminal::open("cli_tls_ada", &fleet, &server, Role::Viewer).await;
    ada.url = ada.url.replace("http:", "https:");
    ada.write("ca.pem", &certificate.pem());
    ada.write("other.pem", &fleet.authorities.server.certificate_pem);
    ada.write("empty.pem", "");
    ada.good(&["hosts", "list", "--ca-file", "ca.pem"]).await;
    for (arguments, code) in [
        (&["hosts", "list"][..], 4),
        (&["hosts", "list", "--ca-file", "other.pem"], 4),
        (&["hosts", "list", "--ca-file", "empty.pem"], 1),
    ] {
        let (exit, said) = ada.bad(arguments).await;
        assert!(exit == code && said.contains("ertificate"), "{arguments:?}: {exit} {said}");
    }
}

/// What bash offers for the last of these words.
async fn offered(words: &str) -> Vec<String> {
    let script = format!(
        r#"source <("$1" completions bash)
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        completer=$(complete -p procfleet-server); completer=${{completer#*-F }}
        ${{completer%% *}} procfleet-server "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\n' "${{COMPREPLY[@]}}""#
    );
    let arguments = ["--norc", "-c", &script, "bash", env!("CARGO_BIN_EXE_procfleet-server")];
    let output = Command::new("bash").args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_shell_completes_commands_and_flags() {
    assert_eq!(offered("procfleet-server ho").await, ["hosts"]);
    assert_eq!(offered("procfleet-server hosts qua").await, ["quarantine"]);
    assert_eq!(offered("procfleet-server tokens list --dir").await, ["--direct"]);
    assert_eq!(offered("procfleet-server hosts list --output ''").await, ["table", "json"]);
    for (shell, sign) in
        [("zsh", "#compdef procfleet-server"), ("fish", "complete -c procfleet-server")]
    {
        let arguments = ["completions", shell];
        let output =
            Command::new(env!("CARGO_BIN_EXE_procfleet-server")).args(arguments).output().await;
        assert!(String::from_utf8_lossy(&output.unwrap().stdout).contains(sign), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_are_tried_before_they_are_made_and_explained_afterwards() {
    let fleet = Fleet::create("cli_profiles").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let ada = Terminal::open("cli_profiles_ada", &fleet, &server, Role::Admin).await;
    ada.write("top.json", r#"{"profile":{"top":25}}"#);
    ada.write("slow.json", r#"{"interval_ms":60000}"#);
    let set = ["profiles", "set", "prod", "--selector", "env=prod", "--file", "top.json"];
    let looked = ada.json(&set).await;
    assert_eq!((&looked["changed"], &looked["examined"]), (&json!(1250), &json!(2500)));
    let table = ada.good(&set).await;
    assert!(table.contains("host-0002  profile.top  -     25"), "{table}");
    assert_eq!(fleet.count("select count(*) from profiles").await, 0, "a look changes nothing");
    ada.good(&[&set[..], &["--yes"]].concat()).await;
    assert_eq!(fleet.count("select count(*) from profiles where name = 'prod'").await, 1);

    ada.good(&["profiles", "set", "prod", "--priority", "-5", "--yes"]).await;
    let kept = "select count(*) from profiles where priority = -5 and selector = 'env=prod'
        and configuration->'profile'->'top' = '25' and version = 2";
    assert_eq!(fleet.count(kept).await, 1, "what was not said stays");
    ada.good(&["profiles", "override", "host-0002", "--file", "slow.json"]).await;
    let table = ada.good(&["profiles", "explain", "host-0002"]).await;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1..],
        [vec!["interval_ms", "60000", "host"], vec!["profile.top", "25", "profile", "prod"]]
    );
    ada.good(&["profiles", "override", "host-0002", "--clear"]).await;
    assert_eq!(
        fleet.count("select count(*) from host_overrides where configuration is not null").await,
        0
    );

    ada.good(&["profiles", "delete", "prod"]).await;
    assert_eq!(fleet.count("select count(*) from profiles").await, 1, "a look");
    ada.good(&["profiles", "delete", "prod", "--yes"]).await;
    assert_eq!(ada.json(&["profiles", "list"]).await["items"], json!([]));
    ada.write("bad.json", r#"{"profile":{"tops":25}}"#);
    let bad = ["profiles", "set", "prod", "--file", "bad.json", "--yes"];
    let (code, said) = ada.bad(&bad).await;
    assert!(code == 3 && said.contains("profile.tops"), "{said}");
    assert_eq!(ada.bad(&["profiles", "show", "prod"]).await.0, 1);
}

/// The doctor's exit code, and the state of each of its checks by name; the worst of several.
async fn examined(ada: &Terminal) -> (i32, BTreeMap<String, String>) {
    let output = ada.run(&["--config", "server.toml", "doctor", "--output", "json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut states = BTreeMap::new();
    for check in report["checks"].as_array().unwrap() {
        let (name, state) = (check["check"].as_str().unwrap(), check["state"].as_str().unwrap());
        let known: &mut String = states.entry(name.to_owned()).or_default();
        let worst = |state: &str| ["", "ok", "warn", "fail"].iter().position(|s| *s == state);
        if worst(state) > worst(known) {
            state.clone_into(known);
        }
        assert_eq!(check["advice"].is_null(), state == "ok", "{check}");
    }
    let code = output.status.code().unwrap();
    assert_eq!(report["ok"], code == 0);
    (code, states)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_what_is_broken() {
    let fleet = Fleet::create("cli_doctor").await;
    fleet.execute(HOSTS).await;
    let server = fleet.serve(&fleet.config()).await;
    let ada = Terminal::open("cli_doctor_ada", &fleet, &server, Role::Viewer).await;
    let configure = |database: &str, key: &Path, more: &str| {
        let text = format!("database_url = {database:?}\nca_key_file = {key:?}\n{more}\n");
        ada.write("server.toml", &text);
    };
    let url = fleet.database.url.as_str();
    let doors = format!(
        "agent_endpoints = [\"https://pf.example:7443\"]\n[agent_door]\nlisten = \"{}\"\n[operator_door]\nlisten = \"{}\"",
        server.addresses.agent, server.addresses.operator
    );
    configure(url, &fleet.ca_key_file(), &doors);
    fleet
        .execute(concat!("update hosts set agent_version = '", env!("CARGO_PKG_VERSION"), "'"))
        .await;
    let (code, states) = examined(&ada).await;
    let of = |states: &BTreeMap<String, String>, state: &str| {
        let names = states.iter().filter(|(_, is)| *is == state).map(|(name, _)| name.clone());
        names.collect::<Vec<_>>()
    };
    // Plain PostgreSQL.
    assert_eq!(
        (code, of(&states, "warn"), of(&states, "fail")),
        (0, vec!["TimescaleDB".into()], vec![])
    );
    assert_eq!(states.len(), 14, "{states:?}");

    let wrong = ada.directory.path().join("other.key");
    fs::write(&wrong, [7; 32]).unwrap();
    fs::set_permissions(&wrong, Permissions::from_mode(0o600)).unwrap();
    let away = "agent_endpoints = [\"https://127.0.0.1:7443\"]\n[operator_door]\nlisten = \"192.0.2.1:7080\"";
    configure(url, &wrong, away);
    let (code, states) = examined(&ada).await;
    assert_eq!(code, 1);
    assert_eq!(of(&states, "fail"), ["operator door", "operator door TLS", "sealing key"]);
    assert!(of(&states, "warn").contains(&"agent endpoints".to_owned()), "{states:?}");

    configure(url, &fleet.ca_key_file(), &doors);
    fleet.execute("update certificate_authorities set not_after = now() - interval '1 day' where purpose = 'server'").await;
    fleet.execute("update hosts set agent_version = '0.0.9' where host_name = 'host-0001'").await;
    let (code, states) = examined(&ada).await;
    assert_eq!((code, of(&states, "fail")), (1, vec!["authorities".to_owned()]));
    assert_eq!(states["versions"], "warn");
    fleet.execute("delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)").await;
    let (code, states) = examined(&ada).await;
    assert_eq!((code, of(&states, "fail")), (1, vec!["schema".to_owned()]));

    configure("postgres://ada:hunter2-canary@127.0.0.1:9/none", &fleet.ca_key_file(), &doors);
    let (code, states) = examined(&ada).await;
    assert_eq!((code, of(&states, "fail")), (1, vec!["database".to_owned()]));
    let output = ada.run(&["--config", "server.toml", "doctor"]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("fail  database") && !table.contains("canary"), "{table}");
    ada.write("server.toml", "no_such_key = 1");
    let (code, states) = examined(&ada).await;
    assert_eq!((code, of(&states, "fail")), (1, vec!["configuration".to_owned()]));
}
