//! Embeds the web page, as `cargo xtask web` built it, into the server.
//!
//! Writes a list of `web/dist` that `src/web.rs` includes. Without a built page the list is empty
//! and the server compiles all the same: nobody needs node to work on Rust. `web/dist` itself is
//! tracked (with nothing in it), so that cargo has a directory to watch. Migrations are embedded, too,
//! by a macro that cargo does not know of: a new file must rebuild the server.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = root.join("../web/dist");
    println!("cargo::rerun-if-changed=../migrations");
    println!("cargo::rerun-if-changed=../web/dist");
    let mut files = Vec::new();
    list(&dist, &mut files)?;
    files.sort();
    let mut source = String::from("&[\n");
    for file in files.iter().filter(|file| !is_packed(file)) {
        source.push_str(&describe(&dist, file, &files));
    }
    source.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("web_assets.rs"), source)
}

/// All files below a directory; hidden ones are not of the page.
fn list(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() {
            list(&path, files)?;
        } else if !hidden {
            files.push(path);
        }
    }
    Ok(())
}

fn is_packed(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "br" || end == "gz")
}

/// One line of the list: the file's path in the page, itself, and its packed forms.
fn describe(dist: &Path, file: &Path, files: &[PathBuf]) -> String {
    let packed = |end: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        let packed = PathBuf::from(name);
        if files.contains(&packed) {
            format!("Some(include_bytes!({}))", literal(&packed))
        } else {
            "None".into()
        }
    };
    format!(
        "    Asset {{ path: {}, plain: include_bytes!({}), brotli: {}, gzip: {} }},\n",
        literal(file.strip_prefix(dist).unwrap_or(file)),
        literal(file),
        packed(".br"),
        packed(".gz")
    )
}

/// A path as Rust writes a string.
fn literal(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}
