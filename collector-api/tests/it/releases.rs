//! From keys to a mirror that hosts install from, by the commands; and what is not let in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_sim::child::Directory;
use shared_model::release::Release;

struct Desk {
    directory: Directory,
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the command prints; or what it says on standard error, if it fails.
    fn run(&self, words: &str) -> Result<String, String> {
        let run = Command::new(env!("CARGO_BIN_EXE_procfleet-server"))
            .arg("release")
            .args(words.split(' '))
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if run.status.success() {
            Ok(text(run.stdout).trim().to_owned())
        } else {
            Err(text(run.stdout) + &text(run.stderr))
        }
    }

    fn refused(&self, words: &str, why: &str) {
        let said = self.run(words).unwrap_err();
        assert!(said.contains(why), "{words}: {said}");
    }

    /// Release `seq` of an agent made of `bytes`.
    fn sign(&self, seq: u64, bytes: &str, more: &str) {
        fs::write(self.path("agent"), bytes).unwrap();
        let words = format!(
            "sign --key signing.pem --signing-keys keys.json --version 1.{seq}.0 --seq {seq} --artifact x86_64-linux=agent --output release-{seq}{more}"
        );
        self.run(&words).unwrap();
    }

    fn published(&self) -> u64 {
        let release: Release =
            serde_json::from_slice(&fs::read(self.path("mirror/manifest.json")).unwrap()).unwrap();
        release.unverified().unwrap().seq
    }
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_release_goes_from_keys_to_the_mirror_and_nothing_else_does() {
    let desk = Desk { directory: Directory::create("releases").unwrap() };
    let root = desk.run("keygen root.pem").unwrap();
    let signing = desk.run("keygen signing.pem").unwrap();
    let stranger = desk.run("keygen stranger.pem").unwrap();
    assert_eq!(mode(&desk.path("root.pem")), 0o600);
    desk.refused("keygen root.pem", "cannot make root.pem");
    desk.run(&format!("keys --root-key root.pem --signing {signing} --output keys.json")).unwrap();
    desk.sign(1, "the agent", "");
    let publish = |seq: u64| format!("publish release-{seq} --to mirror --root {root}");
    let told = desk.run(&publish(1)).unwrap();
    let shown = desk.run(&format!("show mirror --root {root}")).unwrap();
    assert!(told.ends_with(&shown) && shown.contains("release 1 (1.1.0)"), "{told} {shown}");
    let sha256 = shown.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(fs::read(desk.path("mirror").join(&sha256)).unwrap(), b"the agent");

    // Nobody vouches for it; a key that the root did not name; the root itself.
    desk.refused(
        &format!("publish release-1 --to elsewhere --root {stranger}"),
        "no signature of a key that is trusted",
    );
    assert!(!desk.path("elsewhere").exists());
    for key in ["stranger.pem", "root.pem"] {
        let words = format!(
            "sign --key {key} --signing-keys keys.json --version 9 --seq 9 --artifact x86_64-linux=agent --output by-{key}"
        );
        desk.run(&words).unwrap();
        desk.refused(
            &format!("publish by-{key} --to mirror --root {root}"),
            "contents of the manifest carry no signature",
        );
    }
    // A file that is not the manifest's, shorter or another.
    desk.sign(2, "the next agent", "");
    let file = fs::read_dir(desk.path("release-2")).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.file_name().unwrap() != "manifest.json").unwrap();
    for wrong in ["the next agen", "the next Agent", ""] {
        fs::write(&file, wrong).unwrap();
        desk.refused(&publish(2), "is not the file of the manifest");
        assert_eq!(desk.published(), 1);
    }
    fs::remove_file(&file).unwrap();
    desk.refused(&publish(2), "cannot read");
    fs::write(&file, "the next agent").unwrap();
    desk.run(&publish(2)).unwrap();
    assert_eq!(desk.published(), 2);

    // Not back, unless the published one allows it.
    desk.refused(&publish(1), "release 1 is not newer than release 2");
    desk.sign(3, "the third agent", " --allow-downgrade-to 1");
    desk.run(&publish(3)).unwrap();
    desk.run(&publish(1)).unwrap();
    assert_eq!(desk.published(), 1);

    // Not another release under a number that is taken.
    fs::remove_dir_all(desk.path("release-1")).unwrap();
    desk.sign(1, "another first agent", "");
    desk.refused(&publish(1), "release 1 is not newer than release 1");

    // A key that others can read; none at all; a version that is none.
    fs::set_permissions(desk.path("signing.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let sign =
        "sign --signing-keys keys.json --seq 4 --artifact x86_64-linux=agent --output release-4";
    desk.refused(&format!("{sign} --version 1.4 --key signing.pem"), "set its mode to 0600");
    fs::set_permissions(desk.path("signing.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    desk.refused(&format!("{sign} --version 1.4 --key keys.json"), "can be read by others");
    desk.refused(
        &format!("{sign} --version ../4 --key signing.pem"),
        "would be refused everywhere",
    );
    assert!(!desk.path("release-4").exists());
}
