//! What packages hold about the command line: the shells' completions and the manual's pages.

use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, table};

const NAME: &str = "procfleet-server";

/// Prints a shell's script.
pub fn complete(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    table::print(&String::from_utf8_lossy(&script))
}

/// Writes one page for the program and one for each of its commands, of section 8.
pub fn man(directory: &Path) -> anyhow::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_page(&command, directory)
        .with_context(|| format!("cannot write pages to {}", directory.display()))?;
    table::print(&format!("written to {}\n", directory.display()))
}

fn write_page(command: &Command, directory: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(below, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = clap_mangen::Man::new(command.clone()).section("8").manual("Procfleet");
    let mut text = Vec::new();
    page.title(name.to_uppercase()).render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.8")), text)
}
