//! The deb, by `dpkg-deb`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::content::{Content, file, gzip, lay};
use super::{MAINTAINER, Making};
use crate::run::captured;

pub(super) fn make(making: &Making<'_>, content: &Content) -> Result<PathBuf> {
    let product = content.product;
    let deploy = making.project.root.join("deploy/packages");
    let tree = making.scratch(&format!("{product}.deb"))?;
    let documents = format!("usr/share/doc/{product}");
    let mut files = content.files("usr/share/zsh/vendor-completions")?;
    let changelog = std::fs::read(making.project.root.join("CHANGELOG.md"))?;
    for (name, bytes) in [
        ("copyright", std::fs::read(deploy.join("copyright"))?),
        ("changelog.gz", gzip(&changelog)?),
        ("changelog.Debian.gz", gzip(changelog_of_package(making, product)?.as_bytes())?),
        ("THIRD-PARTY-LICENSES.gz", gzip(content.licences.as_bytes())?),
    ] {
        files.push(file(format!("{documents}/{name}"), 0o644, &bytes));
    }
    let size: usize = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum();
    let fields = std::fs::read_to_string(deploy.join(product).join("control"))?;
    let control = control(&fields, making, content, size)?;
    files.push(file("DEBIAN/control".into(), 0o644, control.as_bytes()));
    let conffile = format!("/etc/procfleet/{}\n", content.configuration.0);
    files.push(file("DEBIAN/conffiles".into(), 0o644, conffile.as_bytes()));
    for script in ["postinst", "prerm", "postrm"] {
        let bytes = std::fs::read(deploy.join(product).join(script))?;
        files.push(file(format!("DEBIAN/{script}"), 0o755, &bytes));
    }
    lay(&files, &tree)?;
    sums(&tree)?;
    let name = format!("{product}_{}-1_{}.deb", making.version, content.architecture.debian);
    let made = making.out.join(name);
    let mut command = Command::new("dpkg-deb");
    command.env("SOURCE_DATE_EPOCH", making.epoch.to_string()).arg("--root-owner-group");
    command.args(if making.fast { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z6"] });
    captured(command.arg("--build").arg(&tree).arg(&made))?;
    crate::project::remove(&tree)?;
    Ok(made)
}

/// The fields of the file, with those that only the build knows.
fn control(fields: &str, making: &Making<'_>, content: &Content, size: usize) -> Result<String> {
    let (major, minor) = content.glibc;
    let libraries = format!("libc6 (>= {major}.{minor}), libgcc-s1 | libgcc1");
    let mut text = String::new();
    let mut has_dependencies = false;
    for line in fields.lines() {
        if let Some(others) = line.strip_prefix("Depends: ") {
            has_dependencies = true;
            writeln!(text, "Depends: {libraries}, {others}")?;
            continue;
        }
        text.push_str(line);
        text.push('\n');
        if line.starts_with("Package: ") {
            let Making { version, .. } = making;
            let architecture = content.architecture.debian;
            writeln!(text, "Version: {version}-1\nArchitecture: {architecture}")?;
            writeln!(text, "Maintainer: {MAINTAINER}\nInstalled-Size: {size}")?;
        }
    }
    if !has_dependencies {
        text = text.replacen("Section:", &format!("Depends: {libraries}\nSection:"), 1);
    }
    Ok(text)
}

/// In Debian's form; what changed is in the other changelog.
fn changelog_of_package(making: &Making<'_>, product: &str) -> Result<String> {
    let date = captured(Command::new("date").env("LC_ALL", "C").args([
        "-u",
        "-R",
        "-d",
        &format!("@{}", making.epoch),
    ]))?;
    Ok(format!(
        "{product} ({}-1) stable; urgency=medium\n\n  * Released upstream; see changelog.gz.\n\n -- {MAINTAINER}  {}\n",
        making.version,
        date.trim()
    ))
}

/// `md5sums`, which `dpkg --verify` reads.
fn sums(tree: &std::path::Path) -> Result<()> {
    let script = "find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    let sums = captured(Command::new("sh").current_dir(tree).args(["-c", script]))?;
    let mut shipped = String::new();
    for line in sums.lines().filter(|line| !line.contains("  etc/")) {
        writeln!(shipped, "{line}")?;
    }
    lay(&[file("DEBIAN/md5sums".into(), 0o644, shipped.as_bytes())], tree)
}
