//! What a process can reach on its host besides what is its own: programs that raise rights, places
//! that it may write to, sockets that it may connect to, processes of other users that it sees.
//!
//! Looked at from outside, through the process's own root and `/proc`, by permission bits, user and
//! groups, and the flags of mounts. Nothing is tried. Read while the service runs and never while it
//! is measured.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use altaz_profile::model::Reachable;
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

/// Names that are listed of each kind.
const NAMES: usize = 24;
/// File systems of the kernel's own objects: what is writable there follows other rules.
const KERNEL_OBJECTS: [u64; 3] = [0x9fa0, 0x6265_6572, 0x6367_7270];

/// Who looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Who {
    uid: u32,
    groups: Vec<u32>,
    no_new_privs: bool,
}

impl Who {
    /// From the text of a process's `status`: the ids that the file system looks at.
    fn of_status(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
        let last = |name: &str| field(name)?.split_ascii_whitespace().last()?.parse().ok();
        let more = field("Groups:")?.split_ascii_whitespace().filter_map(|g| g.parse().ok());
        Some(Self {
            uid: last("Uid:")?,
            groups: last("Gid:").into_iter().chain(more).collect(),
            no_new_privs: field("NoNewPrivs:").is_some_and(|v| v.trim() == "1"),
        })
    }

    /// Whether the mode's bits (`4` read, `2` write, `1` execute) are there for it.
    fn may(&self, file: &Metadata, bits: u32) -> bool {
        if self.uid == 0 {
            return true;
        }
        let shift = if file.uid() == self.uid {
            6
        } else if self.groups.contains(&file.gid()) {
            3
        } else {
            0
        };
        (file.mode() >> shift) & bits == bits
    }
}

/// What the process of this `/proc/PID` can reach. Empty when it has ended.
pub fn survey(process: &Path) -> Vec<Reachable> {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let Some(who) = Who::of_status(&status) else { return Vec::new() };
    let root = process.join("root");
    let mut found = Found::default();
    walk(&root, &root, &who, &mut found);
    let net = |file: &str| fs::read_to_string(process.join("net").join(file)).unwrap_or_default();
    found.sockets.extend(abstract_sockets(&net("unix")));
    for file in ["tcp", "tcp6"] {
        found.sockets.extend(listeners(&net(file), file, who.uid));
    }
    let others = processes(&root.join("proc"), who.uid);
    let kind = |kind: &str, what: &str, names: BTreeSet<String>| Reachable {
        kind: kind.into(),
        what: what.into(),
        count: names.len() as u64,
        names: names.into_iter().take(NAMES).collect(),
    };
    vec![
        kind("setuid", "programs that run with another user's or group's rights", found.setuid),
        kind("writable", "files and directories of others that it may write to", found.writable),
        kind("socket", "sockets of others that it may connect to", found.sockets),
        kind("process", "processes of other users that it sees", others),
    ]
}

#[derive(Default)]
struct Found {
    setuid: BTreeSet<String>,
    writable: BTreeSet<String>,
    sockets: BTreeSet<String>,
}

fn walk(root: &Path, at: &Path, who: &Who, found: &mut Found) {
    let mut todo: Vec<(PathBuf, u64)> = vec![(at.to_owned(), 0)];
    while let Some((dir, device)) = todo.pop() {
        // Through the descriptor of the process's root, which is a link.
        let Ok(here) = fs::metadata(&dir) else { continue };
        if !who.may(&here, 1) || (here.dev() != device && of_kernel_objects(&dir)) {
            continue;
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            let shown = || format!("/{}", path.strip_prefix(root).unwrap_or(&path).display());
            let kind = meta.file_type();
            let own = meta.uid() == who.uid;
            if kind.is_socket() {
                if !own && who.may(&meta, 2) {
                    found.sockets.insert(shown());
                }
                continue;
            }
            if !kind.is_dir() && !kind.is_file() {
                continue;
            }
            let place = || statvfs(&path).map(|s| s.f_flag).unwrap_or(StatVfsMountFlags::empty());
            if !own && who.may(&meta, 2) && !place().contains(StatVfsMountFlags::RDONLY) {
                found.writable.insert(shown());
            }
            if kind.is_file() && raises(&meta, who) && !place().contains(StatVfsMountFlags::NOSUID)
            {
                found.setuid.insert(shown());
            }
            if kind.is_dir() {
                todo.push((path, here.dev()));
            }
        }
    }
}

/// Whether executing the file changes its user or group.
fn raises(file: &Metadata, who: &Who) -> bool {
    let user = file.mode() & 0o4000 != 0 && file.uid() != who.uid;
    let group = file.mode() & 0o2010 == 0o2010 && !who.groups.contains(&file.gid());
    (user || group) && who.may(file, 1) && !who.no_new_privs
}

