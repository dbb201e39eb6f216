//! A machine to install on: a root file system of its own, with its own processes and mounts and the test's network.
//!
//! Debian's are fetched once by mmdebstrap and kept beside the build; a test works on a copy. The one of busybox is made
//! here: one static program, and the libraries that the agent needs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::child::{self, Child, Directory};
use fleet_sim::eventually::eventually;
use fleet_sim::server::path_text;

/// Written by the tools of a distribution whenever they change users; not what was installed.
const NOTES_OF_TOOLS: [&str; 7] = [
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.pwd.lock",
];

pub(super) struct Machine {
    name: &'static str,
    directory: Directory,
    inner: u32,
    // Its first process ends with it.
    _stdin: ChildStdin,
    _init: Child,
}

/// Every file: its mode, and what it holds, leads to, or nothing.
pub(super) type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

impl Machine {
    /// Debian with one more package.
    pub(super) async fn debian(suite: &'static str, package: &str) -> Result<Self> {
        let kept = kept_debian(suite, package)?;
        let directory = Directory::create(suite)?;
        let root = directory.path().join("root");
        done(Command::new("cp").arg("-a").args([&kept, &root]))?;
        Self::start(suite, directory).await
    }

    /// busybox, the loader and libraries of `program`, nothing else.
    pub(super) async fn busybox(program: &Path) -> Result<Self> {
        let directory = Directory::create("busybox")?;
        let root = directory.path().join("root");
        for path in ["bin", "dev", "etc", "opt", "proc", "root", "tmp", "usr/local/bin", "var/lib"]
        {
            fs::create_dir_all(root.join(path))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        done(Command::new("chroot").arg(&root).args(["/bin/busybox", "--install", "-s", "/bin"]))?;
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        done(Command::new("mknod").arg(root.join("dev/null")).args(["c", "1", "3"]))?;
        let libraries = done(Command::new("ldd").arg(program))?;
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for path in paths {
            let copy = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().context("a library is in a directory")?)?;
            fs::copy(path, copy)?;
        }
        Self::start("busybox", directory).await
    }

    async fn start(name: &'static str, directory: Directory) -> Result<Self> {
        let root = directory.path().join("root");
        let mut command = child::command(Path::new("unshare"));
        command
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(format!("--mount-proc={}", path_text(&root.join("proc"))?))
            .arg("chroot")
            .arg(&root)
            .args(["/bin/sh", "-c", "echo begun; cat"])
            .stdin(Stdio::piped());
        let mut init = Child::spawn("init", directory.path(), &mut command)?;
        let stdin = init.stdin().context("a pipe")?;
        let children = format!("/proc/{0}/task/{0}/children", init.pid());
        let inner = eventually(Duration::from_secs(20), "the machine begins", async || {
            init.check_alive()?;
            ensure!(init.log().contains("begun"), "{}", init.log());
            let inner = fs::read_to_string(&children)?;
            inner.trim().parse().with_context(|| inner.clone())
        });
        let inner = inner.await?;
        Ok(Self { name, directory, inner, _stdin: stdin, _init: init })
    }

    /// Where its files are.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path)
    }

    /// A command on it, without the test's environment.
    pub(super) fn command(&self, program: &str) -> Command {
        let target = self.inner.to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &target, "--mount", "--pid", "--root", "--wdns=/", "--", program])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }

    /// Runs the script.
    pub(super) fn install(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.command("sh").arg("/root/install.sh").args(arguments).output()?;
        eprintln!("{} {arguments:?}: {}\n{}", self.name, output.status, said(&output));
        Ok(output)
    }

    /// Runs the script, which must succeed; what it said.
    pub(super) fn install_well(&self, arguments: &[&str]) -> Result<String> {
        let output = self.install(arguments)?;
        ensure!(output.status.success(), "{}: {}", self.name, said(&output));
        Ok(said(&output))
    }

    /// Everything on it.
    pub(super) fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        walk(&self.path(""), Path::new(""), &mut files)?;
        Ok(files)
    }
}

/// What is in one and not in the other, or is another thing there.
pub(super) fn differences(before: &Files, after: &Files) -> Vec<PathBuf> {
    let all = before.keys().chain(after.keys());
    let mut changed: Vec<PathBuf> =
        all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect();
    changed.sort();
    changed.dedup();
    changed
}

/// Both streams of a command.
pub(super) fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Runs a command that must succeed; its standard output.
pub(super) fn done(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn walk(root: &Path, below: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if path == Path::new("proc") || NOTES_OF_TOOLS.iter().any(|note| path == Path::new(note)) {
            continue;
        }
        let metadata = entry.metadata()?;
        let content = if metadata.is_symlink() {
            fs::read_link(entry.path())?.into_os_string().into_encoded_bytes()
        } else if metadata.is_file() {
            fs::read(entry.path())?
        } else {
            Vec::new()
        };
        let is_directory = metadata.is_dir();
        files.insert(path.clone(), (metadata.mode(), content));
        if is_directory {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

/// A root file system that is fetched once.
fn kept_debian(suite: &str, package: &str) -> Result<PathBuf> {
    let base = child::binary(".").context("find the build directory")?.join("rootfs");
    fs::create_dir_all(&base)?;
    // Two tests of one run may need the same one.
    let lock = fs::File::create(base.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let kept = base.join(format!("{suite}-{package}"));
    if !kept.exists() {
        let partial = base.join(format!("{suite}-{package}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let include = format!("--include={package}");
        let mut fetch = Command::new("mmdebstrap");
        fetch.args(["--variant=minbase", &include, suite]).arg(&partial);
        done(&mut fetch).context("Debian could not be fetched: is the network there?")?;
        fs::rename(&partial, &kept)?;
    }
    Ok(kept)
}

/// A stand-in for systemd: starts the unit's program, as its user and with its capabilities and no other, and ends it.
pub(super) fn stand_in_for_systemd(machine: &Machine) -> Result<()> {
    let systemctl = machine.path("usr/local/sbin/systemctl");
    fs::create_dir_all(machine.path("run/systemd/system"))?;
    fs::write(&systemctl, include_str!("systemctl.sh"))?;
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
