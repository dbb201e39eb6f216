//! `/proc/<pid>/cgroup` (cgroups(7)), and what the names in a cgroup path tell.

use super::lines;

/// Length of a container id, hex digits.
const CONTAINER_ID_DIGITS: usize = 64;
/// Names that hold another id than a container's: of its monitor, or of a pod of podman's.
const OTHER_PREFIXES: [&str; 3] = ["libpod-conmon-", "crio-conmon-", "machine-libpod_pod_"];
/// Lengths of the groups of a pod's uid, hex digits.
const UID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
/// Length of a static pod's uid, the md5 of its manifest, hex digits.
const STATIC_UID_DIGITS: usize = 32;

/// The cgroup of a process, and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup<'a> {
    /// Path in the v2 hierarchy; where that is the root or absent (v1, hybrid), in `name=systemd`.
    pub path: &'a [u8],
    /// Container id in that path, or in any other hierarchy's.
    pub container_id: Option<&'a str>,
    /// Uid of the Kubernetes pod, from the same places.
    pub pod_uid: Option<String>,
}

/// Parses the lines `hierarchy:controllers:path`, v1, v2 and hybrid; `None` where neither hierarchy is there.
pub fn parse_cgroup(bytes: &[u8]) -> Option<Cgroup<'_>> {
    let path_of = |wanted: fn(&[u8], &[u8]) -> bool| {
        entries(bytes).find(|(id, name, _)| wanted(id, name)).map(|(_, _, path)| path)
    };
    let unified = path_of(|id, name| id == b"0" && name.is_empty());
    let systemd = path_of(|_, name| name == b"name=systemd");
    let path = unified.filter(|path| *path != b"/").or(systemd).or(unified)?;
    let paths = || {
        let others = entries(bytes).map(|(_, _, other)| other);
        std::iter::once(path).chain(others).filter_map(|path| str::from_utf8(path).ok())
    };
    let container_id = paths().find_map(container_id);
    Some(Cgroup { path, container_id, pod_uid: paths().find_map(pod_uid) })
}

