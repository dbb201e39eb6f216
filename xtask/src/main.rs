//! Every developer command: `cargo xtask --help`.
//!
//! Light on purpose: it starts in seconds on a machine that has only Rust, and everything else it
//! needs it installs, builds or says. Everything it creates lives under `.procfleet/`.

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod ci;
mod db;
mod down;
mod fuzz;
mod grafana;
mod http;
mod logs;
mod openapi;
mod portable;
mod postgres;
mod process;
mod progress;
mod project;
mod run;
mod schemathesis;
mod sqlx;
mod state;
mod status;
mod test;
mod tidy;
mod up;
mod web;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Procfleet's developer commands", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    /// Build the agent for every x86-64 Linux since `CentOS` 7, and check that it is.
    Portable,
    /// Fuzz every parser of bytes from the kernel.
    Fuzz(fuzz::Arguments),
    /// Start the test databases and print the variables that tests read; `db down` stops them.
    Db(db::Arguments),
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let outcome = project::Project::locate().and_then(|project| match arguments.command {
        Command::Up(arguments) => up::run(&project, &arguments),
        Command::Down(arguments) => down::run(&project, &arguments),
        Command::Status => status::run(&project),
        Command::Logs(arguments) => logs::run(&project, &arguments),
        Command::Test(arguments) => test::run(&project, &arguments),
        Command::Ci => Ok(ci::run(&project)),
        Command::Tidy(arguments) => tidy::run(&project, &arguments),
        Command::Sqlx(arguments) => sqlx::run(&project, &arguments),
        Command::Openapi(arguments) => openapi::run(&project, &arguments),
        Command::Web(arguments) => web::run(&project, &arguments),
        Command::Grafana(arguments) => grafana::run(&project, &arguments),
        Command::Bench(arguments) => bench::run(&project, &arguments),
        Command::Portable => portable::run(&project),
        Command::Fuzz(arguments) => fuzz::run(&project, &arguments),
        Command::Db(arguments) => db::run(&project, &arguments),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
