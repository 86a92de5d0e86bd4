//! Containers by id and name, from the files that engines and runtimes keep: no daemon is asked, so
//! it works for all of them, also when the daemon hangs.
//!
//! Formats: `containers.json` of containers/storage; `config.v2.json` of Docker; `config.json` and
//! `init.pid` in containerd's task directories; `state.json` of runc (libcontainer's `State`);
//! `status` of crun (`libcrun_container_status_s`); `*.state` of gVisor (`container.Container`).
//! A file that does not parse is passed over: it may be another program's, or half written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cgroup::is_id;
use crate::process::text;
use crate::roots::Roots;

/// Who made a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// Podman (or another user of libpod).
    Podman,
    /// Docker.
    Docker,
    /// containerd: Kubernetes, nerdctl, `ctr`.
    Containerd,
    /// CRI-O.
    Crio,
    /// LXC.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// A runtime that was started directly.
    Runtime,
}

impl Engine {
    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
            Self::Runtime => "started directly",
        }
    }
}

/// Program that set the container up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// runc.
    Runc,
    /// crun.
    Crun,
    /// gVisor's runsc.
    Runsc,
}

impl Runtime {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
        }
    }
}

/// What the files say of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) names: Vec<String>,
    pub(crate) engine: Option<Engine>,
    pub(crate) runtime: Option<Runtime>,
    /// First process and its start in clock ticks since boot, where that is recorded.
    pub(crate) init: Option<(u32, Option<u64>)>,
    /// Path in the version 2 hierarchy, or a directory as the kernel names it.
    pub(crate) cgroup: Option<String>,
    /// gVisor: id of the sandbox that it runs in, and its gofer.
    pub(crate) sandbox: Option<String>,
    pub(crate) gofer: Option<u32>,
}

impl Record {
    fn merge(&mut self, other: Record) {
        for name in other.names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        // An engine that gave it a name says more than the runtime that it used.
        if self.engine.is_none() || self.engine == Some(Engine::Runtime) {
            self.engine = other.engine.or(self.engine);
        }
        self.runtime = self.runtime.or(other.runtime);
        self.init = self.init.or(other.init);
        self.cgroup = self.cgroup.take().or(other.cgroup);
        self.sandbox = self.sandbox.take().or(other.sandbox);
        self.gofer = self.gofer.or(other.gofer);
    }
}

/// Containers by id.
pub(crate) type Records = BTreeMap<String, Record>;

/// Everything that the files say; the directories that were looked at are added to `looked`.
pub(crate) fn records(roots: &Roots, looked: &mut Vec<PathBuf>) -> Records {
    let mut all = Records::new();
    let mut add = |(id, record): (String, Record)| all.entry(id).or_default().merge(record);
    let stores = [roots.var_lib.join("containers/storage")];
    let rootless = roots.homes.iter().map(|h| h.join(".local/share/containers/storage"));
    for store in stores.into_iter().chain(rootless).filter(|d| d.is_dir()) {
        podman(&store).into_iter().for_each(&mut add);
        looked.push(store);
    }
    let docker_dirs = [roots.var_lib.join("docker/containers")].into_iter();
    let rootless = roots.homes.iter().map(|h| h.join(".local/share/docker/containers"));
    for dir in docker_dirs.chain(rootless).filter(|d| d.is_dir()) {
        docker(&dir).into_iter().for_each(&mut add);
        looked.push(dir);
    }
    for version in ["v2", "v1"] {
        let dir = roots.run.join(format!("containerd/io.containerd.runtime.{version}.task"));
        if dir.is_dir() {
            containerd(&dir).into_iter().for_each(&mut add);
            looked.push(dir);
        }
    }
    runtimes(&roots.run).into_iter().for_each(&mut add);
    looked.push(roots.run.clone());
    all
}

fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&text(path)?).ok()
}

fn subdirectories(dir: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| {
        let is_dir = e.file_type().ok()?.is_dir();
        is_dir.then_some((e.file_name().to_str()?.to_owned(), e.path()))
    })
}

/// Names in a storage directory of Podman. The drivers' lists have the same form.
fn podman(store: &Path) -> Vec<(String, Record)> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let lists = subdirectories(store).filter(|(name, _)| name.ends_with("-containers"));
    lists
        .flat_map(|(_, dir)| ["containers.json", "volatile-containers.json"].map(|f| dir.join(f)))
        .filter_map(|file| json::<Vec<Entry>>(&file))
        .flatten()
        .map(|e| {
            (e.id, Record { names: e.names, engine: Some(Engine::Podman), ..Record::default() })
        })
        .collect()
}

