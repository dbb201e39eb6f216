//! One identity and two machines: real agents on copies of a state directory, made while the original ran.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::agent::{AgentOptions, AgentProcess};
use fleet_sim::child::Directory;
use fleet_sim::eventually::eventually;
use fleet_sim::oracle;
use shared_model::{Record, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::certificates::one;
use crate::fleet::{
    DEADLINE, Fleet, number, report_count, settle, spooled_records, wait_for_reports,
};

const ONE: &str = "11111111-2222-3333-4444-555555555555";
const OTHER: &str = "66666666-7777-8888-9999-aaaaaaaaaaaa";
const DETECTED: &str =
    "select count(*) from audit_events where action = 'host.clone_detected' and actor = 'server'";

/// What tells a machine from others, as its kernel and firmware say it.
fn machine(directory: &Path, firmware: Option<&str>, boot: &str) -> Result<PathBuf> {
    let root = directory.join(boot);
    for path in ["etc", "sys/class/dmi/id", "proc/sys/kernel/random"] {
        fs::create_dir_all(root.join(path))?;
    }
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    fs::write(root.join("proc/sys/kernel/random/boot_id"), format!("{}\n", Uuid::new_v4()))?;
    if let Some(firmware) = firmware {
        fs::write(root.join("sys/class/dmi/id/product_uuid"), format!("{firmware}\n"))?;
    }
    Ok(root)
}

fn options(name: &str, machine: &Path, state_dir: Option<PathBuf>) -> AgentOptions {
    AgentOptions {
        name: name.into(),
        interval: Duration::from_secs(1),
        environment: vec![("PROCFLEET_AGENT_FACTS_ROOT", machine.display().to_string())],
        state_dir,
        ..AgentOptions::default()
    }
}

/// Copies a directory as an image of the machine would.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    // A file may be gone between two looks: it is a running agent's.
    ensure!(to.join("identity/identity.json").exists(), "cp ended with {status}");
    Ok(())
}

fn moments(records: &[Record]) -> BTreeSet<Timestamp> {
    let moment = |record: &Record| match record {
        Record::Report(report) => Some(report.sampled_at),
        Record::Gap(_) => None,
    };
    records.iter().filter_map(moment).collect()
}

/// Reports of `records` that are not of `others` and are in the database.
async fn stored(
    connection: &mut PgConnection,
    records: &[Record],
    others: &[Record],
) -> Result<usize> {
    let only: Vec<Timestamp> = moments(records).difference(&moments(others)).copied().collect();
    ensure!(only.len() >= 5, "{} reports of its own prove nothing", only.len());
    let query = "select count(*) from host_samples where sampled_at = any ($1)";
    let found: i64 = sqlx::query_scalar(query).bind(only).fetch_one(connection).await?;
    Ok(usize::try_from(found)?)
}

async fn clone_detected(fleet: &Fleet, api_key: &str, host_id: Uuid) -> Result<bool> {
    let host = fleet.server.get(&format!("/v1/hosts/{host_id}"), api_key).await?;
    let host: serde_json::Value = serde_json::from_str(&host)?;
    Ok(host["clone_detected_at"].is_string())
}

