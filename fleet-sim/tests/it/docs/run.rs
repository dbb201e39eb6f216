//! Runs the pages' commands: as an operator would, in a directory of its own, against real programs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::address::own_address;
use fleet_sim::agent::AgentProcess;
use fleet_sim::child::{self, Child, Directory};
use fleet_sim::eventually::eventually;
use fleet_sim::postgres::PostgresCluster;
use fleet_sim::server::{Doors, path_text};
use fleet_sim::simulated::SimulatedAgent;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::blocks::Page;
use crate::fleet::{DEADLINE, Fleet, now, wait_for_deltas};

/// Page and name of every test that blocks may ask for.
pub(super) const TESTS: &[(&str, &str)] = &[
    ("README.md", "readme"),
    ("README.md", "terminal"),
    ("docs/getting-started.md", "database"),
    ("docs/getting-started.md", "prepare"),
    ("docs/getting-started.md", "serve"),
    ("docs/getting-started.md", "key"),
    ("docs/getting-started.md", "token"),
    ("docs/getting-started.md", "enrol"),
    ("docs/getting-started.md", "agent"),
    ("docs/getting-started.md", "look"),
    ("docs/api-tour.md", "tour"),
    ("docs/install-at-scale.md", "tokens"),
    ("docs/migrating.md", "migrate"),
    ("docs/operations.md", "operate"),
    ("docs/operations.md", "backup"),
    ("docs/operations.md", "restore"),
    ("docs/operations.md", "restored"),
    ("docs/operations.md", "rollout"),
    ("docs/operations.md", "retention"),
    ("docs/operations.md", "rotate"),
    ("docs/operations.md", "activate"),
    ("docs/operations.md", "finish"),
    ("docs/operations.md", "hosts"),
    ("docs/troubleshooting.md", "operate"),
    ("docs/troubleshooting.md", "agent-help"),
];

/// A directory and variables; what an operator's terminal has.
struct Terminal<'a> {
    directory: &'a Path,
    variables: Vec<(&'static str, String)>,
}

impl Terminal<'_> {
    fn command(&self, script: &str) -> Result<Command> {
        let programs = child::binary("procfleet-server")?;
        let programs = programs.parent().context("a directory")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = child::command(Path::new("sh"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROCFLEET_")) {
            command.env_remove(name);
        }
        command.env("PATH", format!("{}:{path}", programs.display())).current_dir(self.directory);
        command.envs(self.variables.iter().cloned()).args(["-euc", script]);
        Ok(command)
    }

    /// Runs it to its end; what it printed. Each command must succeed.
    fn run(&self, page: &Page, test: &str) -> Result<String> {
        let mut script = page.script(test);
        let here = self.variables.iter().find(|(name, _)| *name == "PROCFLEET_URL");
        if let Some((_, address)) = here {
            script = script.replace("http://127.0.0.1:7080", address);
        }
        let output = self.command(&script)?.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout);
        ensure!(
            output.status.success(),
            "{} {test}: {}\n{script}\n{said}\n{}",
            page.path,
            output.status,
            text(&output.stderr)
        );
        Ok(said)
    }

    /// Starts it, until the test ends.
    fn start(&self, page: &Page, test: &str) -> Result<Child> {
        // The shell's one command takes its place, and so the signal.
        let script = format!("exec {}", page.script(test));
        Child::spawn(test, self.directory, &mut self.command(&script)?)
    }
}

/// What the commands of a server's machine need.
fn server_variables(
    directory: &Path,
    url: &str,
    doors: Doors,
) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("PROCFLEET_DATABASE_URL", url.to_owned()),
        ("PROCFLEET_CA_KEY_FILE", path_text(&directory.join("ca.key"))?.to_owned()),
        ("PROCFLEET_AGENT_DOOR__LISTEN", doors.agent.to_string()),
        ("PROCFLEET_AGENT_DOOR__NAMES", own_address().to_string()),
        ("PROCFLEET_OPERATOR_DOOR__LISTEN", doors.operator.to_string()),
        ("PROCFLEET_URL", format!("http://{}", doors.operator)),
        ("PROCFLEET_API_KEY_FILE", path_text(&directory.join("admin.key"))?.to_owned()),
    ])
}

