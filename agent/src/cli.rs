//! The command line of `procfleet-agent`. Secrets are never arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use shared_model::Goodbye;

use crate::once::{Format, parse_interval};

/// Every process of this host, sampled and delivered exactly once.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not enrolled, 78 configuration not usable.
#[derive(Parser)]
#[command(name = "procfleet-agent", version, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file [default: /etc/procfleet/agent.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Samples this host and reports to the server until stopped
    Run,
    /// Gets this host its identity with an enrolment token, once
    Enroll {
        /// File that holds the token, removed after success [default: `PROCFLEET_TOKEN`, or asks]
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Keeps the identity that was made on another machine: the disk was moved here, not copied
    Rebind,
    /// Samples this host once and prints what it saw; needs no server
    Once {
        /// How long to look, such as 500ms or 5s
        #[arg(long, default_value = "1s", value_parser = parse_interval)]
        interval: Duration,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// The same as `--format json`, for scripts
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
    /// Shows what happens on this host, in the terminal; needs no server
    Top {
        /// Time between two looks, such as 1s or 5s
        #[arg(long, default_value = "2s", value_parser = parse_interval)]
        interval: Duration,
    },
    /// Tells the server that the agent stops on purpose; for the scripts of packages
    Goodbye {
        /// Why
        #[arg(long, value_enum)]
        reason: Leaving,
    },
    /// Prints how many reports a server has taken of this host, also while the agent runs
    Delivered {
        /// Waits until there are more than these, and fails if they do not come
        #[arg(long, value_name = "COUNT", requires = "wait")]
        more_than: Option<u64>,
        /// How long, such as 60s
        #[arg(long, value_name = "TIME", value_parser = parse_interval)]
        wait: Option<Duration>,
    },
    /// Works on the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Works on the releases of this host
    #[command(subcommand)]
    Update(UpdateCommand),
    /// Prints a script that completes this program's words, for the shell to load
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Writes the manual's pages, for those who make packages
    #[command(hide = true)]
    Man {
        /// Where to; exists
        directory: PathBuf,
    },
}

impl Command {
    /// What the commands print that are about the command line itself: they need no configuration.
    pub fn document(&self) -> Option<std::io::Result<String>> {
        match self {
            Self::Completions { shell } => Some(Ok(completions(*shell))),
            Self::Man { directory } => Some(man(directory)),
            _ => None,
        }
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "procfleet-agent", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// One page for the program and one for each of its commands, of section 8.
fn man(directory: &Path) -> std::io::Result<String> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_page(&command, directory)?;
    Ok(format!("written to {}", directory.display()))
}

fn write_page(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(below, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = clap_mangen::Man::new(command.clone()).section("8").manual("Procfleet");
    let mut text = Vec::new();
    page.title(name.to_uppercase()).render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.8")), text)
}

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Reads the configuration as `run` would and says what is wrong with it
    Check,
    /// Prints every key, its value and where that comes from
    Show {
        /// With what the centre told this host and its limits do: what `run` works by
        #[arg(long)]
        effective: bool,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

/// What to do with releases. All but `status` are for units of the service manager.
#[derive(Subcommand)]
pub enum UpdateCommand {
    /// Prints which release runs, which one was tried, and what became of it
    Status,
    /// As root: installs what the agent fetched, confirms a release that works, takes one back that does not
    Work,
    /// As root, before each start of the agent: takes a release back that was started too often
    BootCheck,
    /// Reads the configuration, the identity and this host once: whether this program can work here
    SelfTest,
}

/// Why an agent stops that `run` cannot know.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Leaving {
    /// Another version takes over.
    Upgrade,
    /// It is removed for good.
    Uninstall,
}

impl From<Leaving> for Goodbye {
    fn from(leaving: Leaving) -> Self {
        match leaving {
            Leaving::Upgrade => Self::Upgrade,
            Leaving::Uninstall => Self::Uninstall,
        }
    }
}
