//! Cgroups: which a process is in, where the hierarchies are mounted (version 1, version 2 and both
//! at once), and what a cgroup's path says about the container or unit that it was made for. Nothing
//! here is created or changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::process::{namespaces_in, text};
use crate::roots::Roots;

/// One line of `/proc/PID/cgroup`: a task's place in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Membership {
    /// Controllers of a version 1 hierarchy (`memory`, `name=systemd`); empty for version 2.
    pub(crate) controllers: String,
    /// Path in the hierarchy, beginning with `/`.
    pub(crate) path: String,
}

impl Membership {
    /// Whether it is that cgroup or one below it. Hierarchies are told apart.
    pub(crate) fn is_under(&self, other: &Membership) -> bool {
        self.controllers == other.controllers && below(&self.path, &other.path)
    }

    /// What it says about the container: the deepest part of the path that an engine made.
    pub(crate) fn container(&self) -> Option<Named> {
        let parts: Vec<&str> = self.path.split('/').collect();
        (1..parts.len()).rev().find_map(|i| {
            let (engine, id) = made_by(parts.get(i - 1).copied(), parts.get(i)?, &self.path)?;
            let path = parts.get(..=i)?.join("/");
            Some(Named {
                engine,
                id: id.to_owned(),
                cgroup: Membership { controllers: self.controllers.clone(), path },
            })
        })
    }
}

/// A container as a cgroup's path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) engine: Engine,
    pub(crate) id: String,
    pub(crate) cgroup: Membership,
}

/// Whether `path` is `top` or below it.
pub(crate) fn below(path: &str, top: &str) -> bool {
    let top = top.trim_end_matches('/');
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Engines name cgroups by the container's id: under systemd `ENGINE-ID.scope`, else `ENGINE/ID`.
fn made_by<'a>(parent: Option<&str>, part: &'a str, path: &str) -> Option<(Engine, &'a str)> {
    const SCOPES: [(&str, Engine); 9] = [
        ("libpod-payload-", Engine::Podman),
        ("libpod-", Engine::Podman),
        ("docker-", Engine::Docker),
        ("cri-containerd-", Engine::Containerd),
        ("nerdctl-", Engine::Containerd),
        ("crio-", Engine::Crio),
        ("runc-", Engine::Runtime),
        ("crun-", Engine::Runtime),
        ("lxc.payload.", Engine::Lxc),
    ];
    // The engine's own monitor, not the container.
    if part.contains("conmon-") || part == "libpod_parent" {
        return None;
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, engine) in SCOPES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| !id.is_empty()) {
            // Only a scope or an id can be meant: `docker-proxy` or `docker-build` are no containers.
            let sure = engine == Engine::Lxc || (part.ends_with(".scope") || is_id(id));
            return sure.then_some((engine, id));
        }
    }
    if let Some(id) = part.strip_prefix("systemd-nspawn@").and_then(|p| p.strip_suffix(".service"))
    {
        return Some((Engine::Nspawn, id));
    }
    match parent {
        Some("docker") if is_id(part) => Some((Engine::Docker, part)),
        Some(_) if is_id(part) && path.contains("/kubepods") => Some((Engine::Containerd, part)),
        _ => None,
    }
}

/// Whether it looks like an engine's container id: 64 hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Parses `/proc/PID/cgroup`; lines that do not look like it are skipped.
pub(crate) fn memberships(text: &str) -> Vec<Membership> {
    let parse = |line: &str| {
        let mut parts = line.splitn(3, ':');
        parts.next()?.parse::<u32>().ok()?;
        let controllers = parts.next()?.to_owned();
        let path = parts.next().filter(|p| p.starts_with('/'))?;
        let path = path.strip_suffix(" (deleted)").unwrap_or(path).to_owned();
        Some(Membership { controllers, path })
    };
    text.lines().filter_map(parse).collect()
}

