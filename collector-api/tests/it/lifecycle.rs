//! The real program: how it starts, refuses to start, drains, and what it never shows.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::server::{Deployment, Doors};
use fleet_sim::simulated::SimulatedAgent;
use sqlx::AssertSqlSafe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fleet::{Fleet, PATIENCE, now, plain_client};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_the_request_in_flight_finish() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let doors = Doors::free().unwrap();
    let endpoints = vec![doors.agent_endpoint()];
    let deployment = Deployment::create("drain", &database.url, endpoints).await.unwrap();
    let key = deployment.create_api_key("admin").await.unwrap();
    let mut server = deployment.start("server", doors).await.unwrap();

    let body = r#"{"name":"in-flight","role":"viewer"}"#;
    let head = format!(
        "POST /v1/api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(doors.operator).await.unwrap();
    stream.write_all(format!("{head}{}", &body[..5]).as_bytes()).await.unwrap();
    // The handler has begun once the key it was shown is noted.
    let used = "select count(*) from api_keys where last_used_at is not null";
    eventually(PATIENCE, "the request is in flight", async || {
        let mut connection = database.connect().await?;
        let used: i64 = sqlx::query_scalar(used).fetch_one(&mut connection).await?;
        anyhow::ensure!(used == 1, "{used} keys used");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();

    let stopped = async { server.terminate().await.unwrap() };
    let finished = async {
        eventually(PATIENCE, "the listener is closed", async || {
            match TcpStream::connect(doors.operator).await {
                Ok(_) => Err("still accepts"),
                Err(_) => Ok(()),
            }
        })
        .await
        .unwrap();
        stream.write_all(&body.as_bytes()[5..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = tokio::join!(stopped, finished);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_in_arguments_logs_or_tables() {
    let database = TestDatabase::create(Engine::TimescaleDb).await.unwrap();
    let doors = Doors::free().unwrap();
    let endpoints = vec![doors.agent_endpoint()];
    let deployment = Deployment::create("secrets", &database.url, endpoints).await.unwrap();
    let key = deployment.create_api_key("viewer").await.unwrap();
    let token = deployment.join_token("join").await.unwrap();
    let server = deployment.start("server", doors).await.unwrap();
    SimulatedAgent::enroll(&token, "h", 1, now()).await.unwrap();
    let hosts = server.get("/v1/hosts", &key).await.unwrap();
    assert!(hosts.contains("\"h\""), "{hosts}");

    let mut seen = vec![("log".to_owned(), server.log())];
    let arguments = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    seen.push(("arguments".into(), String::from_utf8_lossy(&arguments).into_owned()));
    for file in logs(deployment.directory.path()) {
        seen.push((file.clone(), fs::read_to_string(&file).unwrap_or_default()));
    }
    seen.extend(dump(&database).await);
    let key_secret = key.splitn(3, '_').nth(2).unwrap();
    let paste = token.to_paste();
    let sealing_key = fs::read(deployment.directory.path().join("ca.key")).unwrap();
    let sealing_hex = collector_api::auth::secret::hex(&sealing_key);
    for (place, text) in &seen {
        let secrets = [&token.secret, key_secret, &paste, &sealing_hex, "PRIVATE KEY"];
        for (n, secret) in secrets.into_iter().enumerate() {
            assert!(!text.contains(secret), "secret {n} is in {place}");
        }
    }
    assert!(seen.iter().any(|(place, text)| place == "hosts" && text.contains('h')));
}

fn logs(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap();
    let paths = files.map(|file| file.unwrap().path().to_string_lossy().into_owned());
    paths.filter(|path| Path::new(path).extension().is_some_and(|end| end == "log")).collect()
}

/// Every table of the schema, as text.
async fn dump(database: &TestDatabase) -> Vec<(String, String)> {
    let mut connection = database.connect().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public'
         and table_type = 'BASE TABLE'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut dumped = Vec::new();
    for table in tables {
        let sql = format!("select coalesce(string_agg(t::text, e'\\n'), '') from {table} t");
        let text = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        dumped.push((table, text));
    }
    dumped
}

/// Runs `serve` with these variables until it ends by itself.
fn serve_refused(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_procfleet-server"));
    let inherited = std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_"));
    for (name, _) in inherited {
        command.env_remove(name);
    }
    let Output { status, stdout, .. } =
        command.arg("serve").envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stdout).unwrap()
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_what_to_do() {
    let fleet = Fleet::create("refused").await;
    let url = fleet.database.url.clone();
    let key_file = fleet.ca_key_file().to_str().unwrap().to_owned();
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let empty = TestDatabase::create_empty(Engine::PostgreSql).await.unwrap();
    let bare = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let any = "127.0.0.1:0";
    let cases = [
        (vec![], "set PROCFLEET_DATABASE_URL="),
        (
            vec![("DATABASE_URL", url.as_str()), ("OPERATOR_DOOR__LISTEN", "0.0.0.0:0")],
            "operator_door.insecure = true",
        ),
        (
            vec![
                ("DATABASE_URL", &url),
                ("CA_KEY_FILE", &key_file),
                ("OPERATOR_DOOR__LISTEN", any),
                ("AGENT_DOOR__LISTEN", &taken_address),
            ],
            &taken_address,
        ),
        (vec![("DATABASE_URL", &empty.url)], "procfleet-server migrate"),
        (vec![("DATABASE_URL", &bare.url)], "procfleet-server init"),
        (
            vec![("DATABASE_URL", &url), ("CA_KEY_FILE", "/nonexistent/ca.key")],
            "copy the file from another replica",
        ),
        (vec![("DATABASE_URL", &url), ("AGENT_DOOR__LISEN", "x")], "lisen"),
    ];
    for (variables, hint) in cases {
        let names: Vec<(String, &str)> =
            variables.iter().map(|(name, value)| (format!("PROCFLEET_{name}"), *value)).collect();
        let variables: Vec<(&str, &str)> =
            names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let output = serve_refused(&variables);
        assert!(output.contains(hint), "{hint}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_task_closes_the_doors_and_is_reported() {
    let fleet = Fleet::create("crash").await;
    let server = fleet.serve(&fleet.config()).await;
    let client = plain_client();
    let ready = client.get(server.operator_url("/readyz")).send().await.unwrap();
    assert!(ready.status().is_success());
    server.lifecycle.spawn("doomed", async { panic!("on purpose") });
    let failed = server.lifecycle.run(Duration::from_hours(1)).await.unwrap_err();
    assert_eq!((failed.task, failed.how), ("doomed", "panicked"));
    assert!(TcpStream::connect(server.addresses.operator).await.is_err());
    assert!(TcpStream::connect(server.addresses.agent).await.is_err());
}

/// Who does not want to wait sends the signal again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_server_at_once() {
    let fleet = Fleet::create("second-signal").await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_procfleet-server"))
        .arg("serve")
        .env("PROCFLEET_DATABASE_URL", &fleet.database.url)
        .env("PROCFLEET_CA_KEY_FILE", fleet.ca_key_file())
        .env("PROCFLEET_AGENT_DOOR__LISTEN", "127.0.0.1:0")
        .env("PROCFLEET_OPERATOR_DOOR__LISTEN", "127.0.0.1:0")
        .env("PROCFLEET_DRAIN_DELAY_MS", "3600000")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait_for = |what: &str| {
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.contains(what));
        assert!(found.is_some(), "the server ended before it said {what}");
    };
    let signal = |child: &std::process::Child| {
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    wait_for("listening");
    signal(&child);
    wait_for("stopping");
    signal(&child);
    wait_for("second signal");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_yet_is_waited_for_and_named_without_its_password() {
    let nowhere = fleet_sim::address::free_address().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_procfleet-server"))
        .arg("serve")
        .env("PROCFLEET_DATABASE_URL", format!("postgres://someone:hush@{nowhere}/x"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    assert!(first.contains("waiting for the database") && first.contains("someone"), "{first}");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(!(first + &rest).contains("hush"));
}
