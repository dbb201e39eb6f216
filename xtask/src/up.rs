//! `cargo xtask up`: from a fresh checkout to this host's own processes in the database.
//!
//! Each step finds out whether its work is already done, so a second `up` is quick, repairs what
//! has died, and restarts what was rebuilt. The agent samples every 10 s instead of every 30 so
//! that the first look is worth it. Both doors listen on the loopback address only.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::postgres;
use crate::process;
use crate::progress::Step;
use crate::project::{Project, require_space};
use crate::run::{captured, cargo, shown, watched};
use crate::state::State;
use crate::web;

mod agent;
mod foreground;
mod server;

/// Set it to use a database of yours instead of a private cluster.
pub(crate) const DATABASE_VARIABLE: &str = "PROCFLEET_DATABASE_URL";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Return when everything runs, instead of staying attached until Ctrl-C.
    #[arg(long)]
    detach: bool,
    /// Where agents connect [default: as last time, first 7443].
    #[arg(long)]
    agent_port: Option<u16>,
    /// Where people connect [default: as last time, first 7080].
    #[arg(long)]
    operator_port: Option<u16>,
}

/// Which parts this run started; Ctrl-C stops these and leaves the others.
#[derive(Default)]
struct Started {
    database: bool,
    server: bool,
    agent: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let interrupted = foreground::Interrupt::install()?;
    let lock = project.lock()?;
    let mut state = State::load(project)?;
    choose_ports(&mut state, arguments)?;
    let mut started = Started::default();
    let outcome = bring_up(project, &mut state, &mut started, &interrupted);
    if let Err(error) = outcome {
        // What runs stays: the next `up` goes on from there, and `down` stops it.
        eprintln!("Logs: {} (or `cargo xtask logs`)", project.private("log").display());
        return Err(error);
    }
    drop(lock);
    print_summary(project, &state);
    if arguments.detach {
        println!("Everything runs in the background. `cargo xtask down` stops it.");
        return Ok(ExitCode::SUCCESS);
    }
    foreground::stay(project, &state, &started, &interrupted)
}

fn bring_up(
    project: &Project,
    state: &mut State,
    started: &mut Started,
    interrupted: &foreground::Interrupt,
) -> Result<()> {
    build(project, interrupted)?;
    started.database = ensure_database(project, state)?;
    interrupted.check()?;
    let url = database_url(state)?;
    started.server = server::ensure(project, state, &url)?;
    interrupted.check()?;
    let key = server::ensure_admin_key(project, state, &url)?;
    agent::ensure_enrolled(project, state, &url)?;
    interrupted.check()?;
    let before = agent::sampled_before(project, state, &key);
    started.agent = agent::ensure(project, state)?;
    agent::wait_for_sample(project, state, &key, before.as_ref(), interrupted)
}

/// A running server keeps its ports unless others are asked for.
fn choose_ports(state: &mut State, arguments: &Arguments) -> Result<()> {
    let running = state.server.as_ref().is_some_and(|part| part.process.is_running());
    let before = (state.agent_port, state.operator_port);
    state.agent_port = arguments.agent_port.unwrap_or(state.agent_port);
    state.operator_port = arguments.operator_port.unwrap_or(state.operator_port);
    if state.agent_port == state.operator_port {
        bail!("the agent door and the operator door need two ports: both are {}", state.agent_port);
    }
    for (port, before, flag) in [
        (state.agent_port, before.0, "--agent-port"),
        (state.operator_port, before.1, "--operator-port"),
    ] {
        let ours = running && port == before;
        if !ours
            && let Err(error) = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port))
        {
            let holder = process::listener(port).unwrap_or_else(|| "another process".to_owned());
            bail!(
                "port {port} is taken by {holder} ({error}): stop it, or choose another port with {flag}"
            );
        }
    }
    Ok(())
}

fn build(project: &Project, interrupted: &foreground::Interrupt) -> Result<()> {
    if !project.target().join("release").exists() {
        require_space(&project.target(), 4, "The release build")?;
    }
    apt::ensure_clang()?;
    web::ensure(project)?;
    let step = Step::start("build procfleet-server and procfleet-agent (release)");
    let mut command = cargo(project);
    command.args(["build", "--release", "--locked", "--package=collector-api", "--package=agent"]);
    // Cargo counts for terminals only, unless told otherwise.
    command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "120");
    let note = step.note();
    let built = watched(command.arg("--bins"), |line| {
        if let Some(progress) = build_progress(line) {
            note.set(&progress);
        }
    });
    // Ctrl-C reaches cargo, too: that it ended is then no fault of its own.
    interrupted.check()?;
    built.map_err(|error| match build_hint(&format!("{error:#}")) {
        Some(hint) => error.context(hint),
        None => error.context("the build failed"),
    })?;
    step.done("");
    Ok(())
}