/// (hierarchy id, controllers, path without the kernel's mark of a removed cgroup).
fn entries(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    lines(bytes).filter_map(|line| {
        let mut parts = line.splitn(3, |&byte| byte == b':');
        let (id, name, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some((id, name, path.strip_suffix(b" (deleted)").unwrap_or(path)))
    })
}

/// Innermost `.service` or `.scope` of a cgroup path.
pub fn systemd_unit(path: &str) -> Option<&str> {
    path.rsplit('/').find(|name| {
        name.strip_suffix(".service")
            .or_else(|| name.strip_suffix(".scope"))
            .is_some_and(|stem| !stem.is_empty())
    })
}

/// Innermost 64 hex digits that stand alone in a name of the path: docker, containerd, CRI-O, podman,
/// with either cgroup driver.
fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/')
        .filter(|name| !OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .find_map(|name| {
            name.split(|letter: char| !letter.is_ascii_alphanumeric())
                .find(|word| word.len() == CONTAINER_ID_DIGITS && is_hex(word))
        })
}

/// The uid in `pod<uid>` (cgroupfs driver) or `…-pod<uid>.slice` (systemd driver, `_` for `-`).
fn pod_uid(path: &str) -> Option<String> {
    path.rsplit(['/', ':']).find_map(|name| {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        let uid = name
            .strip_prefix("pod")
            .or_else(|| name.rsplit_once("-pod").map(|(_, uid)| uid))?
            .replace('_', "-");
        let groups = uid.split('-').map(str::len);
        let is_uid = groups.eq(UID_GROUPS) || uid.len() == STATIC_UID_DIGITS;
        (is_uid && uid.split('-').all(is_hex)).then_some(uid)
    })
}

/// Lower-case hex digits and nothing else.
fn is_hex(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4b2f0f2c9d1e8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b";

    #[track_caller]
    fn check(file: &str, path: &str, unit: Option<&str>, container: Option<&str>) {
        let cgroup = parse_cgroup(file.as_bytes()).unwrap();
        assert_eq!(cgroup.path, path.as_bytes());
        assert_eq!(systemd_unit(path), unit);
        assert_eq!(cgroup.container_id, container);
    }

    #[test]
    fn both_versions_and_hybrids() {
        check(
            "0::/system.slice/sshd.service\n",
            "/system.slice/sshd.service",
            Some("sshd.service"),
            None,
        );
        let v1 = "11:memory:/system.slice\n1:name=systemd:/system.slice/crond.service\n";
        check(v1, "/system.slice/crond.service", Some("crond.service"), None);
        let hybrid = "9:name=systemd:/init.scope\n4:memory:/x\n0::/\n";
        check(hybrid, "/init.scope", Some("init.scope"), None);
        check("9:name=systemd:/\n0::/\n", "/", None, None);
        check("0::/a.service (deleted)\n", "/a.service", Some("a.service"), None);
        assert_eq!(parse_cgroup(b"4:memory:/x\n"), None);
        assert_eq!(parse_cgroup(b""), None);
    }

    #[test]
    fn the_innermost_unit_wins() {
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x@1.service";
        assert_eq!(systemd_unit(user), Some("app-x@1.service"));
        assert_eq!(systemd_unit("/system.slice/a.service/sub"), Some("a.service"));
        assert_eq!(systemd_unit("/system.slice"), None);
        assert_eq!(systemd_unit("/.service"), None);
    }

    /// (file, path, unit, whether it names the container, pod)
    type Case = (&'static str, &'static str, Option<&'static str>, bool, Option<&'static str>);

    const POD: &str = "2c48913c-b29f-11e7-9350-020968147796";
    const STATIC_POD: &str = "5f2c0b3d2a1e4c9a8b7d6e5f4a3b2c1d";

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        // docker: v2 with the systemd driver, v2 with cgroupfs, v1, inside another container.
        ("0::/system.slice/docker-{ID}.scope\n", "/system.slice/docker-{ID}.scope", Some("docker-{ID}.scope"), true, None),
        ("0::/docker/{ID}\n", "/docker/{ID}", None, true, None),
        ("12:pids:/docker/{ID}\n4:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n", "/system.slice/containerd.service", Some("containerd.service"), true, None),
        ("4:memory:/docker/{ID}\n1:name=systemd:/\n0::/\n", "/", None, true, None),
        ("0::/docker/0{REST}/docker/{ID}/init.scope\n", "/docker/0{REST}/docker/{ID}/init.scope", Some("init.scope"), true, None),
        ("0::/../docker-{ID}.scope\n", "/../docker-{ID}.scope", Some("docker-{ID}.scope"), true, None),
        // Kubernetes with containerd: both drivers, both versions, every class of service.
        ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2c48913c_b29f_11e7_9350_020968147796.slice/cri-containerd-{ID}.scope\n",
         "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2c48913c_b29f_11e7_9350_020968147796.slice/cri-containerd-{ID}.scope",
         Some("cri-containerd-{ID}.scope"), true, Some(POD)),
        ("0::/kubepods/besteffort/pod2c48913c-b29f-11e7-9350-020968147796/{ID}\n", "/kubepods/besteffort/pod2c48913c-b29f-11e7-9350-020968147796/{ID}", None, true, Some(POD)),
        ("4:memory:/kubepods/pod2c48913c-b29f-11e7-9350-020968147796/{ID}\n1:name=systemd:/kubepods/pod2c48913c-b29f-11e7-9350-020968147796/{ID}\n",
         "/kubepods/pod2c48913c-b29f-11e7-9350-020968147796/{ID}", None, true, Some(POD)),
        ("1:name=systemd:/system.slice/containerd.service/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice:cri-containerd:{ID}\n",
         "/system.slice/containerd.service/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice:cri-containerd:{ID}", Some("containerd.service"), true, Some(POD)),
        ("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/cri-containerd-{ID}.scope\n",
         "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/cri-containerd-{ID}.scope",
         Some("cri-containerd-{ID}.scope"), true, Some(POD)),
        // A static pod, of which the uid is a hash; the pause container's docker shim.
        ("0::/kubepods/burstable/pod5f2c0b3d2a1e4c9a8b7d6e5f4a3b2c1d/{ID}\n", "/kubepods/burstable/pod5f2c0b3d2a1e4c9a8b7d6e5f4a3b2c1d/{ID}", None, true, Some(STATIC_POD)),
        ("0::/kubepods.slice/kubepods-pod5f2c0b3d2a1e4c9a8b7d6e5f4a3b2c1d.slice/docker-{ID}.scope\n", "/kubepods.slice/kubepods-pod5f2c0b3d2a1e4c9a8b7d6e5f4a3b2c1d.slice/docker-{ID}.scope", Some("docker-{ID}.scope"), true, Some(STATIC_POD)),
        // A pod's own group holds no container.
        ("0::/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice\n", "/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice", None, false, Some(POD)),
        // CRI-O, and its monitor.
        ("0::/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/crio-{ID}.scope/container\n",
         "/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/crio-{ID}.scope/container", Some("crio-{ID}.scope"), true, Some(POD)),
        ("0::/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/crio-conmon-{ID}.scope\n",
         "/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/crio-conmon-{ID}.scope", Some("crio-conmon-{ID}.scope"), false, Some(POD)),
        // podman: as root, as a user, in a pod of its own (whose id is no container's), its monitor.
        ("0::/machine.slice/libpod-{ID}.scope/container\n", "/machine.slice/libpod-{ID}.scope/container", Some("libpod-{ID}.scope"), true, None),
        ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", Some("libpod-{ID}.scope"), true, None),
        ("0::/machine.slice/machine-libpod_pod_0{REST}.slice/libpod-{ID}.scope\n", "/machine.slice/machine-libpod_pod_0{REST}.slice/libpod-{ID}.scope", Some("libpod-{ID}.scope"), true, None),
        ("0::/machine.slice/machine-libpod_pod_0{REST}.slice/libpod-conmon-{ID}.scope\n", "/machine.slice/machine-libpod_pod_0{REST}.slice/libpod-conmon-{ID}.scope", Some("libpod-conmon-{ID}.scope"), false, None),
        ("0::/libpod_parent/libpod-{ID}\n", "/libpod_parent/libpod-{ID}", None, true, None),
        // nerdctl and ECS.
        ("0::/system.slice/nerdctl-{ID}.scope\n", "/system.slice/nerdctl-{ID}.scope", Some("nerdctl-{ID}.scope"), true, None),
        ("9:cpu:/ecs/0123456789abcdef0123456789abcdef/{ID}\n1:name=systemd:/ecs/0123456789abcdef0123456789abcdef/{ID}\n", "/ecs/0123456789abcdef0123456789abcdef/{ID}", None, true, None),
        // Nothing of the kind.
        ("0::/user.slice/user-0.slice/session-3.scope\n", "/user.slice/user-0.slice/session-3.scope", Some("session-3.scope"), false, None),
        ("0::/system.slice/podman.service\n", "/system.slice/podman.service", Some("podman.service"), false, None),
        ("0::/system.slice/pod-2c48913c.service\n", "/system.slice/pod-2c48913c.service", Some("pod-2c48913c.service"), false, None),
        ("0::/docker/{REST}\n", "/docker/{REST}", None, false, None),
        ("0::/docker/0{ID}\n", "/docker/0{ID}", None, false, None),
        ("0::/docker/{UPPER}\n", "/docker/{UPPER}", None, false, None),
    ];

    #[test]
    fn containers_and_pods_of_every_runtime() {
        let fill = |text: &str| {
            let upper = ID.to_uppercase();
            text.replace("{ID}", ID).replace("{REST}", &ID[1..]).replace("{UPPER}", &upper)
        };
        for (file, path, unit, has_container, pod) in CASES {
            let (file, path) = (fill(file), fill(path));
            let cgroup = parse_cgroup(file.as_bytes()).unwrap();
            assert_eq!(cgroup.path, path.as_bytes(), "{file}");
            assert_eq!(systemd_unit(&path).map(str::to_owned), unit.map(fill), "{file}");
            assert_eq!(cgroup.container_id, has_container.then_some(ID), "{file}");
            assert_eq!(cgroup.pod_uid.as_deref(), *pod, "{file}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_cgroup(&bytes);
        }
    }
}
