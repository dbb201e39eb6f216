//! The files under `deploy/` and `docker-compose.yml`, as far as they can be held to the truth where no image can be
//! pulled: what they mount is there, what they configure the programs accept, the load balancer's file is one, the
//! scripts work on a real database, the health check knows a healthy server, and the capabilities suffice.
//!
//! Not tried here: that the images build, and that Docker and Kubernetes do what their documentation says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use collector_api::config::Config;
use fleet_sim::address::free_address;
use fleet_sim::child::{self, Directory};
use fleet_sim::database::{Engine, TestDatabase};
use fleet_sim::eventually::eventually;
use fleet_sim::haproxy::HaproxyProcess;
use fleet_sim::server::{Deployment, Doors};
use serde::Deserialize as _;
use serde_json::Value;

use crate::fleet::{DEADLINE, Fleet, connect, report_count, start_agent, wait_for_reports};

mod database;
mod kubernetes;

/// Where the repository is.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

/// The documents of a YAML file, anchors and merges resolved.
fn yaml(text: &str) -> Result<Vec<Value>> {
    yaml_serde::Deserializer::from_str(text)
        .map(|document| {
            let mut value = yaml_serde::Value::deserialize(document)?;
            value.apply_merge()?;
            Ok(serde_json::to_value(value)?)
        })
        .collect()
}

/// `.env.example`.
fn variables() -> Result<BTreeMap<String, String>> {
    let text = read(".env.example")?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once('=').with_context(|| line.to_owned())?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as Compose replaces them; names what was asked for.
fn substituted(text: &str, asked: &mut BTreeSet<String>) -> Result<String> {
    let variables = variables()?;
    let mut parts = text.split("${");
    let mut done = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inside, rest) = part.split_once('}').with_context(|| part.to_owned())?;
        let name = inside.split(':').next().unwrap_or_default();
        let value =
            variables.get(name).with_context(|| format!("{name} is not in .env.example"))?;
        if let Some((_, default)) = inside.split_once(":-") {
            assert_eq!(default, value, "the default of {name} is not the documented one");
        }
        asked.insert(name.to_owned());
        done += value;
        done += rest;
    }
    Ok(done.replace("$$", "$"))
}