/// Names in Docker's directory of containers.
fn docker(dir: &Path) -> Vec<(String, Record)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        #[serde(default)]
        pid: u32,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        #[serde(default)]
        name: String,
        state: Option<State>,
    }
    subdirectories(dir)
        .filter(|(id, _)| is_id(id))
        .filter_map(|(id, dir)| {
            let config = json::<Config>(&dir.join("config.v2.json"))?;
            let name = config.name.trim_start_matches('/').to_owned();
            let init = config.state.map(|s| s.pid).filter(|pid| *pid != 0);
            let record = Record {
                names: if name.is_empty() { Vec::new() } else { vec![name] },
                engine: Some(Engine::Docker),
                init: init.map(|pid| (pid, None)),
                ..Record::default()
            };
            Some((id, record))
        })
        .collect()
}

/// Annotations that hold a container's name.
const NAMES: [&str; 2] = ["nerdctl/name", "io.kubernetes.cri.container-name"];

/// Tasks of containerd, by namespace.
fn containerd(dir: &Path) -> Vec<(String, Record)> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    subdirectories(dir)
        .flat_map(|(_, namespace)| subdirectories(&namespace).collect::<Vec<_>>())
        .map(|(id, dir)| {
            let config = json::<Config>(&dir.join("config.json"));
            let annotations = config.map(|c| c.annotations).unwrap_or_default();
            let names = NAMES.iter().filter_map(|key| annotations.get(*key).cloned()).collect();
            let init = text(&dir.join("init.pid")).and_then(|t| t.trim().parse().ok());
            let engine = Some(Engine::Containerd);
            (id, Record { names, engine, init: init.map(|p| (p, None)), ..Record::default() })
        })
        .collect()
}

/// Directories below `/run` that hold no runtime's state and may be large, or another file system.
const SKIPPED: [&str; 9] =
    ["rootfs", "merged", "udev", "lock", "log", "dbus", "credentials", "netns", "initctl"];
/// Directories below `/run` are searched this deep: `/run/user/1000/docker/runtime-runc/moby/ID`.
const DEPTH: u32 = 6;
/// More entries are not looked at.
const ENTRIES: usize = 50_000;

/// State of every runtime, wherever below `/run` it was told to keep it.
fn runtimes(run: &Path) -> Vec<(String, Record)> {
    let mut out = Vec::new();
    let mut left = ENTRIES;
    let mut todo = vec![(run.to_owned(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if left == 0 {
                return out;
            }
            left -= 1;
            let (Ok(kind), name) = (entry.file_type(), entry.file_name()) else { continue };
            let Some(name) = name.to_str() else { continue };
            if kind.is_dir() {
                if depth < DEPTH && !SKIPPED.contains(&name) {
                    todo.push((entry.path(), depth + 1));
                }
            } else if kind.is_file() {
                out.extend(match name {
                    "state.json" => runc(&entry.path()),
                    "status" => crun(&entry.path()),
                    _ if name.ends_with(".state") => runsc(&entry.path()),
                    _ => None,
                });
            }
        }
    }
    out
}

fn runc(file: &Path) -> Option<(String, Record)> {
    #[derive(Deserialize)]
    struct State {
        id: String,
        init_process_pid: u32,
        init_process_start: u64,
        #[serde(default)]
        cgroup_paths: BTreeMap<String, String>,
    }
    let state = json::<State>(file)?;
    let record = Record {
        engine: Some(Engine::Runtime),
        runtime: Some(Runtime::Runc),
        init: Some((state.init_process_pid, Some(state.init_process_start))),
        cgroup: state.cgroup_paths.into_values().next(),
        ..Record::default()
    };
    Some((state.id, record))
}

fn crun(file: &Path) -> Option<(String, Record)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Status {
        pid: u32,
        process_start_time: Option<u64>,
        #[serde(default)]
        cgroup_path: String,
        // Only to be sure that it is crun's.
        #[serde(rename = "rootfs")]
        _rootfs: String,
        #[serde(rename = "bundle")]
        _bundle: String,
    }
    let status = json::<Status>(file)?;
    let id = file.parent()?.file_name()?.to_str()?.to_owned();
    let record = Record {
        engine: Some(Engine::Runtime),
        runtime: Some(Runtime::Crun),
        init: Some((status.pid, status.process_start_time)),
        cgroup: Some(status.cgroup_path).filter(|p| !p.is_empty()),
        ..Record::default()
    };
    Some((id, record))
}

fn runsc(file: &Path) -> Option<(String, Record)> {
    #[derive(Deserialize)]
    struct Sandbox {
        id: String,
        pid: u32,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct State {
        id: String,
        gofer_pid: u32,
        sandbox: Option<Sandbox>,
    }
    let state = json::<State>(file)?;
    let record = Record {
        engine: Some(Engine::Runtime),
        runtime: Some(Runtime::Runsc),
        init: state.sandbox.as_ref().map(|s| (s.pid, None)),
        sandbox: state.sandbox.map(|s| s.id),
        gofer: Some(state.gofer_pid),
        ..Record::default()
    };
    Some((state.id, record))
}
