//! An OCI runtime bundle of the service, with the defaults of Docker and Podman.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::launch::{self, User};
use crate::model::ServiceSpec;
use crate::seccomp;
use crate::{DeployError, LabEnv};

/// Name of the container.
pub const CONTAINER: &str = "altaz-svc";

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
            "cgroupsPath": format!("/{CONTAINER}"),
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
