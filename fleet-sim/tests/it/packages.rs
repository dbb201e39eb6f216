//! The packages of `cargo xtask packages`, made from the programs under test: they keep Debian's rules, are installed into
//! fresh systems, work there, and leave nothing behind.
//!
//! Not tried here: distributions with rpm. Their package manager's program installs and removes in a Debian
//! system, scripts included; dependencies are compared with what `CentOS` 7 has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child::{Directory, binary, command};
use fleet_sim::rootfs::{Rootfs, succeed};

use crate::deploy::repository;

/// Makes packages of one kind from the programs beside this test; returns their files.
fn make(kind: &str, out: &Path) -> Result<Vec<PathBuf>> {
    let binaries = binary("procfleet-agent")?;
    binary("procfleet-server")?;
    let mut xtask = command(&binary("xtask")?);
    xtask.env("CARGO_MANIFEST_DIR", repository().join("xtask").canonicalize()?);
    xtask.args(["packages", "--fast", "--only", kind, "--binaries"]);
    xtask.arg(binaries.parent().context("programs are in a directory")?);
    let printed = succeed(xtask.arg("--out").arg(out))?;
    let files: Vec<PathBuf> = printed.lines().map(PathBuf::from).collect();
    ensure!(files.len() == 2 && files.iter().all(|file| file.is_file()), "{printed}");
    Ok(files)
}

/// What differs between two trees.
fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let here = |path: &str| format!("{path}: {:?} -> {:?}", before.get(path), after.get(path));
    let paths = before.keys().chain(after.keys());
    let mut differing: Vec<String> =
        paths.filter(|path| before.get(*path) != after.get(*path)).map(|path| here(path)).collect();
    differing.sort();
    differing.dedup();
    differing
}

/// What holds in a system that has both packages, of any format.
fn assert_works(root: &Rootfs) -> Result<()> {
    for program in ["procfleet-agent", "procfleet-server"] {
        let version = root.run(&format!("{program} --version"))?;
        assert_eq!(version.trim(), format!("{program} {}", env!("CARGO_PKG_VERSION")));
        let state = fs::metadata(root.path(&format!("/var/lib/{program}")))?;
        assert_eq!(state.mode() & 0o7777, 0o700, "{program}");
        // Bash loads it, and it is about this program.
        let script =
            format!(". /usr/share/bash-completion/completions/{program}; complete -p {program}");
        root.run(&format!("bash -c '{script}'"))?;
        let page = root.run(&format!("gzip -dc /usr/share/man/man8/{program}.8.gz"))?;
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains(&program.replace('-', "\\-")),
            "{page}"
        );
    }
    let user = fs::metadata(root.path("/var/lib/procfleet-server"))?.uid();
    assert_eq!(root.run("id -u procfleet-server")?.trim(), user.to_string());
    assert_ne!(user, 0);
    assert_eq!(root.run("procfleet-agent config check")?.trim(), "the configuration is usable");
    let units = "procfleet-agent.service procfleet-server.service";
    root.run(&format!("systemd-analyze verify --man=no {units}"))?;
    let unit = root.run("cat /usr/lib/systemd/system/procfleet-agent.service")?;
    for line in ["ExecStart=/usr/bin/procfleet-agent run", "LimitMEMLOCK=infinity", "CPUQuota=25%"]
    {
        assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
    }
    assert!(!unit.contains("/opt/") && !unit.contains("User="), "{unit}");
    Ok(())
}

/// The server's file is read, and says nothing: not even where the database is.
fn assert_server_asks_for_its_database(root: &Rootfs) -> Result<()> {
    let said =
        root.run("procfleet-server --config /etc/procfleet/server.toml migrate 2>&1 || true")?;
    ensure!(said.contains("PROCFLEET_DATABASE_URL"), "{said}");
    Ok(())
}