fn agent_variables(directory: &Path) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![("PROCFLEET_AGENT_STATE_DIR", path_text(&directory.join("state"))?.to_owned())])
}

/// A server, a terminal beside it, and the admin's key in both forms that the pages use.
struct Desk {
    fleet: Fleet,
    directory: Directory,
}

impl Desk {
    async fn start(name: &str) -> Result<Self> {
        let fleet = Fleet::start(name).await?;
        let directory = Directory::create(name)?;
        let key = fleet.deployment.create_api_key("admin").await?;
        let file = directory.path().join("admin.key");
        fs::write(&file, &key)?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        fs::write(directory.path().join("pf.header"), format!("Authorization: Bearer {key}\n"))?;
        fs::copy(
            fleet.deployment.directory.path().join("ca.key"),
            directory.path().join("ca.key"),
        )?;
        Ok(Self { fleet, directory })
    }

    fn terminal(&self) -> Result<Terminal<'_>> {
        let directory = self.directory.path();
        let (url, doors) = (&self.fleet.deployment.database_url, self.fleet.server.doors());
        Ok(Terminal { directory, variables: server_variables(directory, url, doors)? })
    }

    /// This machine, enrolled and known with what its processes use.
    async fn agent(&self) -> Result<AgentProcess> {
        let mut agent = self.fleet.agent("agent", Duration::from_millis(500), true).await?;
        wait_for_deltas(&mut self.fleet.connect().await?, &mut agent).await?;
        Ok(agent)
    }
}

