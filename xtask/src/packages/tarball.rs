//! The tarball: one directory, for whoever has no package manager or does not want it. What goes where is theirs to say.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::Making;
use super::content::{Content, file, gzip, lay};
use crate::run::captured;

pub(super) fn make(making: &Making<'_>, content: &Content) -> Result<PathBuf> {
    let product = content.product;
    let top = format!("{product}-{}", making.version);
    let scratch = making.scratch(&format!("{product}.tar"))?;
    let at = |path: &str| format!("{top}/{path}");
    let root = &making.project.root;
    let [bash, zsh, fish] = &content.completions;
    let mut files = vec![
        file(at(product), 0o755, &content.program),
        file(at(content.configuration.0), 0o644, content.configuration.1.as_bytes()),
        file(at(&format!("{product}.service")), 0o644, &content.unit),
        file(at("LICENSE"), 0o644, &std::fs::read(root.join("LICENSE"))?),
        file(at("THIRD-PARTY-LICENSES"), 0o644, content.licences.as_bytes()),
        file(at("CHANGELOG.md"), 0o644, &std::fs::read(root.join("CHANGELOG.md"))?),
        file(at(&format!("completions/{product}.bash")), 0o644, bash),
        file(at(&format!("completions/_{product}")), 0o644, zsh),
        file(at(&format!("completions/{product}.fish")), 0o644, fish),
    ];
    for (name, page) in &content.pages {
        files.push(file(at(&format!("man/{name}")), 0o644, page));
    }
    for (name, text) in &content.examples {
        files.push(file(at(name), 0o644, text));
    }
    lay(&files, &scratch)?;
    let tar = scratch.join("tar");
    let mut command = Command::new("tar");
    command.env("LC_ALL", "C").args(["--sort=name", "--format=gnu", "--owner=0", "--group=0"]);
    command.args(["--numeric-owner", &format!("--mtime=@{}", making.epoch), "--create", "--file"]);
    captured(command.arg(&tar).arg("--directory").arg(&scratch).arg(&top))?;
    let made = making.out.join(format!("{top}-{}-linux.tar.gz", content.architecture.name));
    std::fs::write(&made, gzip(&std::fs::read(&tar)?)?)?;
    crate::project::remove(&scratch)?;
    Ok(made)
}