fn of_kernel_objects(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|s| KERNEL_OBJECTS.contains(&(s.f_type as u64)))
}

/// Names of abstract sockets in a `net/unix`: whoever is in the network namespace may connect.
fn abstract_sockets(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7))
        .filter(|path| path.starts_with('@'))
        .map(|path| format!("abstract {path}"))
}

/// TCP ports on which other users listen, in a `net/tcp`.
fn listeners(text: &str, table: &str, uid: u32) -> Vec<String> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, owner) = (fields.get(1)?, fields.get(3)?, fields.get(7)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let other = owner.parse::<u32>().ok()? != uid;
        (*state == "0A" && other).then(|| format!("{table} port {port} of user {owner}"))
    };
    text.lines().filter_map(of).collect()
}

/// Processes of other users in a `/proc`, the kernel's own threads left out.
fn processes(proc: &Path, uid: u32) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let Some(owner) = Who::of_status(&read("status")).map(|w| w.uid) else { continue };
        let program = fs::read(entry.path().join("cmdline")).is_ok_and(|c| !c.is_empty());
        if owner != uid && program {
            names.insert(format!("{} (pid {pid}, user {owner})", read("comm").trim_end()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn file(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A process of a user who owns nothing here, in a root of its own.
    fn stranger(extra: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let p = dir.path();
        let status = format!(
            "Uid:\t61001\t61001\t61001\t61001\nGid:\t61001 61001 61001 61001\nGroups:\t \n{extra}"
        );
        file(&p.join("status"), 0o644);
        fs::write(p.join("status"), status).unwrap();
        fs::create_dir_all(p.join("real")).unwrap();
        fs::set_permissions(p.join("real"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("real", p.join("root")).unwrap();
        dir
    }

    fn names(process: &Path, kind: &str) -> Vec<String> {
        survey(process).into_iter().find(|r| r.kind == kind).unwrap().names
    }

    #[test]
    fn only_what_the_bits_give_to_a_stranger_is_writable() {
        let dir = stranger("");
        let root = dir.path().join("real");
        file(&root.join("open"), 0o666);
        file(&root.join("closed"), 0o664);
        file(&root.join("shut/open"), 0o666);
        fs::set_permissions(root.join("shut"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(names(dir.path(), "writable"), ["/open"]);
    }

    #[test]
    fn programs_that_raise_rights_do_not_without_new_privileges() {
        let free = stranger("NoNewPrivs:\t0\n");
        let barred = stranger("NoNewPrivs:\t1\n");
        for dir in [&free, &barred] {
            file(&dir.path().join("real/su"), 0o4755);
            file(&dir.path().join("real/private"), 0o4700);
            file(&dir.path().join("real/plain"), 0o755);
        }
        assert_eq!(names(free.path(), "setuid"), ["/su"]);
        assert_eq!(names(barred.path(), "setuid"), Vec::<String>::new());
    }

    #[test]
    fn sockets_are_found_in_the_file_system_and_in_the_network_namespace() {
        let dir = stranger("");
        let path = dir.path().join("real/sock");
        let _keep = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let net = dir.path().join("net");
        file(&net.join("unix"), 0o644);
        fs::write(
            net.join("unix"),
            "Num RefCount Protocol Flags Type St Inode Path\n\
             0: 2 0 10000 1 01 99 @bus\n0: 2 0 10000 1 01 98 /run/x\n0: 2 0 0 1 01 97\n",
        )
        .unwrap();
        let line = |port: &str, state: &str, uid: u32| {
            format!(" 0: 00000000:{port} 00000000:0000 {state} 0:0 00:0 00 {uid} 0 1\n")
        };
        let table = line("0016", "0A", 0) + &line("1F90", "0A", 61001) + &line("0017", "01", 0);
        fs::write(net.join("tcp"), table).unwrap();
        assert_eq!(
            names(dir.path(), "socket"),
            ["/sock", "abstract @bus", "tcp port 22 of user 0"]
        );
    }

    #[test]
    fn own_processes_and_the_kernels_threads_are_not_other_users_processes() {
        let dir = stranger("");
        let proc = dir.path().join("real/proc");
        for (pid, uid, cmdline) in [("1", 0, "init"), ("2", 0, ""), ("9", 61001, "own")] {
            let at = proc.join(pid);
            file(&at.join("comm"), 0o644);
            fs::write(at.join("comm"), "name\n").unwrap();
            fs::write(at.join("cmdline"), cmdline).unwrap();
            fs::write(at.join("status"), format!("Uid: 0 0 0 {uid}\nGid: 0 0 0 0\nGroups:\n"))
                .unwrap();
        }
        assert_eq!(names(dir.path(), "process"), ["name (pid 1, user 0)"]);
    }

    #[test]
    fn an_ended_process_reaches_nothing() {
        assert!(survey(Path::new("/nonexistent")).is_empty());
    }
}