/// "317 of 402, sqlx-core, rustls" from cargo's progress bar, `None` for its other lines.
fn build_progress(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Building [")?.1.split_once("] ")?;
    let (count, crates) = rest.split_once(':').unwrap_or((rest, ""));
    let (done, all) = count.split_once('/')?;
    let crates = crates.split('\u{1b}').next().unwrap_or_default().trim();
    Some(format!("{} of {}, {crates}", done.trim(), all.trim()))
}

/// What is missing on this machine, if the compiler's words tell.
fn build_hint(words: &str) -> Option<&'static str> {
    if ["linker `cc` not found", "failed to find tool", "is `cc` installed"]
        .iter()
        .any(|complaint| words.contains(complaint))
    {
        Some("the build needs a C compiler besides Rust (apt-get install build-essential)")
    } else if words.contains("No space left on device") {
        Some("the build ran out of disk")
    } else {
        None
    }
}

/// Says whether it was started now.
fn ensure_database(project: &Project, state: &mut State) -> Result<bool> {
    if std::env::var_os(DATABASE_VARIABLE).is_some() {
        if state.database.as_ref().is_some_and(|database| database.process.is_running()) {
            bail!(
                "the private database is running, but {DATABASE_VARIABLE} names another: run `cargo xtask down` first, or unset it"
            );
        }
        state.database = None;
        Step::start("database").done(&format!("the one in {DATABASE_VARIABLE}"));
        return Ok(false);
    }
    if let Some(database) = state.database.as_ref().filter(|database| database.process.is_running())
    {
        Step::start("database").done(&format!("already runs on port {}", database.port));
        return Ok(false);
    }
    let port = state.database.as_ref().map(|database| database.port);
    let installation = postgres::installation::Engine::TimescaleDb;
    postgres::installation::Installation::provide(project, installation)?;
    let step = Step::start("start the database");
    let database = postgres::durable(project, "database", port)?;
    step.done(&format!("TimescaleDB on port {}", database.port));
    state.database = Some(database);
    state.save(project)?;
    Ok(true)
}

fn database_url(state: &State) -> Result<String> {
    match &state.database {
        Some(database) => Ok(database.url("procfleet")),
        None => std::env::var(DATABASE_VARIABLE)
            .with_context(|| format!("{DATABASE_VARIABLE} is not readable text")),
    }
}

fn print_summary(project: &Project, state: &State) {
    let key = server::admin_key_file(project);
    let key = key.strip_prefix(&project.root).unwrap_or(&key).display();
    let operator = format!("http://127.0.0.1:{}", state.operator_port);
    let host = agent::host_reference(project);
    println!(
        "
Procfleet watches this host.

  web page     {operator}   (log in with the admin key)
  admin key    {key}
  agent door   https://127.0.0.1:{}
  logs         .procfleet/log/   (cargo xtask logs [server|agent|database] [-f])

What eats the CPU of this host? (also sort=memory, disk, network; the agent samples every 10 s)

  curl -s -H \"Authorization: Bearer $(cat {key})\" '{operator}/v1/hosts/{host}/processes?sort=cpu&limit=5'
",
        state.agent_port,
    );
}

/// Where the release build put a program.
fn binary(project: &Project, name: &str) -> std::path::PathBuf {
    project.target().join("release").join(name)
}

/// A path as a TOML string: JSON's escapes are TOML's.
fn toml_string(path: &std::path::Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// Runs one of our programs to its end, with its output shown only if it fails.
fn run_quietly(command: &mut std::process::Command, purpose: &str) -> Result<()> {
    let step = Step::start(purpose);
    captured(command).with_context(|| format!("cannot {purpose}"))?;
    step.done("");
    Ok(())
}

/// What the server says about this host, `None` if it does not.
pub(crate) fn this_host(project: &Project, state: &State) -> Option<serde_json::Value> {
    let key = std::fs::read_to_string(server::admin_key_file(project)).ok()?;
    agent::ask(state, &agent::host_id(project)?, key.trim()).ok()?
}

/// For callers that want cargo's own output: `bench`.
pub(crate) fn build_shown(project: &Project, arguments: &[&str]) -> Result<()> {
    apt::ensure_clang()?;
    let status = shown(cargo(project).args(["build", "--release", "--locked"]).args(arguments))?;
    if !status.success() {
        bail!("the release build failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_of_cargo_is_read() {
        let bar = "    Building [====>     ] 317/402: sqlx-core, rustls(build)\u{1b}[K";
        assert_eq!(build_progress(bar).unwrap(), "317 of 402, sqlx-core, rustls(build)");
        assert_eq!(build_progress("    Building [>  ] 0/2").unwrap(), "0 of 2, ");
        assert_eq!(build_progress("   Compiling serde v1.0.228"), None);
    }

    #[test]
    fn only_a_missing_compiler_is_blamed() {
        assert!(build_hint("error: linker `cc` not found").unwrap().contains("C compiler"));
        assert_eq!(build_hint("error[E0308]: mismatched types"), None);
        assert_eq!(build_hint("cargo ended with signal: 2 (SIGINT):"), None);
    }
}
