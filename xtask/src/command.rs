//! The list of commands: what each does in one line, and whose it is.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::project::Project;
use crate::{
    bench, ci, db, dist, down, fuzz, grafana, logs, openapi, packages, portable, sqlx, status,
    test, tidy, up, web,
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine: database, server, agent; this host is enrolled.
    Up(up::Arguments),
    /// Stop what `up` started; data and identity stay.
    Down(down::Arguments),
    /// What runs, where, and whether it is healthy.
    Status,
    /// Print the logs of the parts that `up` started.
    Logs(logs::Arguments),
    /// Run the whole test suite against throw-away databases.
    Test(test::Arguments),
    /// What CI runs: fmt, clippy, doc, tidy, test.
    Ci,
    /// Check the rules of the house: layering, sizes, migrations, generated files, licences.
    Tidy(tidy::Arguments),
    /// Regenerate `.sqlx`, the checked queries' description that builds use without a database.
    Sqlx(sqlx::Arguments),
    /// Regenerate `openapi.yaml` from the server's routes.
    Openapi(openapi::Arguments),
    /// Build the web page that the server embeds.
    Web(web::Arguments),
    /// Regenerate the Grafana dashboards from their description.
    Grafana(grafana::Arguments),
    /// Measure: release build, durable database.
    Bench(bench::Arguments),
    /// Build the programs for every x86-64 Linux since `CentOS` 7, and check that they are.
    Portable,
    /// Everything of a release: programs, packages, sums, parts and licences.
    Dist(dist::Arguments),
    /// Make deb, rpm and tarball of agent and server.
    Packages(packages::Arguments),
    /// Fuzz every parser of bytes from the kernel.
    Fuzz(fuzz::Arguments),
    /// Start the test databases and print the variables that tests read; `db down` stops them.
    Db(db::Arguments),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, project: &Project) -> Result<ExitCode> {
        match self {
            Command::Up(arguments) => up::run(project, &arguments),
            Command::Down(arguments) => down::run(project, &arguments),
            Command::Status => status::run(project),
            Command::Logs(arguments) => logs::run(project, &arguments),
            Command::Test(arguments) => test::run(project, &arguments),
            Command::Ci => Ok(ci::run(project)),
            Command::Tidy(arguments) => tidy::run(project, &arguments),
            Command::Sqlx(arguments) => sqlx::run(project, &arguments),
            Command::Openapi(arguments) => openapi::run(project, &arguments),
            Command::Web(arguments) => web::run(project, &arguments),
            Command::Grafana(arguments) => grafana::run(project, &arguments),
            Command::Bench(arguments) => bench::run(project, &arguments),
            Command::Portable => portable::run(project),
            Command::Dist(arguments) => dist::run(project, &arguments),
            Command::Packages(arguments) => packages::run(project, &arguments),
            Command::Fuzz(arguments) => fuzz::run(project, &arguments),
            Command::Db(arguments) => db::run(project, &arguments),
        }
    }
}
