//! One running cluster: created when its directory is new, started when it does not run.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::installation::Installation;
use crate::process::{Recorded, start_detached};
use crate::progress::poll;
use crate::project::{Project, remove, require_space, write_private};
use crate::run::{captured, tail};

/// The cluster's superuser; nobody else exists in it.
const USER: &str = "procfleet";
/// Recovery after a crash may take its time.
const START_PATIENCE: Duration = Duration::from_mins(2);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What a cluster is for.
pub(crate) enum Purpose {
    /// Keeps its data through everything.
    Durable {
        /// Where the server's log goes.
        log: PathBuf,
        /// The port it had last time.
        port: Option<u16>,
    },
    /// For tests: fast, deleted afterwards.
    ThrowAway,
}

/// A running cluster, as it is written down.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Cluster {
    pub(crate) process: Recorded,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    installation: Installation,
    /// Directory with `data/`, as seen from outside.
    home: PathBuf,
    password: String,
}

impl Cluster {
    /// Creates the cluster if its home is empty, and starts it.
    pub(crate) fn create(
        project: &Project,
        installation: Installation,
        home: PathBuf,
        purpose: &Purpose,
        password: &str,
    ) -> Result<Self> {
        let data = home.join("data");
        if !data.join("PG_VERSION").exists() {
            require_space(project.root.as_path(), 2, "The database")?;
            initialise(&installation, &home, purpose, password)?;
        }
        let (port, log) = match purpose {
            Purpose::Durable { log, port } => (free_port(*port)?, log.clone()),
            Purpose::ThrowAway => (free_port(None)?, home.join("log")),
        };
        let settings = settings(&installation, purpose, port);
        fs::write(data.join("procfleet.conf"), settings).context("write procfleet.conf")?;
        // Left behind by a crash; the recorded process is known not to run.
        let log_before = fs::metadata(&log).map_or(0, |stat| stat.len());
        let process = start_detached(
            installation.command("postgres").arg("-D").arg(installation.inside(&data)),
            &log,
        )?;
        let cluster = Self { process, port, installation, home, password: password.to_owned() };
        if let Err(error) = cluster.wait_until_ready() {
            let text = fs::read(&log).unwrap_or_default();
            let new = &text[usize::try_from(log_before)?.min(text.len())..];
            let shown = tail(&String::from_utf8_lossy(new), 15);
            drop(cluster.stop());
            bail!("{error:#}; its log ends with:\n{shown}");
        }
        Ok(cluster)
    }

    /// For clients, with the password in it: for the environment, never for argv or logs.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Makes a database unless it exists.
    pub(crate) fn create_database(&self, name: &str) -> Result<()> {
        let mut command = self.installation.command("createdb");
        command
            .env("PGPASSWORD", &self.password)
            .args(["--host=127.0.0.1", &format!("--port={}", self.port), "--username", USER])
            .args(["--maintenance-db=postgres", name]);
        match captured(&mut command) {
            Err(error) if !format!("{error}").contains("already exists") => {
                Err(error).with_context(|| format!("create the database {name}"))
            }
            _ => Ok(()),
        }
    }

    /// Fast shutdown: clients are disconnected, the data is checkpointed.
    pub(crate) fn stop(&self) -> Result<()> {
        if self.process.stop(Signal::INT, STOP_PATIENCE)? {
            eprintln!("warning: the database had to be killed; it recovers at its next start");
        }
        Ok(())
    }

    /// Stops at once and deletes the data.
    pub(crate) fn destroy(&self) -> Result<()> {
        self.process.stop(Signal::QUIT, STOP_PATIENCE)?;
        remove(&self.home)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let status = self.home.join("data/postmaster.pid");
        let ready = poll(START_PATIENCE, || {
            if !self.process.is_running() {
                bail!("the database ended while it started");
            }
            // Line 8 says it (see miscadmin.h); the file of a crashed predecessor has another pid.
            let text = fs::read_to_string(&status).unwrap_or_default();
            let pid = text.lines().next().and_then(|pid| pid.trim().parse().ok());
            let word = text.lines().nth(7).map(str::trim);
            Ok((pid == Some(self.process.pid) && word == Some("ready")).then_some(()))
        })?;
        ready.context("the database did not become ready")
    }
}

fn initialise(
    installation: &Installation,
    home: &Path,
    purpose: &Purpose,
    password: &str,
) -> Result<()> {
    remove(&home.join("data"))?;
    if let Some(parent) = home.parent() {
        fs::create_dir_all(parent)?;
    }
    installation.create_dir(home)?;
    let password_file = home.join("password");
    write_private(&password_file, password.as_bytes())?;
    installation.give(&password_file)?;
    // SCRAM's 4096 rounds per connection would be most of what an unoptimised test client does.
    let (authentication, sync) = match purpose {
        Purpose::Durable { .. } => ("scram-sha-256", "--data-checksums"),
        Purpose::ThrowAway => ("password", "--no-sync"),
    };
    let data = home.join("data");
    captured(
        installation
            .command("initdb")
            .args(["--encoding=UTF8", "--locale=C.UTF-8", sync, "--username", USER])
            .arg(format!("--auth={authentication}"))
            .arg(format!("--pwfile={}", installation.inside(&password_file).display()))
            .arg("-D")
            .arg(installation.inside(&data)),
    )
    .context("create the database cluster")?;
    remove(&password_file)?;
    let main = data.join("postgresql.conf");
    let text = fs::read_to_string(&main)?;
    fs::write(&main, format!("{text}\ninclude 'procfleet.conf'\n"))?;
    fs::write(data.join("procfleet.conf"), "")?;
    installation.give(&data.join("procfleet.conf"))
}

/// The whole configuration that differs from PostgreSQL's defaults; rewritten at every start.
fn settings(installation: &Installation, purpose: &Purpose, port: u16) -> String {
    let mut text = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 300\nlog_timezone = 'UTC'\ntimezone = 'UTC'\n"
    );
    if installation.has_timescaledb() {
        text += "shared_preload_libraries = 'timescaledb'\ntimescaledb.telemetry_level = off\n";
    }
    match purpose {
        Purpose::Durable { .. } => {
            text += "shared_buffers = 256MB\nmax_wal_size = 2GB\nwal_compression = on\n";
        }
        Purpose::ThrowAway => {
            text += "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\nautovacuum = off\nshared_buffers = 128MB\nmax_wal_size = 512MB\nmin_wal_size = 64MB\nwal_level = minimal\nmax_wal_senders = 0\n";
            if installation.has_timescaledb() {
                // Its scheduler holds connections, and CREATE DATABASE … TEMPLATE then fails.
                text += "timescaledb.max_background_workers = 0\n";
            }
        }
    }
    text
}

/// The wished port if it is free, else any.
fn free_port(wished: Option<u16>) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match wished.map(bind) {
        Some(Ok(listener)) => listener,
        _ => bind(0).context("find a free port")?,
    };
    Ok(listener.local_addr()?.port())
}
