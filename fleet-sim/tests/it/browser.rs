//! The web page in a real browser: Debian's Chromium, driven by `web/browser/run.mjs`, against a real
//! server with a real agent, simulated hosts that reported over the protocol, and a thousand more that
//! are only rows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fleet_sim::child::{self, Child};
use fleet_sim::eventually::eventually;
use fleet_sim::fleet::{Population, enroll};
use fleet_sim::simulated::plan::Shape;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::fleet::{DEADLINE, Fleet, Workload, now, wait_for_deltas};

/// All scenarios together: a minute or two where nothing else runs.
const BROWSER_DEADLINE: Duration = Duration::from_mins(9);
/// Hosts that are only rows.
const ROWS: i32 = 1000;
/// Hosts whose reports came over the protocol, and how many each: three hours of them.
const SIMULATED: u64 = 2;
const REPORTS: u64 = 360;

#[tokio::test]
async fn the_page_works_in_a_browser() -> Result<()> {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web").canonicalize()?;
    let chromium = found("chromium")?;
    for (path, hint) in [("dist/index.html", "the page"), ("node_modules", "its packages")] {
        ensure!(web.join(path).exists(), "{hint} is missing: run `cargo xtask web`");
    }
    let fleet = Fleet::start("browser").await?;
    let mut agent = fleet.agent("agent", Duration::from_secs(1), false).await?;
    let mut connection = fleet.connect().await?;
    wait_for_deltas(&mut connection, &mut agent).await?;

    let directory = fleet.deployment.directory.path();
    let mut culprit =
        Workload::start("culprit", directory, &["--database=billing", "--password=hunter2"])?;
    let hostile = hostile_words();
    let words: Vec<&str> = hostile.iter().map(String::as_str).collect();
    let mut attacker = Workload::start("attacker", directory, &words)?;
    culprit.tell("burn 12000")?;
    attacker.tell("burn 2000")?;
    insert_rows(&mut connection).await?;
    let simulated = simulated_host(&fleet).await?;
    attacker.wait_done().await?;
    culprit.wait_done().await?;

    let viewer_key = fleet.deployment.create_api_key("viewer").await?;
    let host_id = agent.host_id()?;
    let (pid, attacker_pid) = (culprit.child.pid(), attacker.child.pid());
    let path = format!("/v1/hosts/{host_id}/processes?from=-5m&sort=cpu&limit=500");
    let described = eventually(DEADLINE, "both are described", async || {
        let answer: Value = serde_json::from_str(&fleet.server.get(&path, &viewer_key).await?)?;
        let processes = answer["processes"].as_array().cloned().unwrap_or_default();
        let of = |pid: u32| {
            let found = processes.iter().find(|process| process["pid"] == pid);
            found.filter(|process| process["command_line"].is_string()).cloned()
        };
        match (of(pid), of(attacker_pid)) {
            (Some(culprit), Some(_)) => Ok(culprit),
            _ => bail!("{answer:#}"),
        }
    })
    .await?;
    let host: Value = serde_json::from_str(
        &fleet.server.get(&format!("/v1/hosts/{host_id}"), &viewer_key).await?,
    )?;
    let given = json!({
        "url": format!("http://{}", fleet.server.doors().operator),
        "chromium": chromium,
        "artefacts": artefacts()?,
        "adminKey": fleet.deployment.create_api_key("admin").await?,
        "viewerKey": viewer_key,
        "hostId": host_id,
        "hostName": host["host_name"],
        "simulatedId": simulated,
        "culpritId": described["process_id"],
        "culpritPid": pid,
        "owner": described["owner"],
    });
    browse(&web, directory, &given).await?;
    culprit.finish().await?;
    attacker.finish().await?;
    agent.terminate().await
}

/// What somebody would run who wants to harm those who look.
fn hostile_words() -> Vec<String> {
    vec![
        "<img src=x onerror=\"window.hacked=1\">".into(),
        "</td><script>window.hacked=1</script><b>".into(),
        "${window.hacked=1}{{window.hacked=1}}".into(),
        "\u{202e}gnp.exe\u{2066}\u{200b}".into(),
        "日本語العربية".into(),
        "x".repeat(4000),
    ]
}

/// A program of the path.
fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("{program} is missing: run `cargo xtask test`, which installs it"))
}

/// Where the pictures go: they stay after the test.
fn artefacts() -> Result<PathBuf> {
    let binary = child::binary("fleet-sim")?;
    let target = binary.parent().and_then(Path::parent).context("a target directory")?;
    Ok(target.join("browser"))
}

