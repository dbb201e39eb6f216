//! `cargo xtask portable`: the programs for every x86-64 Linux since `CentOS` 7, and the proof.
//!
//! zig links against the symbols of glibc 2.17, whatever this machine has. It and cargo-zigbuild come as wheels from
//! `PyPI`, in the versions named here, into `.procfleet/tools`. Then each program itself is asked: which versions of
//! symbols it needs, which libraries, and whether it runs here. That the agent makes no system call newer than
//! Linux 3.10 without another way is a test of it (`old_kernel`).
//!
//! The same sources and tools give the same bytes wherever they lie: paths of the builder are replaced.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::apt;
use crate::dist::{PRODUCTS, TARGET};
use crate::project::Project;
use crate::run::{captured, cargo, exists, shown};

/// What is linked against: `CentOS` 7.
const GLIBC: (u32, u32) = (2, 17);
/// Of `PyPI`.
const WHEELS: [&str; 2] = ["cargo-zigbuild==0.20.1", "ziglang==0.13.0.post1"];
/// Libraries that every glibc system has.
const LIBRARIES: [&str; 7] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this crate's program, `agent` or `collector-api` [default: both]
    #[arg(long, value_name = "CRATE")]
    package: Option<String>,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let is_asked = |(_, package): &&(&str, &str)| {
        arguments.package.as_deref().is_none_or(|asked| asked == *package)
    };
    let products: Vec<_> = PRODUCTS.iter().filter(is_asked).copied().collect();
    ensure!(!products.is_empty(), "--package is agent or collector-api");
    make(project, &products)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds and checks programs and the crates that they are; returns the directory that they are in.
pub(crate) fn make(project: &Project, products: &[(&str, &str)]) -> Result<PathBuf> {
    project.prepare()?;
    apt::ensure_clang()?;
    crate::web::ensure(project)?;
    let tools = install(project)?;
    build(project, &tools, products)?;
    let directory = project.target().join(TARGET).join("release");
    for (product, _) in products {
        let binary = directory.join(product);
        check(&binary)?;
        let version = captured(Command::new(&binary).arg("--version"))?;
        let (major, minor) = GLIBC;
        println!("{}: {}, from glibc {major}.{minor} on", binary.display(), version.trim());
    }
    Ok(directory)
}

/// Installs the wheels where they are missing; returns where.
fn install(project: &Project) -> Result<PathBuf> {
    let tools = project.private("tools").join(WHEELS.join("+"));
    if zig(&tools).is_file() && zigbuild(&tools).is_file() {
        return Ok(tools);
    }
    if !exists("python3") {
        apt::install(&["python3", "python3-pip"], "it installs zig")?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    pip.args(["--root-user-action=ignore", "--target"]).arg(&tools).args(WHEELS);
    ensure!(shown(&mut pip)?.success(), "pip could not install {}", WHEELS.join(" and "));
    Ok(tools)
}

fn zig(tools: &Path) -> PathBuf {
    tools.join("ziglang/zig")
}

fn zigbuild(tools: &Path) -> PathBuf {
    tools.join("bin/cargo-zigbuild")
}

fn build(project: &Project, tools: &Path, products: &[(&str, &str)]) -> Result<()> {
    let cargo = cargo(project);
    let mut command = Command::new(zigbuild(tools));
    command.current_dir(&project.root).env("CARGO", cargo.get_program());
    command.env("CARGO_ZIGBUILD_ZIG_PATH", zig(tools));
    command.args(["zigbuild", "--release", "--locked", "--bins", "--target"]);
    command.arg(format!("{TARGET}.{}.{}", GLIBC.0, GLIBC.1));
    for (_, package) in products {
        command.args(["--package", package]);
    }
    replace_paths(project, &mut command);
    ensure!(shown(&mut command)?.success(), "the portable build failed");
    Ok(())
}

/// Of panics' places and the like: where the sources lie here is nobody's business, and would make every builder's
/// program another one.
fn replace_paths(project: &Project, command: &mut Command) {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let places = [(Some(project.root.clone()), "/procfleet"), (home, "/cargo")];
    let places: Vec<String> = places
        .iter()
        .filter_map(|(from, to)| Some(format!("{}={to}", from.as_ref()?.display())))
        .collect();
    // As cargo wants it: one option from the next by a character that no path has.
    let mut flags: Vec<String> = std::env::var("RUSTFLAGS")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    flags.extend(places.iter().map(|place| format!("--remap-path-prefix={place}")));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let flags: Vec<String> =
        places.iter().map(|place| format!("-ffile-prefix-map={place}")).collect();
    command.env("CFLAGS", flags.join(" "));
}

/// Fails unless the binary needs nothing that the oldest system lacks.
fn check(binary: &Path) -> Result<()> {
    let read = |flag: &str| {
        captured(Command::new("readelf").arg(flag).arg("--wide").arg(binary))
            .context("readelf of binutils")
    };
    let versions = needed_versions(&read("--version-info")?);
    ensure!(!versions.is_empty(), "{} names no version of glibc", binary.display());
    let newer: Vec<_> = versions.iter().filter(|version| **version > GLIBC).collect();
    ensure!(newer.is_empty(), "{} needs symbols of glibc {newer:?}", binary.display());
    let foreign: Vec<_> = needed_libraries(&read("--dynamic")?)
        .into_iter()
        .filter(|library| !LIBRARIES.contains(&library.as_str()))
        .collect();
    ensure!(foreign.is_empty(), "{} needs the libraries {foreign:?}", binary.display());
    Ok(())
}

/// Every `GLIBC_a.b` that `readelf --version-info` shows, ascending.
pub(crate) fn needed_versions(text: &str) -> Vec<(u32, u32)> {
    let parse = |word: &str| {
        let mut parts = word.strip_prefix("GLIBC_")?.split('.').map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let mut versions: Vec<_> = text.split_ascii_whitespace().filter_map(parse).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// The shared libraries of `readelf --dynamic`.
pub(crate) fn needed_libraries(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains("(NEEDED)"));
    let name = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
    lines.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_binary_needs_is_found() {
        let text = "Version needs section '.gnu.version_r' contains 2 entries:\n\
            \x20 000000: Version: 1  File: libc.so.6  Cnt: 2\n\
            \x20 0x0010:   Name: GLIBC_2.2.5  Flags: none  Version: 3\n\
            \x20 0x0020:   Name: GLIBC_2.34  Flags: none  Version: 2\n\
            \x20 0x0030:   Name: GCC_3.0  Flags: none  Version: 4\n";
        assert_eq!(needed_versions(text), [(2, 2), (2, 34)]);
        let text = " 0x0000000000000001 (NEEDED)  Shared library: [libc.so.6]\n\
            \x20 0x000000000000000e (SONAME)  Library soname: [x.so]\n";
        assert_eq!(needed_libraries(text), ["libc.so.6"]);
    }

    #[test]
    fn a_program_of_this_machine_only_is_refused() {
        // This test itself: linked by the compiler of a system that is newer than the oldest supported one.
        let refusal = check(&std::env::current_exe().unwrap()).unwrap_err().to_string();
        assert!(refusal.contains("needs symbols of glibc [(2, "), "{refusal}");
        let refusal = format!("{:#}", check(Path::new("/etc/passwd")).unwrap_err());
        assert!(refusal.contains("Not an ELF file"), "{refusal}");
    }
}