/// A deb's life in a fresh system of this name.
fn live_on_debian(suite: &str, debs: &[PathBuf]) -> Result<()> {
    let root = Rootfs::debian(suite)?;
    let before = root.tree()?;
    let inside: Vec<String> = debs.iter().map(|deb| root.bring(deb)).collect::<Result<_>>()?;
    let install = format!("dpkg --install {}", inside.join(" "));
    root.run(&install)?;
    assert_works(&root)?;
    assert_server_asks_for_its_database(&root)?;
    for program in ["procfleet-agent", "procfleet-server"] {
        let unit =
            root.path(&format!("/etc/systemd/system/multi-user.target.wants/{program}.service"));
        assert!(unit.is_symlink(), "{program} is enabled");
    }
    assert!(root.run("dpkg --verify procfleet-agent procfleet-server")?.is_empty());
    root.run("echo 'interval_ms = 5000' >/etc/procfleet/agent.toml")?;
    root.run("echo PROCFLEET_DATABASE_URL=postgres://db/x >/etc/procfleet/server.env")?;
    root.run("touch /var/lib/procfleet-agent/spooled /var/lib/procfleet-server/ca.key")?;
    root.run("chmod 600 /var/lib/procfleet-server/ca.key")?;
    // Again, as by an upgrade: what was changed stays.
    root.run(&install)?;
    assert_eq!(root.run("cat /etc/procfleet/agent.toml")?.trim(), "interval_ms = 5000");
    let shown = root.run("procfleet-agent config show --format json")?;
    assert!(shown.contains("5000"), "{shown}");
    root.run("dpkg --remove procfleet-agent procfleet-server")?;
    let kept = root.run("ls /etc/procfleet /var/lib/procfleet-agent /var/lib/procfleet-server")?;
    for file in ["agent.toml", "server.env", "server.toml", "spooled", "ca.key"] {
        assert!(kept.contains(file), "{file} is kept until the purge: {kept}");
    }
    let purged = root.run("dpkg --purge procfleet-agent procfleet-server")?;
    assert!(purged.contains("ca.key is kept"), "{purged}");
    // A new server finds the key of the old one's hosts, and may read it.
    root.run(&install)?;
    let owner = "stat -c %U:%a /var/lib/procfleet-server /var/lib/procfleet-server/ca.key";
    assert_eq!(root.run(owner)?, "procfleet-server:700\nprocfleet-server:600\n");
    root.run("dpkg --purge procfleet-agent procfleet-server")?;
    root.run("rm -r /var/lib/procfleet-server")?;
    assert_eq!(difference(&before, &root.tree()?), Vec::<String>::new(), "{suite}");
    Ok(())
}

