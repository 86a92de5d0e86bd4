//! What a machine has that a deployment could leave behind: processes, mounts, network interfaces and
//! namespaces, cgroups, tracing instances. Compared before a start and after a stop.

use std::fs;
use std::path::Path;

/// Cgroup levels that are looked at.
const DEPTH: usize = 4;

/// Everything that is there, one line each, sorted. `root` is the file system of the machine.
pub fn traces(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    processes(&root.join("proc"), &mut found);
    mounts(&root.join("proc/self/mountinfo"), &mut found);
    let mut list = |dir: &str, what: &str| {
        for name in names(&root.join(dir)) {
            found.push(format!("{what} {name}"));
        }
    };
    list("sys/class/net", "network interface");
    list("run/netns", "network namespace");
    list("sys/kernel/tracing/instances", "tracing instance");
    cgroups(&root.join("sys/fs/cgroup"), "", DEPTH, &mut found);
    found.sort();
    found
}

/// What is there after and was not before.
pub fn left_behind(before: &[String], after: &[String]) -> Vec<String> {
    let mut rest: Vec<&String> = before.iter().collect();
    let new = |line: &&String| match rest.iter().position(|b| b == line) {
        // Two mounts on one place are two lines.
        Some(at) => {
            rest.swap_remove(at);
            false
        }
        None => true,
    };
    after.iter().filter(new).cloned().collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Programs that run; threads of the kernel come and go.
fn processes(proc: &Path, found: &mut Vec<String>) {
    for pid in names(proc).into_iter().filter(|n| n.parse::<u32>().is_ok()) {
        let read = |file: &str| fs::read(proc.join(&pid).join(file)).unwrap_or_default();
        if !read("cmdline").is_empty() {
            let comm = read("comm");
            found.push(format!("process {pid} {}", String::from_utf8_lossy(&comm).trim_end()));
        }
    }
}

fn mounts(mountinfo: &Path, found: &mut Vec<String>) {
    let text = fs::read_to_string(mountinfo).unwrap_or_default();
    for line in text.lines() {
        let Some((fields, rest)) = line.split_once(" - ") else { continue };
        let at = fields.split(' ').nth(4).unwrap_or_default();
        let kind = rest.split(' ').next().unwrap_or_default();
        found.push(format!("mount {kind} on {at}"));
    }
}

fn cgroups(dir: &Path, name: &str, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if depth > 1 {
            cgroups(&entry.path(), &name, depth - 1, found);
        }
        found.push(format!("cgroup {name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn all_kinds_of_traces_are_found_and_only_new_ones_are_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/1/cmdline", "/init");
        write(root, "proc/1/comm", "init\n");
        write(root, "proc/self/mountinfo", "22 1 0:20 / /proc rw - proc proc rw\n");
        fs::create_dir_all(root.join("sys/class/net/lo")).unwrap();
        let before = traces(root);
        assert_eq!(before, ["mount proc on /proc", "network interface lo", "process 1 init"]);
        assert_eq!(left_behind(&before, &traces(root)), Vec::<String>::new());

        write(root, "proc/7/cmdline", "nginx");
        write(root, "proc/7/comm", "nginx\n");
        write(root, "proc/8/cmdline", "");
        write(
            root,
            "proc/self/mountinfo",
            "22 1 0:20 / /proc rw - proc proc rw\n23 1 0:21 / /proc rw shared:1 - proc proc rw\n",
        );
        for made in ["sys/class/net/svc0", "run/netns/svc", "sys/fs/cgroup/a/b"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        fs::create_dir_all(root.join("sys/kernel/tracing/instances/altaz-boundary")).unwrap();
        assert_eq!(
            left_behind(&before, &traces(root)),
            [
                "cgroup /a",
                "cgroup /a/b",
                "mount proc on /proc",
                "network interface svc0",
                "network namespace svc",
                "process 7 nginx",
                "tracing instance altaz-boundary",
            ]
        );
    }
}