/// The membership that says most: version 2 and systemd's own hierarchy before others, and never the
/// root of one.
pub(crate) fn telling(all: &[Membership]) -> Option<&Membership> {
    let rank = |m: &&Membership| match m.controllers.as_str() {
        "" => 0,
        "name=systemd" => 1,
        _ => 2,
    };
    all.iter().filter(|m| m.path != "/").min_by_key(rank)
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Mount options that name the controllers; empty for version 2.
    pub(crate) controllers: Vec<String>,
    /// Part of the hierarchy that is mounted, as the reader's cgroup namespace shows it.
    pub(crate) root: String,
    /// Where, in these trees.
    pub(crate) at: PathBuf,
    /// Where, as the kernel names it.
    pub(crate) point: PathBuf,
}

impl Mount {
    pub(crate) fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether a membership is one of this hierarchy's.
    pub(crate) fn holds(&self, m: &Membership) -> bool {
        if self.is_v2() {
            return m.controllers.is_empty();
        }
        !m.controllers.is_empty()
            && m.controllers.split(',').all(|c| self.controllers.iter().any(|have| have == c))
    }

    /// Directory of a cgroup; `None` if it is not in the part that is mounted.
    pub(crate) fn directory(&self, path: &str) -> Option<PathBuf> {
        let rest = path.strip_prefix(self.root.trim_end_matches('/'))?;
        Some(self.at.join(rest.trim_start_matches('/')))
    }
}

/// The hierarchies that are mounted.
pub(crate) fn mounts(roots: &Roots) -> Vec<Mount> {
    let info = text(&roots.proc.join("self/mountinfo")).unwrap_or_default();
    info.lines().filter_map(|line| parse_mount(roots, line)).collect()
}

/// A line of proc(5)'s mountinfo: `ID PARENT MAJ:MIN ROOT POINT OPTIONS … - TYPE SOURCE SUPER`.
fn parse_mount(roots: &Roots, line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let kind = back.next()?;
    let options = back.nth(1).unwrap_or_default();
    let controllers = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => {
            options.split(',').filter(|o| *o != "rw" && *o != "ro").map(str::to_owned).collect()
        }
        _ => return None,
    };
    let mut front = front.split(' ').skip(3);
    let root = unescape(front.next()?);
    let point = PathBuf::from(unescape(front.next()?));
    Some(Mount { controllers, root, at: roots.rebase(&point), point })
}

/// Spaces, tabs, newlines and backslashes are written as `\ooo`.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |t, (code, plain)| t.replace(code, plain))
}

/// Inode number of the first cgroup namespace (`PROC_CGROUP_INIT_INO` of `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: u64 = 0xefff_fffb;

/// Whether this reader sees cgroups from the hierarchy's real root. In a cgroup namespace of its own
/// paths begin further down, and a level counted from them is not the kernel's.
pub(crate) fn absolute(roots: &Roots) -> bool {
    let own = namespaces_in(&roots.proc.join("self/ns"));
    own.get("cgroup").is_none_or(|inode| *inode == FIRST_NAMESPACE)
}

/// A cgroup of the version 2 hierarchy, by which BPF programs can filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory as the kernel names it (`/sys/fs/cgroup/system.slice/nginx.service`).
    pub path: PathBuf,
    /// The kernel's id of it: the inode number of the directory.
    pub id: u64,
    /// Its depth below the root of the hierarchy, which has level 0.
    pub level: u32,
}