#[test]
fn debs_keep_the_rules_are_installed_and_leave_nothing() -> Result<()> {
    let out = Directory::create("debs")?;
    let debs = make("deb", out.path())?;
    let again = Directory::create("debs-again")?;
    std::thread::scope(|scope| -> Result<()> {
        let lives = ["bookworm", "trixie"].map(|suite| {
            let debs = &debs;
            scope.spawn(move || live_on_debian(suite, debs))
        });
        let mut lintian = command(Path::new("lintian"));
        succeed(lintian.args(["--allow-root", "--fail-on", "error"]).args(&debs))?;
        for (first, second) in debs.iter().zip(make("deb", again.path())?) {
            assert!(fs::read(first)? == fs::read(second)?, "{} is another", first.display());
        }
        for life in lives {
            life.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

#[test]
fn rpms_ask_for_little_are_installed_and_leave_nothing() -> Result<()> {
    let out = Directory::create("rpms")?;
    let rpms = make("rpm", out.path())?;
    let rpm = |arguments: &[&str]| succeed(command(Path::new("rpm")).args(arguments).args(&rpms));
    for needed in rpm(&["--query", "--package", "--requires"])?.lines() {
        let of_the_c_library = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux", "rtld("];
        // What rpm 4.11 has, that of CentOS 7.
        let of_rpm = ["CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix"];
        let of_packages = ["/bin/sh", "config(procfleet-", "shadow-utils"];
        assert!(
            of_the_c_library.iter().chain(&of_packages).any(|known| needed.starts_with(known))
                || of_rpm.iter().any(|known| needed.starts_with(&format!("rpmlib({known})"))),
            "{needed}"
        );
    }
    let files = rpm(&["--query", "--package", "--list", "--verbose"])?;
    for (path, mode) in [
        ("/usr/bin/procfleet-agent", "-rwxr-xr-x"),
        ("/usr/lib/systemd/system/procfleet-server.service", "-rw-r--r--"),
        ("/usr/share/licenses/procfleet-server/THIRD-PARTY-LICENSES", "-rw-r--r--"),
        ("/var/lib/procfleet-server", "drwx------"),
    ] {
        let line = files.lines().find(|line| line.ends_with(path));
        assert!(line.is_some_and(|line| line.starts_with(mode)), "{path}: {line:?}");
    }
    let configured = rpm(&["--query", "--package", "--configfiles"])?;
    assert_eq!(configured.trim(), "/etc/procfleet/agent.toml\n/etc/procfleet/server.toml");

    let root = Rootfs::debian("bookworm")?;
    // Accounts outlive their packages: files of theirs may be anywhere.
    root.run("groupadd -r procfleet-server; useradd -r -g procfleet-server procfleet-server")?;
    // Of the package `filesystem` there.
    fs::create_dir(root.path("/usr/share/licenses"))?;
    let before = root.tree()?;
    let at = root.path("/");
    let inside = |arguments: &[&str], subjects: &[&str]| {
        let mut rpm = command(Path::new("rpm"));
        rpm.arg("--root").arg(&at).args(["--dbpath", "/var/cache/rpm"]).args(arguments);
        succeed(rpm.args(subjects))
    };
    let names = ["procfleet-agent", "procfleet-server"];
    let paths: Vec<&str> = rpms.iter().filter_map(|rpm| rpm.to_str()).collect();
    inside(&["--install", "--nodeps"], &paths)?;
    assert_works(&root)?;
    assert_server_asks_for_its_database(&root)?;
    inside(&["--verify", "--nodeps"], &names)?;
    inside(&["--erase"], &names)?;
    assert_eq!(difference(&before, &root.tree()?), Vec::<String>::new());
    Ok(())
}

#[test]
fn tarballs_hold_what_a_host_needs() -> Result<()> {
    let out = Directory::create("tarballs")?;
    for tarball in make("tarball", out.path())? {
        let mut tar = command(Path::new("tar"));
        tar.arg("--list").arg("--file").arg(&tarball);
        let listed = succeed(&mut tar)?;
        let top = listed.lines().next().context("a tarball is not empty")?.trim_end_matches('/');
        let product = top.rsplit_once('-').context("a version stands behind the name")?.0;
        for name in [
            product,
            "LICENSE",
            "THIRD-PARTY-LICENSES",
            &format!("man/{product}.8"),
            &format!("{product}.service"),
        ] {
            assert!(listed.lines().any(|line| line == format!("{top}/{name}")), "{name}: {listed}");
        }
        succeed(command(Path::new("tar")).arg("-xf").arg(&tarball).arg("-C").arg(out.path()))?;
        let program = out.path().join(top).join(product);
        assert!(succeed(command(&program).arg("--version"))?.starts_with(product));
    }
    Ok(())
}

#[test]
fn a_distribution_is_whole_and_its_sums_notice_a_change() -> Result<()> {
    let out = Directory::create("dist")?;
    let binaries = binary("procfleet-agent")?;
    let mut xtask = command(&binary("xtask")?);
    xtask.env("CARGO_MANIFEST_DIR", repository().join("xtask").canonicalize()?);
    xtask.args(["dist", "--fast", "--binaries"]).arg(binaries.parent().context("a directory")?);
    let printed = succeed(xtask.arg("--out").arg(out.path()))?;
    let names: Vec<&str> = printed.lines().filter_map(|line| line.rsplit('/').next()).collect();
    for (kind, count) in [(".deb", 2), (".rpm", 2), (".tar.gz", 2), (".cdx.json", 2)] {
        let found = names.iter().filter(|name| name.ends_with(kind)).count();
        assert_eq!(found, count, "{kind}: {names:?}");
    }
    let check = || {
        let mut sums = command(Path::new("sha256sum"));
        succeed(sums.current_dir(out.path()).args(["--check", "--strict", "--quiet", "SHA256SUMS"]))
    };
    check()?;
    let sums = fs::read_to_string(out.path().join("SHA256SUMS"))?;
    assert_eq!(sums.lines().count() + 1, names.len(), "all but the sums: {names:?}");
    // What is signed runs, and what it consists of is told with it.
    let program =
        names.iter().find(|name| name.starts_with("procfleet-agent") && name.ends_with("-linux"));
    let program = out.path().join(program.context("the agent's program")?);
    assert!(succeed(command(&program).arg("--version"))?.starts_with("procfleet-agent "));
    let licences =
        names.iter().find(|name| name.starts_with("procfleet-agent") && name.ends_with("LICENSES"));
    let licences = fs::read_to_string(out.path().join(licences.context("its licences")?))?;
    assert!(licences.contains("\nring ") && licences.contains("\naya "), "{licences}");
    let bill =
        out.path().join(names.iter().find(|name| name.ends_with(".cdx.json")).context("a bill")?);
    fs::write(&bill, fs::read_to_string(&bill)?.replacen("1.5", "1.4", 1))?;
    assert!(check().is_err(), "a change is noticed");
    assert!(succeed(&mut xtask).is_err(), "a directory with something in it is not emptied");
    assert!(bill.exists());
    Ok(())
}