#[tokio::test]
async fn a_copy_that_runs_beside_the_original_is_seen_and_nothing_of_it_is_stored() -> Result<()> {
    let fleet = Fleet::start("live-clone").await?;
    let directory = Directory::create("live-clone-machines")?;
    let mut database = fleet.connect().await?;
    let api_key = fleet.deployment.create_api_key("viewer").await?;
    let admin_key = fleet.deployment.create_api_key("admin").await?;
    let token = fleet.deployment.create_token("original", &[]).await?;
    let machines =
        [machine(directory.path(), None, "original")?, machine(directory.path(), None, "copy")?];
    let mut original = AgentProcess::start(options("original", &machines[0], None), &token).await?;
    let host_id = original.host_id()?;
    wait_for_reports(&mut database, &mut original, 3).await?;
    let state = directory.path().join("state");
    copy(&original.state_dir(), &state)?;
    let mut copy = AgentProcess::create(options("copy", &machines[1], Some(state.clone())))?;
    copy.run()?;
    eventually(DEADLINE, "the conflict is seen", async || {
        copy.check_alive()?;
        original.check_alive()?;
        ensure!(clone_detected(&fleet, &api_key, host_id).await?, "not in REST");
        Ok(())
    })
    .await
    .with_context(|| copy.log())?;
    eventually(DEADLINE * 2, "the copy is told", async || {
        copy.check_alive()?;
        ensure!(copy.log().contains("another machine reports with this host's identity"));
        Ok(())
    })
    .await
    .with_context(|| copy.log())?;
    // The original may crash and come back: the copy does not slip in.
    original.kill()?;
    let before = report_count(&mut database, host_id).await?;
    original.run()?;
    wait_for_reports(&mut database, &mut original, before + 3).await?;
    copy.terminate().await?;
    let goodbye = "select count(goodbye) from heartbeats where host_id = $1";
    assert_eq!(
        number(&mut database, goodbye, host_id).await?,
        0,
        "the copy's goodbye is not the host's"
    );
    assert_eq!(copy.host_id()?, host_id, "nobody took its identity away");

    let records = settle(&mut database, &mut original).await?;
    let compared = oracle::compare(&mut database, &records).await?;
    assert_eq!(compared.gaps, 0);
    let of_copy = spooled_records(&state.join("spool"), host_id)?;
    assert_eq!(stored(&mut database, &of_copy, &records).await?, 0, "samples of two machines");
    assert_eq!(one(&mut database, DETECTED).await?, 1);
    eventually(DEADLINE, "operators are told", async || {
        let alerts =
            "select count(*) from alerts where host_id = $1 and rule = 'host_clone_detected'";
        ensure!(number(&mut database, alerts, host_id).await? == 1, "no alert");
        Ok(())
    })
    .await?;
    let metric = "procfleet_ingest_clones_detected_total";
    assert!((fleet.server.metric(&admin_key, metric, "").await? - 1.0).abs() < 0.1);
    Ok(())
}

#[tokio::test]
async fn a_host_that_crashed_and_booted_again_is_no_clone() -> Result<()> {
    let fleet = Fleet::start("reboot").await?;
    let directory = Directory::create("reboot-machine")?;
    let mut database = fleet.connect().await?;
    let token = fleet.deployment.create_token("reboot", &[]).await?;
    let root = machine(directory.path(), None, "machine")?;
    let mut agent = AgentProcess::start(options("reboot", &root, None), &token).await?;
    let host_id = agent.host_id()?;
    wait_for_reports(&mut database, &mut agent, 2).await?;
    for planned in [false, true, false] {
        if planned {
            agent.terminate().await?;
        } else {
            agent.kill()?;
        }
        machine(directory.path(), None, "machine")?;
        let before = report_count(&mut database, host_id).await?;
        agent.run()?;
        wait_for_reports(&mut database, &mut agent, before + 3).await?;
    }
    assert_eq!(one(&mut database, DETECTED).await?, 0);
    assert_eq!(one(&mut database, "select count(*) from clone_conflicts").await?, 0);
    let records = settle(&mut database, &mut agent).await?;
    assert_eq!(oracle::compare(&mut database, &records).await?.gaps, 0);
    Ok(())
}

