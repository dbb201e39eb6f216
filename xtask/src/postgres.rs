//! PostgreSQL clusters under `.procfleet/`: the durable TimescaleDB of `up` and `bench`, and the
//! throw-away ones that tests use.
//!
//! Where the programs come from is `installation`'s business, running a cluster is `cluster`'s.
//! Clusters listen on the loopback address only, always ask for a random password, and never
//! touch a cluster that Debian's packages created. We must not run `PostgreSQL` as root: as root
//! it runs as the user `postgres`, otherwise as ourselves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::project::{Project, free_bytes, random_hex, write_private};

pub(crate) mod cluster;
pub(crate) mod installation;

use cluster::{Cluster, Purpose};
use installation::{Engine, Installation};

/// A throw-away cluster goes to memory when there is this much of it.
const SHARED_MEMORY_BYTES: u64 = 6 << 30;

/// Both throw-away clusters; stopped and deleted when dropped.
pub(crate) struct TestClusters {
    project_file: PathBuf,
    timescaledb: Cluster,
    postgresql: Cluster,
}

/// What is written down so that a later run can clean up after one that was killed.
#[derive(Deserialize, Serialize)]
struct Abandoned {
    owner: crate::process::Recorded,
    clusters: Vec<Cluster>,
}

impl TestClusters {
    /// Starts both. They live as long as this value, or until `cargo xtask db down` if released.
    pub(crate) fn start(project: &Project) -> Result<Self> {
        project.prepare()?;
        reap(project)?;
        let timescaledb = throw_away(project, Engine::TimescaleDb)?;
        let postgresql = match throw_away(project, Engine::PostgreSql) {
            Ok(cluster) => cluster,
            Err(error) => {
                timescaledb.destroy()?;
                return Err(error);
            }
        };
        let project_file = project.private(&format!("test-clusters.{}.json", std::process::id()));
        let clusters = Self { project_file, timescaledb, postgresql };
        clusters.record(crate::process::Recorded::own()?)?;
        Ok(clusters)
    }

    /// The variables that tests read, with their values.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("PROCFLEET_TEST_TIMESCALEDB_URL", self.timescaledb.url("postgres")),
            ("PROCFLEET_TEST_POSTGRESQL_URL", self.postgresql.url("postgres")),
        ]
    }

    /// The URL of a new empty TimescaleDB database.
    pub(crate) fn create_timescaledb(&self, name: &str) -> Result<String> {
        self.timescaledb.create_database(name)?;
        Ok(self.timescaledb.url(name))
    }

    /// Leaves them running for `db`; the record's owner is then the TimescaleDB server itself.
    pub(crate) fn release(self, project: &Project) -> Result<()> {
        let this = std::mem::ManuallyDrop::new(self);
        crate::project::remove(&this.project_file)?;
        let clusters = vec![this.timescaledb.clone(), this.postgresql.clone()];
        let record = Abandoned { owner: this.timescaledb.process.clone(), clusters };
        write_private(&project.private("db.json"), &serde_json::to_vec_pretty(&record)?)
    }

    fn record(&self, owner: crate::process::Recorded) -> Result<()> {
        let clusters = vec![self.timescaledb.clone(), self.postgresql.clone()];
        write_private(&self.project_file, &serde_json::to_vec(&Abandoned { owner, clusters })?)
    }
}

impl Drop for TestClusters {
    fn drop(&mut self) {
        for cluster in [&self.timescaledb, &self.postgresql] {
            if let Err(error) = cluster.destroy() {
                eprintln!("warning: {error:#}");
            }
        }
        drop(crate::project::remove(&self.project_file));
    }
}

/// The clusters that `db` left running, if they still do: their URLs.
pub(crate) fn released(project: &Project) -> Result<Option<[(&'static str, String); 2]>> {
    let Ok(text) = std::fs::read(project.private("db.json")) else { return Ok(None) };
    let record: Abandoned = serde_json::from_slice(&text).context("parse .procfleet/db.json")?;
    let [timescaledb, postgresql] = &record.clusters[..] else { return Ok(None) };
    if !timescaledb.process.is_running() || !postgresql.process.is_running() {
        return Ok(None);
    }
    Ok(Some([
        ("PROCFLEET_TEST_TIMESCALEDB_URL", timescaledb.url("postgres")),
        ("PROCFLEET_TEST_POSTGRESQL_URL", postgresql.url("postgres")),
    ]))
}

/// Stops what `db` left running. Says whether there was something.
pub(crate) fn stop_released(project: &Project) -> Result<bool> {
    destroy_recorded(&project.private("db.json"))
}

/// Whether a test run is using its clusters now.
pub(crate) fn has_runs(project: &Project) -> Result<bool> {
    reap(project)?;
    Ok(!records(project)?.is_empty())
}

/// The files that test runs leave while they run.
fn records(project: &Project) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(project.private("")).context("read .procfleet")?;
    let is_record = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.starts_with("test-clusters.") && path.extension().is_some_and(|end| end == "json")
        })
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_record).collect())
}

/// Stops and deletes the clusters of test runs that were killed.
fn reap(project: &Project) -> Result<()> {
    for path in records(project)? {
        let record: Abandoned = serde_json::from_slice(&std::fs::read(&path)?)
            .with_context(|| format!("parse {}: delete it if it is damaged", path.display()))?;
        if !record.owner.is_running() {
            destroy_recorded(&path)?;
        }
    }
    Ok(())
}

fn destroy_recorded(path: &Path) -> Result<bool> {
    let Ok(text) = std::fs::read(path) else { return Ok(false) };
    let record: Abandoned =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    for cluster in &record.clusters {
        cluster.destroy()?;
    }
    crate::project::remove(path)?;
    Ok(true)
}

/// A new cluster for tests, in memory when there is room.
fn throw_away(project: &Project, engine: Engine) -> Result<Cluster> {
    let installation = Installation::provide(project, engine)?;
    let name = format!("procfleet-{}", random_hex()?);
    let memory = Path::new("/dev/shm");
    let home = if installation.sees_shared_memory()
        && free_bytes(memory).is_ok_and(|free| free >= SHARED_MEMORY_BYTES)
    {
        memory.join(&name)
    } else {
        installation.data_home(project).join(&name)
    };
    let step = crate::progress::Step::start(format!("start a throw-away {}", engine.title()));
    let cluster =
        Cluster::create(project, installation, home, &Purpose::ThrowAway, &random_hex()?)?;
    step.done(&format!("port {}", cluster.port));
    Ok(cluster)
}

/// The durable TimescaleDB called `name`, created when it is not there, with a database of ours.
pub(crate) fn durable(project: &Project, name: &str, port: Option<u16>) -> Result<Cluster> {
    let installation = Installation::provide(project, Engine::TimescaleDb)?;
    let home = installation.data_home(project).join(name);
    let password_file = project.private(&format!("{name}.password"));
    let password = if let Ok(password) = std::fs::read_to_string(&password_file) {
        password.trim().to_owned()
    } else {
        let password = random_hex()?;
        write_private(
            &password_file,
            format!(
                "{password}
"
            )
            .as_bytes(),
        )?;
        password
    };
    let purpose = Purpose::Durable { log: project.log(name), port };
    let cluster = Cluster::create(project, installation, home, &purpose, &password)?;
    cluster.create_database("procfleet")?;
    Ok(cluster)
}