impl Cgroup {
    /// The cgroup of this path in the version 2 hierarchy; `None` for its root, or where it is not
    /// mounted or gone.
    pub(crate) fn open(mounts: &[Mount], path: &str) -> Option<Self> {
        let level = Path::new(path).components().count().saturating_sub(1) as u32;
        let mount = mounts.iter().find(|m| m.is_v2())?;
        let dir = mount.directory(path)?;
        let id = std::fs::metadata(&dir).ok()?.ino();
        let rest = dir.strip_prefix(&mount.at).ok()?;
        (level > 0).then(|| Self { path: mount.point.join(rest), id, level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c9b8a7d6e5f4c3b2a19080706050403020100ffeeddccbbaa998877665544";

    fn container(path: &str) -> Option<(Engine, String, String)> {
        let m = Membership { controllers: String::new(), path: path.replace("ID", ID) };
        m.container().map(|n| (n.engine, n.id.replace(ID, "ID"), n.cgroup.path.replace(ID, "ID")))
    }

    #[test]
    fn each_engine_is_told_by_the_path_it_makes() {
        let cases = [
            (
                "/machine.slice/libpod-ID.scope/container",
                Engine::Podman,
                "/machine.slice/libpod-ID.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                Engine::Podman,
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            ),
            (
                "/system.slice/web.service/libpod-payload-ID",
                Engine::Podman,
                "/system.slice/web.service/libpod-payload-ID",
            ),
            ("/libpod_parent/libpod-ID", Engine::Podman, "/libpod_parent/libpod-ID"),
            (
                "/system.slice/docker-ID.scope/init.scope",
                Engine::Docker,
                "/system.slice/docker-ID.scope",
            ),
            ("/docker/ID", Engine::Docker, "/docker/ID"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12.slice/cri-containerd-ID.scope",
                Engine::Containerd,
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12.slice/cri-containerd-ID.scope",
            ),
            ("/kubepods/burstable/pod12/ID", Engine::Containerd, "/kubepods/burstable/pod12/ID"),
            (
                "/kubepods.slice/x.slice/crio-ID.scope",
                Engine::Crio,
                "/kubepods.slice/x.slice/crio-ID.scope",
            ),
        ];
        for (path, engine, cgroup) in cases {
            assert_eq!(container(path), Some((engine, "ID".into(), cgroup.into())), "{path}");
        }
        assert_eq!(
            container("/lxc.payload.web/system.slice"),
            Some((Engine::Lxc, "web".into(), "/lxc.payload.web".into()))
        );
        assert_eq!(container("/system.slice/runc-web.scope").map(|c| c.1), Some("web".into()));
    }

    #[test]
    fn the_innermost_of_nested_containers_is_meant() {
        let inner = "a".repeat(64);
        assert_eq!(container(&format!("/docker/ID/docker/{inner}")).map(|c| c.1), Some(inner));
    }

    #[test]
    fn what_belongs_to_an_engine_is_not_its_container() {
        for path in [
            "/",
            "/system.slice/docker.service",
            "/system.slice/docker-registry.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/x.slice/crio-conmon-ID.scope",
            "/libpod_parent",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
        ] {
            assert_eq!(container(path), None, "{path}");
        }
    }

    #[test]
    fn a_neighbour_with_a_longer_name_is_not_below() {
        assert!(below("/a/b", "/a") && below("/a", "/a") && below("/a", "/"));
        assert!(!below("/ab", "/a"));
    }

    #[test]
    fn a_hybrid_machine_s_hierarchies_are_told_apart() {
        let roots = Roots::under(Path::new("/t"));
        let memory = parse_mount(
            &roots,
            "34 25 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
        )
        .unwrap();
        let systemd = parse_mount(
            &roots,
            "35 25 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
        )
        .unwrap();
        let unified = parse_mount(
            &roots,
            "36 25 0:32 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw",
        )
        .unwrap();
        let lines = memberships("9:name=systemd:/init.scope\n4:memory:/a\n0::/b\nnonsense\n");
        assert_eq!(lines.len(), 3);
        let held = |m: &Mount| {
            lines.iter().filter(|l| m.holds(l)).map(|l| l.path.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(held(&memory), ["/a"]);
        assert_eq!(held(&systemd), ["/init.scope"]);
        assert_eq!(held(&unified), ["/b"]);
        assert_eq!(unified.directory("/b/c"), Some("/t/sys/fs/cgroup/unified/b/c".into()));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            for m in memberships(&text) {
                m.container();
            }
            parse_mount(&Roots::under(Path::new("/t")), &text);
        }
    }
}
