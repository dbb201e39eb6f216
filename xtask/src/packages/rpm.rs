//! The rpm, by `rpmbuild`. What it asks of rpm is what `CentOS` 7's has: compressed by gzip, digests of sha256.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Making;
use super::content::{Content, File, file, gzip, lay};
use crate::run::captured;

pub(super) fn make(making: &Making<'_>, content: &Content) -> Result<PathBuf> {
    let product = content.product;
    let root = &making.project.root;
    let scratch = making.scratch(&format!("{product}.rpm"))?;
    let tree = scratch.join("tree");
    let mut files = content.files("usr/share/zsh/site-functions")?;
    for (path, bytes) in [
        (format!("usr/share/licenses/{product}/LICENSE"), std::fs::read(root.join("LICENSE"))?),
        (
            format!("usr/share/licenses/{product}/THIRD-PARTY-LICENSES"),
            content.licences.clone().into_bytes(),
        ),
        (
            format!("usr/share/doc/{product}/changelog.gz"),
            gzip(&std::fs::read(root.join("CHANGELOG.md"))?)?,
        ),
    ] {
        files.push(file(path, 0o644, &bytes));
    }
    lay(&files, &tree)?;
    let state = format!("var/lib/{product}");
    std::fs::create_dir_all(tree.join(&state))?;
    let list = scratch.join("files");
    std::fs::write(&list, file_list(&files, product, &state)?)?;
    let architecture = content.architecture.name;
    let name = format!("{product}-{}-1.{architecture}.rpm", making.version);
    let compression = if making.fast { "w1.gzdio" } else { "w9.gzdio" };
    let mut command = Command::new("rpmbuild");
    command.env("SOURCE_DATE_EPOCH", making.epoch.to_string());
    command.args(["-bb", "--quiet", "--target", &format!("{architecture}-linux")]);
    for (key, value) in [
        ("_topdir", scratch.join("top").display().to_string()),
        ("_rpmdir", scratch.display().to_string()),
        ("_rpmfilename", name.clone()),
        ("_binary_payload", compression.to_owned()),
        ("_binary_filedigest_algorithm", "8".to_owned()),
        ("_buildhost", "localhost".to_owned()),
        ("use_source_date_epoch_as_buildtime", "1".to_owned()),
        ("clamp_mtime_to_source_date_epoch", "1".to_owned()),
        ("procfleet_version", making.version.clone()),
        ("procfleet_tree", tree.display().to_string()),
        ("procfleet_files", list.display().to_string()),
    ] {
        command.arg("--define").arg(format!("{key} {value}"));
    }
    let spec = root.join("deploy/packages").join(product).join(format!("{product}.spec"));
    captured(command.arg(spec))?;
    let made = making.out.join(&name);
    std::fs::rename(scratch.join(&name), &made)
        .with_context(|| format!("rpmbuild made no {name}"))?;
    crate::project::remove(&scratch)?;
    Ok(made)
}

/// What rpm owns: files with their modes, and the directories that are ours.
fn file_list(files: &[File], product: &str, state: &str) -> Result<String> {
    let owner = if product == "procfleet-server" { product } else { "root" };
    let mut list = format!(
        "%dir %attr(0700, {owner}, {owner}) /{state}\n%dir /etc/procfleet\n%dir /usr/share/doc/{product}\n%dir /usr/share/licenses/{product}\n"
    );
    // Owned together with whoever else puts something there.
    for shared in ["zsh/site-functions", "fish", "fish/vendor_completions.d"] {
        writeln!(list, "%dir /usr/share/{shared}")?;
    }
    if files.iter().any(|file| file.path.contains("/examples/")) {
        writeln!(list, "%dir /usr/share/doc/{product}/examples")?;
    }
    for file in files {
        let kind = match &file.path {
            path if path.starts_with("etc/") => "%config(noreplace) ",
            path if path.starts_with("usr/share/doc/") || path.contains("/man/") => "%doc ",
            _ => "",
        };
        writeln!(list, "{kind}%attr({:04o}, root, root) /{}", file.mode, file.path)?;
    }
    Ok(list)
}
