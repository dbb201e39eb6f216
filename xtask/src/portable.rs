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
pub(crate) const LIBRARIES: [&str; 8] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

pub(crate) fn run(project: &Project) -> Result<ExitCode> {
    make(project)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds and checks; returns the directory with the programs.
pub(crate) fn make(project: &Project) -> Result<PathBuf> {
    project.prepare()?;
    apt::ensure_clang()?;
    crate::web::ensure(project)?;
    let tools = install(project)?;
    let places = places(project)?;
    build(project, &tools, &places)?;
    let directory = project.target().join(TARGET).join("release");
    for (product, _) in PRODUCTS {
        let binary = directory.join(product);
        check(&binary)?;
        check_places(&binary, &places)?;
        let version = captured(Command::new(&binary).arg("--version"))?;
        let (major, minor) = GLIBC;
        println!("{}: {}, runs from glibc {major}.{minor} on", binary.display(), version.trim());
    }
    let agent = directory.join("procfleet-agent");
    captured(Command::new(agent).args(["once", "--interval", "200ms", "--json"]))?;
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

fn build(project: &Project, tools: &Path, places: &[Place]) -> Result<()> {
    let cargo = cargo(project);
    let mut command = Command::new(zigbuild(tools));
    command.current_dir(&project.root).env("CARGO", cargo.get_program());
    command.env("CARGO_ZIGBUILD_ZIG_PATH", zig(tools));
    command.args(["zigbuild", "--release", "--locked", "--bins", "--target"]);
    command.arg(format!("{TARGET}.{}.{}", GLIBC.0, GLIBC.1));
    for (_, package) in PRODUCTS {
        command.args(["--package", package]);
    }
    // As cargo wants it: one option from the next by a character that no path has.
    command.env(
        "CARGO_ENCODED_RUSTFLAGS",
        added("RUSTFLAGS", "--remap-path-prefix", places).join("\x1f"),
    );
    command.env("CFLAGS", added("CFLAGS", "-ffile-prefix-map", places).join(" "));
    ensure!(shown(&mut command)?.success(), "the portable build failed");
    Ok(())
}

/// A directory of the builder's, and what programs call it.
type Place = (PathBuf, &'static str);

/// What would be in panics' texts and the like: nobody's business, and another one at every builder's.
fn places(project: &Project) -> Result<[Place; 2]> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => Path::new(
            &std::env::var_os("HOME").context("without HOME, CARGO_HOME says where cargo is")?,
        )
        .join(".cargo"),
    };
    Ok([(project.root.clone(), "/procfleet"), (home, "/cargo")])
}

/// The options that this variable has, and this one for each place.
fn added(variable: &str, option: &str, places: &[Place]) -> Vec<String> {
    let given = std::env::var(variable).unwrap_or_default();
    let given = given.split_ascii_whitespace().map(str::to_owned);
    given
        .chain(places.iter().map(|(from, to)| format!("{option}={}={to}", from.display())))
        .collect()
}

/// Fails if the binary tells where it was built.
fn check_places(binary: &Path, places: &[Place]) -> Result<()> {
    let bytes = std::fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    for (place, _) in places {
        let name = place.as_os_str().as_encoded_bytes();
        let is_told = bytes.windows(name.len()).any(|window| window == name);
        ensure!(!is_told, "{} names {}, where it was built", binary.display(), place.display());
    }
    Ok(())
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
        // Its symbols for debuggers name the sources.
        let places = places(&Project::locate().unwrap()).unwrap();
        let refusal = check_places(&std::env::current_exe().unwrap(), &places).unwrap_err();
        assert!(refusal.to_string().ends_with("where it was built"), "{refusal}");
        let refusal = format!("{:#}", check(Path::new("/etc/passwd")).unwrap_err());
        assert!(refusal.contains("Not an ELF file"), "{refusal}");
    }
}
