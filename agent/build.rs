//! Compiles the BPF programs, `src/bpf/*.bpf.c`, by clang into objects that `src/bpf.rs` embeds.
//!
//! There is no agent without them: a build that silently lacked tier A would be found out in
//! production. `PROCFLEET_CLANG` names another clang (11 or later).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PROCFLEET_CLANG");
    println!("cargo::rerun-if-changed=src/bpf");
    if let Err(error) = compile_all() {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}

fn compile_all() -> Result<(), String> {
    let variable = |name| env::var(name).map_err(|_| format!("cargo set no {name}"));
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    let sources = fs::read_dir("src/bpf").map_err(|error| format!("read src/bpf: {error}"))?;
    for source in sources.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(program) = name.strip_suffix(".bpf.c") {
            compile(&source, &out.join(program).with_extension("bpf.o"), target)?;
        }
    }
    Ok(())
}

fn compile(source: &Path, object: &Path, target: &str) -> Result<(), String> {
    let clang = env::var("PROCFLEET_CLANG").unwrap_or_else(|_| "clang".to_owned());
    // The same object wherever the sources lie.
    let here = env::current_dir().map_err(|error| format!("read the directory: {error}"))?;
    let run = Command::new(&clang)
        .args(["-target", target, "-mcpu=v2", "-O2", "-g", "-Wall", "-Werror", "-c"])
        .arg(format!("-fdebug-prefix-map={}=.", here.display()))
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()
        .map_err(|error| {
            format!(
                "the BPF programs of the agent are compiled by clang, and `{clang}` cannot be run ({error}): \
                 install it (`apt-get install clang`, `dnf install clang`, or `cargo xtask up`), or set \
                 PROCFLEET_CLANG to its path"
            )
        })?;
    if run.status.success() {
        return Ok(());
    }
    let messages = String::from_utf8_lossy(&run.stderr).replace('\n', " | ");
    Err(format!(
        "{clang} cannot compile {} (clang 11 or later with the BPF target is needed): {messages}",
        source.display()
    ))
}
