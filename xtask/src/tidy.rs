//! `cargo xtask tidy`: the rules of the house that no compiler and no lint holds.
//!
//! Each rule is one file under `tidy/` and one line in `RULES`; it looks at the tracked files and
//! returns every violation. The generated files (`openapi.yaml`, `.sqlx`) are checked last: they
//! need a build and a database.

use std::fmt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::project::Project;
use crate::run::captured;

mod comments;
mod layering;
mod machine;
mod migrations;
mod packages;
mod scripts;
mod sizes;
mod source;
mod unsafe_code;

use source::Tree;

/// A rule over the tracked files.
type Rule = fn(&Tree) -> Vec<Violation>;

const RULES: [(&str, Rule); 6] = [
    ("layering", layering::check),
    ("sizes", sizes::check),
    ("unsafe", unsafe_code::check),
    ("machine", machine::check),
    ("comments", comments::check),
    ("scripts", scripts::check),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out what needs a build and a database: openapi.yaml and .sqlx.
    #[arg(long)]
    quick: bool,
}

/// One breach of one rule.
#[derive(Debug, PartialEq)]
struct Violation {
    file: String,
    /// From 1; 0 when the file as a whole is meant.
    line: usize,
    rule: &'static str,
    /// What to do.
    advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.advice)
    }
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let good = if arguments.quick { report(&quick(project)?) } else { everything(project)? };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All rules and the generated files; prints what it finds and says whether all is well.
pub(crate) fn everything(project: &Project) -> Result<bool> {
    let mut found = quick(project)?;
    if !crate::openapi::is_fresh(project)? {
        found.push(Violation {
            file: "openapi.yaml".into(),
            line: 0,
            rule: "generated",
            advice: "outdated: run `cargo xtask openapi` and commit it".into(),
        });
    }
    crate::web::check(project)?;
    found.extend(crate::sqlx::stale(project)?.into_iter().map(|(name, what)| Violation {
        file: format!(".sqlx/{name}"),
        line: 0,
        rule: "generated",
        advice: format!("{what}: run `cargo xtask sqlx` and commit .sqlx"),
    }));
    Ok(report(&found))
}

fn quick(project: &Project) -> Result<Vec<Violation>> {
    let tree = tracked(project)?;
    let mut found: Vec<Violation> = RULES.iter().flat_map(|(_, rule)| rule(&tree)).collect();
    found.extend(migrations::check(project)?);
    found.extend(packages::check(project)?);
    found.extend(crate::grafana::stale(project)?.into_iter().map(|file| Violation {
        file,
        line: 0,
        rule: "generated",
        advice: "outdated: run `cargo xtask grafana` and commit it".into(),
    }));
    Ok(found)
}

fn report(found: &[Violation]) -> bool {
    for violation in found {
        println!("{violation}");
    }
    match found.len() {
        0 => println!("tidy: all is well"),
        count => println!("tidy: {count} violations"),
    }
    found.is_empty()
}

/// What git tracks or would track; binary files are left out.
fn tracked(project: &Project) -> Result<Tree> {
    let mut command = Command::new("git");
    command.current_dir(&project.root);
    let list =
        captured(command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))
            .context("tidy looks at the files that git knows; is this a git checkout?")?;
    let files = list
        .split_terminator('\0')
        .filter_map(|path| {
            let text = std::fs::read_to_string(project.root.join(path)).ok()?;
            Some((path.to_owned(), text))
        })
        .collect();
    Ok(Tree { files })
}
