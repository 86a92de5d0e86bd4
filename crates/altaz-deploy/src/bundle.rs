//! An OCI runtime bundle of the service, with the defaults of Docker and Podman.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::launch::{self, User};
use crate::model::ServiceSpec;
use crate::seccomp;
use crate::{DeployError, LabEnv};

/// Name of the container where the service is the only one.
pub const CONTAINER: &str = "altaz-svc";

/// Name of a container and of its cgroup.
pub fn container(spec: &ServiceSpec) -> String {
    format!("altaz-{}", spec.name)
}

/// What parts of `/proc` and `/sys` a container cannot see.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What parts of `/proc` it cannot change.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The `config.json` of the service. Pure.
pub fn config(spec: &ServiceSpec, user: &User, rootfs: &Path, netns: &Path) -> Value {
    let service = &spec.service;
    let env: Vec<String> = launch::environment(service, &user.home)
        .into_iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    // A user other than root keeps the bounding set and loses the effective one.
    let effective = if user.uid == 0 { seccomp::CAPABILITIES } else { &[] };
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": source, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "hostname": spec.name,
        "root": { "path": rootfs, "readonly": false },
        "process": {
            "terminal": false,
            "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
            "args": service.command,
            "env": env,
            "cwd": service.workdir,
            "noNewPrivileges": false,
            "oomScoreAdj": 0,
            "capabilities": {
                "bounding": seccomp::CAPABILITIES,
                "effective": effective,
                "permitted": effective,
            },
        },
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                  &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", "shm",
                  &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{}", container(spec)),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" }, { "type": "network", "path": netns },
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::default_profile(),
        },
    })
}

/// Writes the bundle for a prepared root file system; returns its directory.
///
/// # Errors
/// When the image lacks the service's user, or the bundle cannot be written.
pub fn write(
    lab: &LabEnv,
    spec: &ServiceSpec,
    rootfs: &Path,
    netns: &Path,
) -> Result<PathBuf, DeployError> {
    let user = launch::user(rootfs, &spec.service)?;
    let dir = lab.run.join("bundle");
    let file = dir.join("config.json");
    let text = config(spec, &user, rootfs, netns).to_string();
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(&file, text))
        .map_err(DeployError::system(format!("write {}", file.display())))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &User) -> Value {
        let text = "name = \"web\"\n[image]\nsuite = \"trixie\"\n[service]\ncommand = [\"/serve\"]\n\
                    port = 80\n[service.env]\nMODE = \"x\"\n[load]\nrequests = 1\n\
                    http = { path = \"/\", rate = 1 }\n";
        let spec = ServiceSpec::parse(text, Path::new("web.toml")).unwrap();
        config(&spec, user, Path::new("/run/rootfs"), Path::new("/run/netns/svc"))
    }

    fn root() -> User {
        User { uid: 0, gid: 0, groups: vec![0], home: "/root".into() }
    }

    #[test]
    fn a_container_has_its_own_namespaces_and_joins_the_prepared_network() {
        let config = of(&root());
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        let kinds: Vec<_> = namespaces.iter().map(|n| n["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup", "network"]);
        assert_eq!(namespaces[5]["path"], "/run/netns/svc");
    }

    #[test]
    fn the_service_gets_its_environment_and_a_search_path() {
        let config = of(&root());
        let env = config["process"]["env"].as_array().unwrap();
        assert!(env.contains(&json!("MODE=x")) && env.contains(&json!("HOME=/root")), "{env:?}");
        assert!(env.iter().any(|e| e.as_str().unwrap().starts_with("PATH=")));
    }

    #[test]
    fn a_user_other_than_root_starts_without_capabilities() {
        let user = User { uid: 104, gid: 106, groups: vec![106, 105], home: "/".into() };
        let capabilities = &of(&user)["process"]["capabilities"];
        assert_eq!(capabilities["effective"], json!([]));
        assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 14);
        assert_eq!(
            of(&root())["process"]["capabilities"]["effective"].as_array().unwrap().len(),
            14
        );
    }
}