/// docker-compose.yml with the variables of `.env.example`.
fn compose() -> Result<Value> {
    let mut asked = BTreeSet::new();
    let text = substituted(&read("docker-compose.yml")?, &mut asked)?;
    let documented: BTreeSet<_> = variables()?.into_keys().collect();
    assert_eq!(asked, documented, "variables of the file, and of .env.example");
    let mut documents = yaml(&text)?;
    ensure!(documents.len() == 1);
    Ok(documents.remove(0))
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().into_iter().flatten()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A tag that names one release.
fn assert_pinned(image: &str) {
    let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
    assert!(
        tag.starts_with(|c: char| c.is_ascii_digit()) || tag.starts_with("bookworm-20"),
        "{image}"
    );
    let parts =
        tag.split(['.', '-']).filter(|part| part.bytes().all(|b| b.is_ascii_digit())).count();
    assert!(parts >= 2 || tag.starts_with("bookworm-20"), "{image} moves");
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(output)
}

/// The secrets, as the script writes them.
fn secrets() -> Result<Directory> {
    let directory = Directory::create("secrets")?;
    let script = repository().join("deploy/docker/make-secrets.sh");
    run(Command::new("sh").arg(&script).arg(directory.path()))?;
    Ok(directory)
}

#[test]
fn what_compose_names_is_there() -> Result<()> {
    let compose = compose()?;
    let secrets = secrets()?;
    let names = |key: &str| -> BTreeSet<String> {
        compose[key].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    for (_, secret) in compose["secrets"].as_object().into_iter().flatten() {
        let file = secret["file"].as_str().context("a secret is a file")?;
        let name = file.strip_prefix("./secrets/").context("in secrets/")?;
        ensure!(secrets.path().join(name).exists(), "make-secrets.sh does not write {name}");
    }
    let (volumes, declared) = (names("volumes"), names("secrets"));
    for (name, service) in services(&compose) {
        assert_pinned(service["image"].as_str().context("image")?);
        if let Some(build) = service.get("build") {
            ensure!(build["context"] == ".", "{name}");
            ensure!(repository().join(build["dockerfile"].as_str().context("file")?).exists());
        }
        ensure!(service["healthcheck"].is_object(), "{name} has no health check");
        ensure!(service["restart"].is_string(), "{name} says nothing of restarts");
        for secret in service["secrets"].as_array().into_iter().flatten() {
            let secret = secret.as_str().or(secret["source"].as_str()).context("secret")?;
            ensure!(declared.contains(secret), "{name}: no secret {secret}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let text = volume.as_str().unwrap_or_default();
            let source = text.split(':').next().unwrap_or_default();
            match source {
                "" => ensure!(volume["type"] == "bind" && volume["read_only"] == true, "{name}"),
                here if here.starts_with("./") => {
                    ensure!(repository().join(here).exists(), "{name}: {here} is not there");
                    ensure!(text.ends_with(":ro"), "{name}: {here} could be written");
                }
                absolute if absolute.starts_with('/') => ensure!(text.ends_with(":ro"), "{text}"),
                volume => ensure!(volumes.contains(volume), "{name}: no volume {volume}"),
            }
        }
        for (other, _) in service["depends_on"].as_object().into_iter().flatten() {
            ensure!(compose["services"][other].is_object(), "{name}: no service {other}");
        }
    }
    Ok(())
}

#[test]
fn dockerfiles_name_what_is_there() -> Result<()> {
    for (file, package) in [("server", "collector-api"), ("agent", "agent")] {
        let text = read(&format!("deploy/docker/{file}.Dockerfile"))?;
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                ["FROM", image, ..] => assert_pinned(image),
                ["COPY", from, ..] if !from.starts_with("--from") => {
                    ensure!(repository().join(from).exists(), "{line}");
                }
                _ => {}
            }
        }
        ensure!(text.contains(&format!("--package {package} --bin procfleet-{file}")), "{file}");
        ensure!(repository().join(package).join("Cargo.toml").exists());
    }
    // What is left out of the context must not be what the build needs.
    let ignored = read(".dockerignore")?;
    let manifest = read("Cargo.toml")?;
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    for member in members.context("members")?.split('"').skip(1).step_by(2) {
        ensure!(ignored.lines().any(|line| line == format!("!{member}")), "{member} is left out");
    }
    for file in ["Cargo.toml", "Cargo.lock", ".cargo", ".sqlx", "migrations", "openapi.yaml", "web"]
    {
        ensure!(ignored.lines().any(|line| line == format!("!{file}")), "{file} is left out");
    }
    Ok(())
}

/// Loads it, and loads it without each variable: every one must make a difference.
fn server_configuration(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Result<Config> {
    let load = |leave_out: &str| {
        let pairs = environment.iter().filter(|(name, _)| *name != leave_out);
        Config::load(file, pairs.map(|(name, value)| (name.clone(), value.clone())))
    };
    let config = load("")?;
    for name in environment.keys() {
        let without = load(name)?;
        ensure!(format!("{without:?}") != format!("{config:?}"), "{name} is not read");
    }
    Ok(config)
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let pairs = service["environment"].as_object().into_iter().flatten();
    pairs
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[test]
fn servers_of_compose_accept_their_configuration() -> Result<()> {
    let compose = compose()?;
    let secrets = secrets()?;
    let file = secrets.path().join("server.toml");
    for server in ["server-1", "server-2"] {
        let service = &compose["services"][server];
        let config = server_configuration(Some(&file), &environment(service))?;
        assert_eq!(config.endpoints(), ["https://collector.example:7443"]);
        assert_eq!(config.agent_door.names, ["collector.example"]);
        let url = config.database_url()?.expose().to_owned();
        let password = fs::read_to_string(secrets.path().join("database-password"))?;
        assert_eq!(url, format!("postgres://procfleet:{password}@timescaledb/procfleet"));
        let command = [vec!["procfleet-server"], texts(&service["command"])].concat();
        let cli = collector_api::cli::Cli::try_parse_from(command)?;
        ensure!(cli.serves());
        assert_eq!(cli.config.as_deref(), Some(Path::new("/run/secrets/server.toml")));
        ensure!(texts(&service["secrets"]).contains(&"server.toml"));
    }
    // The one-shot that makes the agent's token: its words, as the shell cuts them.
    let script = texts(&compose["services"]["agent-token"]["command"]).concat();
    let (_, words) = script.split_once("procfleet-server ").context("a call of the server")?;
    let words = run(Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {words}")))?;
    let words = String::from_utf8(words.stdout)?;
    collector_api::cli::Cli::try_parse_from(["procfleet-server"].into_iter().chain(words.lines()))?;
    Ok(())
}

/// What the agent makes of these variables, by the program itself.
fn agent_configuration(variables: &BTreeMap<String, String>) -> Result<Value> {
    let mut command = Command::new(child::binary("procfleet-agent")?);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_")) {
        command.env_remove(name);
    }
    command.envs(variables).args(["config", "show", "--format", "json"]);
    Ok(serde_json::from_slice(&run(&mut command)?.stdout)?)
}

#[test]
fn agents_accept_their_configuration() -> Result<()> {
    let compose = compose()?;
    let documents = kubernetes::documents()?;
    let daemon = kubernetes::find(&documents, "DaemonSet")?;
    let container = &daemon["spec"]["template"]["spec"]["containers"][0];
    let of_node: BTreeMap<_, _> = kubernetes::listed_environment(container)?;
    for variables in [environment(&compose["services"]["agent"]), of_node] {
        let with = agent_configuration(&variables)?;
        for name in variables.keys() {
            let mut fewer = variables.clone();
            fewer.remove(name);
            ensure!(agent_configuration(&fewer)? != with, "{name} is not read");
        }
    }
    let command = [vec!["procfleet-agent"], texts(&container["args"])].concat();
    agent::cli::Cli::try_parse_from(command).map_err(|error| anyhow::anyhow!("{error}"))?;
    // Both are given what the other is given.
    let security = &container["securityContext"]["capabilities"];
    assert_eq!(security["add"], compose["services"]["agent"]["cap_add"]);
    assert_eq!(security["drop"], compose["services"]["agent"]["cap_drop"]);
    Ok(())
}

#[test]
fn the_load_balancer_of_compose_is_one() -> Result<()> {
    let file = repository().join("deploy/docker/haproxy.cfg");
    let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
    let program = program.iter().find(|path| Path::new(path).exists()).context("no haproxy")?;
    // Names of containers cannot be resolved here, which it only warns of.
    let output = run(Command::new(program).args(["-c", "-f"]).arg(&file))?;
    let said = String::from_utf8_lossy(&output.stderr);
    for warning in said.lines().filter(|line| line.starts_with("[WARNING]")) {
        ensure!(warning.contains("could not resolve address"), "{warning}");
    }
    let text = read("deploy/docker/haproxy.cfg")?;
    for (name, _) in services(&compose()?).filter(|(name, _)| name.starts_with("server-")) {
        ensure!(text.contains(&format!("server {name} {name}:7443 check")), "{name}");
    }
    Ok(())
}

/// Its names of containers become addresses of this machine; nothing else changes.
#[tokio::test]
async fn agents_report_through_the_load_balancer_of_compose() -> Result<()> {
    let database = TestDatabase::create(Engine::TimescaleDb).await?;
    let (agents, operators, health) = (free_address()?, free_address()?, free_address()?);
    let endpoint = format!("https://{agents}");
    let mut deployment = Deployment::create("compose-lb", &database.url, vec![endpoint]).await?;
    let from = ("PROCFLEET_AGENT_DOOR__PROXY_PROTOCOL_FROM", "127.0.0.0/8".to_owned());
    deployment.environment.push(from);
    let mut text = read("deploy/docker/haproxy.cfg")?
        .replace("bind :7443", &format!("bind {agents}"))
        .replace("bind :7080", &format!("bind {operators}"))
        .replace("bind 127.0.0.1:8404", &format!("bind {health}"));
    let mut servers = Vec::new();
    for name in ["server-1", "server-2"] {
        let doors = Doors::free()?;
        let (agent, operator) = (doors.agent, doors.operator);
        text = text
            .replace(
                &format!("{name}:7443 check"),
                &format!("{agent} check port {}", operator.port()),
            )
            .replace(&format!("{name}:7080 check"), &format!("{operator} check"));
        servers.push(deployment.start(name, doors).await?);
    }
    let mut haproxy = HaproxyProcess::start_from(&text, agents).await?;
    let healthy =
        Command::new("curl").args(["-sf", &format!("http://{health}/healthy")]).output()?;
    ensure!(healthy.status.success(), "{healthy:?}");

    let mut agent = start_agent(&deployment, "agent", Duration::from_millis(500), false).await?;
    let mut connection = connect(&deployment).await?;
    wait_for_reports(&mut connection, &mut agent, 2).await?;
    let key = deployment.create_api_key("admin").await?;
    for server in &servers {
        let ignored = "procfleet_server_connections_failed_total";
        let refused = server.metric(&key, ignored, "proxy_header").await?;
        ensure!(refused < 1.0, "HAProxy's headers are read: {refused}");
    }
    servers.remove(0).kill()?;
    let before = report_count(&mut connection, agent.host_id()?).await?;
    wait_for_reports(&mut connection, &mut agent, before + 2).await?;
    let url = format!("http://{operators}/readyz");
    eventually(DEADLINE, "operators reach the server that is left", async || {
        let ready = Command::new("curl").args(["-sf", &url]).output()?;
        ensure!(ready.status.success(), "{ready:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    haproxy.check_alive()
}

#[test]
fn secrets_are_written_once_and_for_nobody_else() -> Result<()> {
    let directory = secrets()?;
    let mode = fs::metadata(directory.path())?.permissions().mode() & 0o777;
    let read = || -> Result<BTreeMap<_, _>> {
        fs::read_dir(directory.path())?
            .map(|entry| {
                Ok((
                    entry.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?.path(),
                    fs::read(entry?.path())?,
                ))
            })
            .collect()
    };
    let before = read()?;
    assert_eq!(before.len(), 5, "{before:?}");
    run(Command::new("sh")
        .arg(repository().join("deploy/docker/make-secrets.sh"))
        .arg(directory.path()))?;
    assert_eq!(read()?, before);
    // A directory that the script makes itself.
    let made = directory.path().join("made");
    run(Command::new("sh").arg(repository().join("deploy/docker/make-secrets.sh")).arg(&made))?;
    assert_eq!(fs::metadata(&made)?.permissions().mode() & 0o777, 0o700, "not {mode:o}");
    let different: BTreeSet<_> = ["postgres-password", "database-password"]
        .iter()
        .map(|name| fs::read(made.join(name)))
        .collect::<Result<_, _>>()?;
    assert_eq!(different.len(), 2);
    Ok(())
}

#[tokio::test]
async fn the_health_check_of_compose_tells_a_server_from_none() -> Result<()> {
    let compose = compose()?;
    let test = texts(&compose["services"]["server-1"]["healthcheck"]["test"]);
    ensure!(test[0] == "CMD");
    let mut fleet = Fleet::start("compose-health").await?;
    let door = fleet.server.doors().operator;
    let check = || -> Result<bool> {
        let place = format!("/dev/tcp/{}/{}", door.ip(), door.port());
        let words = test[1..].iter().map(|word| word.replace("/dev/tcp/127.0.0.1/7080", &place));
        let words: Vec<_> = words.collect();
        Ok(Command::new(&words[0]).args(&words[1..]).output()?.status.success())
    };
    ensure!(check()?, "a ready server is healthy");
    fleet.server.kill()?;
    ensure!(!check()?, "a dead server is not");
    Ok(())
}

#[test]
fn the_capabilities_of_the_container_suffice() -> Result<()> {
    let compose = compose()?;
    let added = texts(&compose["services"]["agent"]["cap_add"]);
    let words: Vec<_> = added.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
    let only = format!("-all,{}", words.join(","));
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", &only, "--inh-caps", &only, "--no-new-privs", "--"]);
    command.arg(child::binary("procfleet-agent")?).args(["once", "--json", "--interval", "500ms"]);
    let report: Value = serde_json::from_slice(&run(&mut command)?.stdout)?;
    let unrestricted = Command::new(child::binary("procfleet-agent")?)
        .args(["once", "--json", "--interval", "500ms"])
        .output()?;
    let unrestricted: Value = serde_json::from_slice(&unrestricted.stdout)?;
    let tiers = |report: &Value| -> Vec<(Value, Value)> {
        let sources = report["agent"]["sources"].as_array().cloned().unwrap_or_default();
        sources.iter().map(|source| (source["fields"].clone(), source["tier"].clone())).collect()
    };
    ensure!(!tiers(&report).is_empty());
    assert_eq!(tiers(&report), tiers(&unrestricted), "as good as root with all its powers");
    Ok(())
}