/// Hosts that are only rows: with a heartbeat and a sample each, of different load.
async fn insert_rows(connection: &mut PgConnection) -> Result<()> {
    let statements = [
        "insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, labels)
         select md5('row-' || n)::uuid, 'row-' || n, '6.1.0', 'x86_64', '0.1.0', (select token_id from enrollment_tokens limit 1),
                jsonb_build_object('env', (array['prod', 'test'])[1 + n % 2], 'role', (array['db', 'web', 'cache'])[1 + n % 3])
         from generate_series(1, $1) n",
        "insert into heartbeats (host_id, last_seen_at, contacted_at, last_sampled_at, deadline_at, interval_ms)
         select md5('row-' || n)::uuid, now(), now() + interval '1 hour', date_trunc('second', now()),
                now() + case when n % 40 = 0 then interval '-1 minute' else interval '1 hour' end, 30000
         from generate_series(1, $1) n",
        "insert into host_samples (sampled_at, host_id, interval_ms, cpu_count, cpu_user_us, cpu_system_us, cpu_idle_us,
                load_1m, memory_total_bytes, memory_used_bytes)
         select date_trunc('second', now()) - k * interval '3 minutes', md5('row-' || n)::uuid, 30000, 8,
                n * 200000 + (n * 7919 * (k + 3) % 40) * 500000, 1000000, 240000000 - n * 200000,
                n * 0.01, 17179869184, 17179869184 * ((n * 37 + k) % 100) / 100
         from generate_series(1, $1) n, generate_series(0, 19) k",
    ];
    for statement in statements {
        sqlx::query(statement).bind(ROWS).execute(&mut *connection).await?;
    }
    insert_states(connection).await
}

/// One host in every state, named and labelled after it.
async fn insert_states(connection: &mut PgConnection) -> Result<()> {
    let statements = [
        "insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, lifecycle, ephemeral, labels)
         select md5(state)::uuid, 'state-' || state, '6.1.0', 'x86_64', '0.1.0', (select token_id from enrollment_tokens limit 1),
                case when state = 'waiting' then 'pending' when state in ('pending', 'quarantined', 'decommissioned') then state
                    else 'active' end,
                state = 'stopped', jsonb_build_object('state', state)
         from unnest(array['up', 'late', 'silent', 'stopped', 'dormant', 'never', 'pending', 'waiting',
             'quarantined', 'decommissioned']) state",
        "insert into heartbeats (host_id, last_seen_at, contacted_at, last_sampled_at, deadline_at, interval_ms, goodbye, goodbye_at)
         select md5(state)::uuid, seen, seen, seen, deadline, 30000, goodbye, seen
         from (values ('up', now() + interval '1 hour', now() + interval '2 hours', null),
                ('late', now() - interval '10 minutes', now() + interval '2 hours', null),
                ('silent', now() - interval '10 minutes', now() - interval '8 minutes', null),
                ('stopped', now(), now() + interval '1 hour', 'shutdown'),
                ('dormant', now() - interval '15 days', now() - interval '15 days', null),
                ('never', null, null, null), ('pending', null, null, null), ('waiting', null, null, null),
                ('quarantined', now() - interval '1 day', now() - interval '1 day', null),
                ('decommissioned', now() - interval '1 day', now() - interval '1 day', null))
             as given (state, seen, deadline, goodbye)",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    insert_alerts(connection).await
}

/// One that is open, about a process with a hostile name, and one that is over.
async fn insert_alerts(connection: &mut PgConnection) -> Result<()> {
    sqlx::query(
        "insert into alerts (alert_id, fingerprint, rule, severity, host_id, began_at, fired_at, state, resolved_at, detail)
         select md5(name)::uuid, name, name, 'critical', md5('up')::uuid, now() - interval '20 minutes', now() - interval '15 minutes',
                case when over then 'resolved' else 'firing' end, case when over then now() - interval '5 minutes' end,
                '{\"metric\": \"process.cpu_cores\", \"value\": 7.5, \"threshold\": 2, \"below\": false,
                  \"object\": \"<img src=x onerror=alert(1)> @all\"}'
         from (values ('planted burner', false), ('planted and over', true)) as given (name, over)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Hosts that report three hours of an ordinary server's life; the id of the first.
async fn simulated_host(fleet: &Fleet) -> Result<uuid::Uuid> {
    let token = fleet.deployment.join_token("simulated").await?;
    let interval = Duration::from_millis(u64::from(Shape::HOST.interval_ms));
    let started_at = now() - interval * u32::try_from(REPORTS)?;
    let population = Population::calm(SIMULATED, Shape::HOST);
    let mut agents = enroll(&token, &population, 0..SIMULATED, started_at).await?;
    for agent in &mut agents {
        agent.produce(REPORTS - 1);
        agent.drain(DEADLINE).await?;
    }
    Ok(agents.first().context("an agent")?.host_id)
}

/// Runs the scenarios; their log is the failure's text.
async fn browse(web: &Path, directory: &Path, given: &Value) -> Result<()> {
    let mut command = Command::new("node");
    command.arg("browser/run.mjs").current_dir(web);
    // While one is written: only scenarios whose name holds this.
    command.args(std::env::var("PROCFLEET_BROWSER_SCENARIO").ok());
    command.env("PROCFLEET_BROWSER_TEST", given.to_string());
    let mut node = Child::spawn("browser", directory, &mut command)?;
    let status = node.wait(BROWSER_DEADLINE).await?;
    println!("{}", node.log());
    ensure!(status.success(), "the browser test ended with {status}:\n{}", node.log());
    Ok(())
}