#[tokio::test]
async fn an_image_of_a_running_machine_becomes_a_host_of_its_own() -> Result<()> {
    let fleet = Fleet::start("image-clone").await?;
    let directory = Directory::create("image-machines")?;
    let mut database = fleet.connect().await?;
    let token = fleet.deployment.create_token("golden", &[]).await?;
    let kept = directory.path().join("token");
    fs::copy(&token, &kept)?;
    let machines = [
        machine(directory.path(), Some(ONE), "golden")?,
        machine(directory.path(), Some(OTHER), "image")?,
    ];
    let mut golden = AgentProcess::start(options("golden", &machines[0], None), &token).await?;
    let host_id = golden.host_id()?;
    wait_for_reports(&mut database, &mut golden, 3).await?;
    let state = directory.path().join("state");
    copy(&golden.state_dir(), &state)?;

    // Without a token it says what it is, sends nothing, and loses nothing.
    let mut mute = AgentProcess::create(options("mute", &machines[1], Some(state.clone())))?;
    mute.run()?;
    eventually(DEADLINE, "the image stops and says why", async || {
        ensure!(mute.log().contains("procfleet-agent rebind"), "{}", mute.log());
        ensure!(mute.check_alive().is_err(), "still there");
        Ok(())
    })
    .await?;
    assert_eq!(mute.host_id()?, host_id);

    let mut with_token = options("image", &machines[1], Some(state.clone()));
    with_token.environment.push(("PROCFLEET_AGENT_TOKEN_FILE", kept.display().to_string()));
    let mut image = AgentProcess::create(with_token)?;
    image.run()?;
    eventually(DEADLINE, "the image has an identity of its own", async || {
        image.check_alive()?;
        ensure!(image.host_id()? != host_id);
        Ok(())
    })
    .await
    .with_context(|| image.log())?;
    wait_for_reports(&mut database, &mut image, 4).await?;
    assert_eq!(one(&mut database, "select count(*) from hosts").await?, 2);
    assert_eq!(one(&mut database, "select count(*) from clone_conflicts").await?, 0);
    for agent in [&mut golden, &mut image] {
        let records = settle(&mut database, agent).await?;
        assert_eq!(oracle::compare(&mut database, &records).await?.gaps, 0);
    }
    let aside =
        fs::read_dir(&state)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let aside: Vec<String> = aside.filter(|name| name.contains(".cloned-")).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    Ok(())
}

#[tokio::test]
async fn a_machine_installed_anew_is_the_host_it_was_with_its_history() -> Result<()> {
    let fleet = Fleet::start("reinstalled").await?;
    let directory = Directory::create("reinstalled-machine")?;
    let mut database = fleet.connect().await?;
    let first_token = fleet.deployment.create_token("first", &[]).await?;
    let rival_token = fleet.deployment.create_token("rival", &["--same-machine"]).await?;
    let token = fleet.deployment.create_token("reinstall", &["--same-machine"]).await?;
    let root = machine(directory.path(), Some(ONE), "before")?;
    let mut before = AgentProcess::start(options("before", &root, None), &first_token).await?;
    let host_id = before.host_id()?;
    wait_for_reports(&mut database, &mut before, 5).await?;
    let old_records = settle(&mut database, &mut before).await?;

    // While the host lives, nobody becomes it.
    let rival = AgentProcess::enroll(options("rival", &root, None), &rival_token).await?;
    assert_ne!(rival.host_id()?, host_id);
    rival.say_goodbye("uninstall").await?;

    before.say_goodbye("uninstall").await?;
    let root = machine(directory.path(), Some(ONE), "after")?;
    fs::write(root.join("etc/machine-id"), "fedcba9876543210fedcba9876543210\n")?;
    let mut after = AgentProcess::start(options("after", &root, None), &token).await?;
    assert_eq!(after.host_id()?, host_id, "it is the host heard of last");
    let had = report_count(&mut database, host_id).await?;
    wait_for_reports(&mut database, &mut after, had + 5).await?;
    let new_records = settle(&mut database, &mut after).await?;

    let moments: Vec<Timestamp> =
        moments(&old_records).union(&moments(&new_records)).copied().collect();
    let query = "select count(*) from host_samples where host_id = $1 and sampled_at = any ($2)";
    let stored: i64 =
        sqlx::query_scalar(query).bind(host_id).bind(&moments).fetch_one(&mut database).await?;
    assert_eq!(usize::try_from(stored)?, moments.len());
    assert!(moments.len() >= 10, "{} reports", moments.len());
    // What was installed there before is nobody now.
    before.run()?;
    eventually(DEADLINE, "the old installation is refused", async || {
        ensure!(before.log().contains("certificate_revoked"), "{}", before.log());
        Ok(())
    })
    .await
}
