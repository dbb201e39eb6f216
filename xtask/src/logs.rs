//! `cargo xtask logs`: what the parts wrote, and with `-f` what they write.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::down::Part;
use crate::project::Project;
use crate::run::tail;

/// Shown of each log without `-f`.
const LINES: usize = 200;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this part's.
    part: Option<Part>,
    /// Go on printing what is written.
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let parts =
        arguments.part.map_or(vec![Part::Database, Part::Server, Part::Agent], |part| vec![part]);
    let prefix = |part: Part| {
        if parts.len() > 1 { format!("{}: ", part.name()) } else { String::new() }
    };
    let mut found = false;
    for part in &parts {
        let path = project.log(part.name());
        let Ok(text) = std::fs::read(&path) else { continue };
        found = true;
        let lines = if arguments.follow { 10 } else { LINES };
        for line in tail(&String::from_utf8_lossy(&text), lines).lines() {
            println!("{}{line}", prefix(*part));
        }
    }
    if !found {
        bail!("there are no logs yet: `cargo xtask up` starts the parts that write them");
    }
    let mut followers: Vec<(Part, Follower)> =
        parts.iter().map(|part| (*part, Follower::at_end(&project.log(part.name())))).collect();
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        for (part, follower) in &mut followers {
            for line in follower.lines()? {
                println!("{}{line}", prefix(*part));
            }
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Reads the lines that are appended to a file, which may not exist yet or be replaced.
pub(crate) struct Follower {
    path: PathBuf,
    position: u64,
    partial: String,
}

impl Follower {
    /// From the present end of the file on.
    pub(crate) fn at_end(path: &Path) -> Self {
        let position = std::fs::metadata(path).map_or(0, |stat| stat.len());
        Self { path: path.to_owned(), position, partial: String::new() }
    }

    /// The whole lines written since the last call.
    pub(crate) fn lines(&mut self) -> Result<Vec<String>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        if file.metadata()?.len() < self.position {
            self.position = 0;
        }
        file.seek(SeekFrom::Start(self.position))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| format!("read {}", self.path.display()))?;
        self.position += bytes.len() as u64;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let whole = self.partial.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.partial.split_off(whole);
        let lines = self.partial.lines().map(str::to_owned).collect();
        self.partial = rest;
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_followed_through_truncation() {
        let path = std::env::temp_dir().join(format!("procfleet-follow-{}", std::process::id()));
        std::fs::write(&path, "old\n").unwrap();
        let mut follower = Follower::at_end(&path);
        assert!(follower.lines().unwrap().is_empty());
        std::fs::write(&path, "old\none\ntw").unwrap();
        assert_eq!(follower.lines().unwrap(), ["one"]);
        std::fs::write(&path, "old\none\ntwo\n").unwrap();
        assert_eq!(follower.lines().unwrap(), ["two"]);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(follower.lines().unwrap(), ["new"]);
        std::fs::remove_file(&path).unwrap();
    }
}
