//! `/proc/<pid>/cgroup` (cgroups(7)), and what the names in a cgroup path tell.

use super::lines;

/// Length of a container id, hex digits.
const CONTAINER_ID_DIGITS: usize = 64;
/// Names of scopes that hold a container's monitor, not the container.
const MONITOR_PREFIXES: [&str; 2] = ["libpod-conmon-", "crio-conmon-"];

/// The cgroup of a process, and the container it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup<'a> {
    /// Path in the v2 hierarchy; where that is the root or absent (v1, hybrid), in `name=systemd`.
    pub path: &'a [u8],
    /// Container id in that path, or in any other hierarchy's.
    pub container_id: Option<&'a str>,
}

/// Parses the lines `hierarchy:controllers:path`, v1, v2 and hybrid; `None` where neither hierarchy is there.
pub fn parse_cgroup(bytes: &[u8]) -> Option<Cgroup<'_>> {
    let path_of = |wanted: fn(&[u8], &[u8]) -> bool| {
        entries(bytes).find(|(id, name, _)| wanted(id, name)).map(|(_, _, path)| path)
    };
    let unified = path_of(|id, name| id == b"0" && name.is_empty());
    let systemd = path_of(|_, name| name == b"name=systemd");
    let path = unified.filter(|path| *path != b"/").or(systemd).or(unified)?;
    let container_id =
        container_id(path).or_else(|| entries(bytes).find_map(|(_, _, other)| container_id(other)));
    Some(Cgroup { path, container_id })
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
fn container_id(path: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(path).ok()?;
    path.rsplit('/')
        .filter(|name| !MONITOR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .find_map(|name| {
            name.split(|letter: char| !letter.is_ascii_alphanumeric()).find(|word| {
                word.len() == CONTAINER_ID_DIGITS
                    && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
        })
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

    #[test]
    fn containers_of_every_runtime() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/kubepods/besteffort/pod0d1b/{ID}"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
            format!("/kubepods.slice/crio-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
        ] {
            assert_eq!(container_id(path.as_bytes()), Some(ID), "{path}");
        }
        for path in [
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/docker/{}", &ID[1..]),
            format!("/docker/{ID}0"),
            format!("/docker/{}", ID.to_uppercase()),
        ] {
            assert_eq!(container_id(path.as_bytes()), None, "{path}");
        }
        let v1 = format!("4:memory:/docker/{ID}\n1:name=systemd:/\n0::/\n");
        check(&v1, "/", None, Some(ID));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_cgroup(&bytes);
        }
    }
}