/// A database as getting-started makes it, on a cluster of its own; and where it is.
async fn own_database(directory: &Path) -> Result<(PostgresCluster, SocketAddr, String)> {
    let cluster = PostgresCluster::start_new().await?;
    let address = cluster.address();
    let variables = vec![
        ("PGHOST", address.ip().to_string()),
        ("PGPORT", address.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
    ];
    Terminal { directory, variables }.run(&Page::read("docs/getting-started.md")?, "database")?;
    Ok((cluster, address, format!("postgres://procfleet:CHANGE-ME@{address}/procfleet")))
}

#[tokio::test]
async fn somebody_new_gets_started() -> Result<()> {
    let page = Page::read("docs/getting-started.md")?;
    let directory = Directory::create("getting-started")?;
    let (_cluster, _, url) = own_database(directory.path()).await?;
    let variables = server_variables(directory.path(), &url, Doors::free()?)?;
    let server = Terminal { directory: directory.path(), variables };
    server.run(&page, "prepare")?;
    let mut serving = server.start(&page, "serve")?;
    let address = server.variables.iter().find(|(name, _)| *name == "PROCFLEET_URL");
    let address = address.context("the address")?.1.clone();
    eventually(DEADLINE, "the server is ready", async || {
        serving.check_alive()?;
        let ready = Command::new("curl").args(["-sf", &format!("{address}/readyz")]).output()?;
        ensure!(ready.status.success(), "{ready:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    server.run(&page, "key")?;
    server.run(&page, "token")?;

    let variables = agent_variables(directory.path())?;
    let host = Terminal { directory: directory.path(), variables };
    host.run(&page, "enrol")?;
    let mut agent = host.start(&page, "agent")?;
    eventually(DEADLINE, "the culprit is shown", async || {
        agent.check_alive()?;
        let said = server.run(&page, "look")?;
        ensure!(said.contains("command_line"), "{said}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .with_context(|| agent.log_tail())
}

#[tokio::test]
async fn the_tour_of_the_api_can_be_made() -> Result<()> {
    let desk = Desk::start("api-tour").await?;
    let _agent = desk.agent().await?;
    desk.terminal()?.run(&Page::read("docs/api-tour.md")?, "tour")?;
    Ok(())
}

#[tokio::test]
async fn the_readme_is_true() -> Result<()> {
    let desk = Desk::start("docs-readme").await?;
    let _agent = desk.agent().await?;
    let page = Page::read("README.md")?;
    let private = desk.directory.path().join(".procfleet");
    fs::create_dir(&private)?;
    fs::copy(desk.directory.path().join("admin.key"), private.join("admin.key"))?;
    let said = desk.terminal()?.run(&page, "readme")?;
    ensure!(said.contains("command_line"), "{said}");

    let labels = ["--label", "env=test", "--label", "old=yes"];
    let token = desk.fleet.deployment.create_token("db", &labels).await?;
    let token = fs::read_to_string(token)?.parse()?;
    SimulatedAgent::enroll(&token, "db-01", 1, now()).await?;
    fs::write(desk.directory.path().join("top.json"), r#"{"profile":{"top":25}}"#)?;
    let said = desk.terminal()?.run(&page, "terminal")?;
    ensure!(said.contains("db-01") && said.contains("quarantine"), "{said}");
    Ok(())
}

#[tokio::test]
async fn tokens_for_many_hosts_and_for_those_of_the_old_system_are_made() -> Result<()> {
    let desk = Desk::start("docs-tokens").await?;
    desk.terminal()?.run(&Page::read("docs/install-at-scale.md")?, "tokens")?;
    desk.terminal()?.run(&Page::read("docs/migrating.md")?, "migrate")?;
    Ok(())
}

#[tokio::test]
async fn operators_can_do_what_they_read() -> Result<()> {
    let desk = Desk::start("docs-operate").await?;
    let mut agent = desk.agent().await?;
    let (terminal, page) = (desk.terminal()?, Page::read("docs/operations.md")?);
    terminal.run(&page, "operate")?;
    terminal.run(&Page::read("docs/troubleshooting.md")?, "operate")?;
    terminal.run(&page, "hosts")?;
    let said = terminal.run(&page, "rollout")?;
    ensure!(said.contains("env=test") && said.contains("canary"), "{said}");
    let said = terminal.run(&page, "retention")?;
    ensure!(said.contains("14 days"), "{said}");

    terminal.run(&page, "rotate")?;
    let mut connection = desk.fleet.connect().await?;
    for step in ["activate", "finish"] {
        eventually(DEADLINE, step, async || {
            agent.check_alive()?;
            // The minute that every server needs to notice, which these have no need of.
            let query =
                "update certificate_authorities set state_changed_at = state_changed_at - interval '2 min'";
            sqlx::query(AssertSqlSafe(query)).execute(&mut connection).await?;
            terminal.run(&page, step)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backup_can_be_restored() -> Result<()> {
    let page = Page::read("docs/operations.md")?;
    let directory = Directory::create("docs-backup")?;
    let (_cluster, address, url) = own_database(directory.path()).await?;
    let mut variables = server_variables(directory.path(), &url, Doors::free()?)?;
    let admin = |name: &str| format!("postgres://postgres@{address}/{name}");
    variables.push(("ADMIN_URL", admin("postgres")));
    variables.push(("RESTORED_URL", admin("procfleet_restored")));
    let mut terminal = Terminal { directory: directory.path(), variables };
    terminal.run(&Page::read("docs/getting-started.md")?, "prepare")?;
    let mut before = PgConnection::connect(&url).await?;
    terminal.run(&page, "backup")?;
    terminal.run(&page, "restore")?;
    let restored = url
        .replace("/procfleet", "/procfleet_restored")
        .replace("//procfleet_restored", "//procfleet");
    terminal.variables.retain(|(name, _)| *name != "PROCFLEET_DATABASE_URL");
    terminal.variables.push(("PROCFLEET_DATABASE_URL", restored.clone()));
    terminal.run(&page, "restored")?;
    let mut after = PgConnection::connect(&restored).await?;
    for query in [
        "select string_agg(authority_id::text, ' ' order by 1) from certificate_authorities",
        "select count(*)::text from pg_class where relnamespace = 'public'::regnamespace",
    ] {
        let one: String = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut before).await?;
        let other: String = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut after).await?;
        assert_eq!(one, other, "{query}");
    }
    Ok(())
}

#[test]
fn an_agent_says_what_it_works_by() -> Result<()> {
    let directory = Directory::create("docs-agent")?;
    let variables = agent_variables(directory.path())?;
    let terminal = Terminal { directory: directory.path(), variables };
    let said = terminal.run(&Page::read("docs/troubleshooting.md")?, "agent-help")?;
    ensure!(said.contains("the configuration is usable") && said.contains("COMMAND"), "{said}");
    Ok(())
}
