//! The service as a value: what its spec says once it has been read and checked.
//!
//! No parsing (that is [`crate::spec`]) and no starting (that is [`crate::deployments`]). Everything
//! here travels to the lab as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use altaz_profile::model::Layer;
use serde::{Deserialize, Serialize};

/// A service to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Short name; becomes part of file names: letters, digits, `-`, `_`.
    pub name: String,
    /// Where its root file system comes from.
    pub image: Image,
    /// What to run in it.
    pub service: Service,
    /// Further processes, each in a container with an image of its own, that share the service's
    /// network namespace (a pod); started before the service, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<PodProcess>,
    /// When it is ready.
    pub ready: Ready,
    /// What is asked of it while it is measured; of several kinds of requests the first.
    pub load: Load,
    /// The other kinds of requests, made one after the other and profiled apart. When there are any,
    /// every load has a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_loads: Vec<Load>,
    /// The spec's own layer assignments, in the order of the file, before the defaults.
    pub layers: Vec<LayerGlobs>,
}

/// Source of the service's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Image {
    /// Built from the distribution's archive.
    Recipe {
        /// Suite of the distribution (`trixie`).
        suite: String,
        /// Packages to install besides the minimal base.
        packages: Vec<String>,
        /// Files and directories copied in.
        copy: Vec<Copy>,
        /// Shell lines run in the root, as root, after packages and copies.
        setup: Vec<String>,
        /// Size of the disk in bytes; `None` lets the builder choose.
        size: Option<u64>,
    },
    /// An OCI archive (`podman save`, `docker save`, `skopeo copy … oci-archive:`).
    Oci {
        /// Absolute path on the host.
        path: PathBuf,
        /// Size of the disk in bytes; `None` lets the builder choose.
        size: Option<u64>,
    },
}

/// A file or directory copied into the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Path on the host, resolved against the directory of the spec.
    pub from: PathBuf,
    /// Absolute path in the image. A directory is copied *as* this path, not into it.
    pub to: String,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Working directory in the image.
    pub workdir: String,
    /// User to run as: a name of the image's `/etc/passwd`, or `uid[:gid]`.
    pub user: String,
    /// TCP port that it listens on.
    pub port: u16,
    /// Seconds from the stop request (SIGTERM) until it is killed.
    pub stop_timeout_s: u32,
    /// Environment; `PATH` and `HOME` have defaults.
    pub env: BTreeMap<String, String>,
}

/// A process of a pod beside the service's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodProcess {
    /// Its name in messages; unique in the pod.
    pub name: String,
    /// Where its root file system comes from.
    pub image: Image,
    /// What runs in it. Its port is 0: nobody asks it from outside.
    pub service: Service,
}

/// When the service counts as ready, polled from outside the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The question.
    pub check: ReadyCheck,
    /// Port that is asked.
    pub port: u16,
    /// Seconds after which the service counts as never ready.
    pub timeout_s: u32,
}

/// The question that a ready service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyCheck {
    /// `GET` of this path must answer 2xx.
    Http(String),
    /// A TCP connection must be accepted.
    Tcp,
}

/// What is asked of the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Name of this kind of request (`read`, `write`, `login`); empty when there is one kind only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Number of requests in the serve phase; at least 1.
    pub requests: u64,
    /// How they are made.
    pub kind: LoadKind,
}

/// How requests are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadKind {
    /// altaz's own generator, at a constant rate.
    Http(HttpLoad),
    /// A command on the host, in the lab's outside network. `{host}`, `{port}` and `{requests}` are
    /// replaced in its arguments.
    Command(Vec<String>),
}

/// A constant-rate HTTP load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpLoad {
    /// Method (`GET`, `POST` …), upper case.
    pub method: String,
    /// Path with query, beginning with `/`.
    pub path: String,
    /// Requests per second over all connections; above 0.
    pub rate: f64,
    /// Connections kept open; at least 1.
    pub connections: u32,
    /// Body of each request.
    pub body: String,
    /// Content type of the body, where there is one.
    pub content_type: Option<String>,
}

/// Paths of the image that belong to one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerGlobs {
    /// The layer.
    pub layer: Layer,
    /// Globs over paths in the image; `*` also matches `/`.
    pub globs: Vec<String>,
}

impl ServiceSpec {
    /// Every image that it needs, the service's own first.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        std::iter::once(&self.image).chain(self.processes.iter().map(|p| &p.image))
    }

    /// The service of each image, in the same order.
    pub fn services_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        std::iter::once(&mut self.service).chain(self.processes.iter_mut().map(|p| &mut p.service))
    }

    /// The spec as a container of its own sees it that runs this process of the pod.
    pub(crate) fn of_process(&self, process: &PodProcess) -> Self {
        Self {
            name: process.name.clone(),
            image: process.image.clone(),
            service: process.service.clone(),
            processes: Vec::new(),
            ..self.clone()
        }
    }

    /// Every kind of request, in the order in which they are made; at least one.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        std::iter::once(&self.load).chain(&self.more_loads)
    }

    /// The load in words. Two recordings are comparable only if these are equal.
    pub fn load_key(&self) -> String {
        self.loads().map(Load::key).collect::<Vec<_>>().join("; ")
    }

    /// The first load's command with its placeholders filled in; `None` when altaz generates it.
    pub fn load_command(&self, host: &str, requests: u64) -> Option<Vec<String>> {
        self.load.command(host, self.service.port, requests)
    }
}

impl Load {
    /// The load in words, its name first.
    fn key(&self) -> String {
        let n = self.requests;
        let words = match &self.kind {
            LoadKind::Command(argv) => format!("{n} requests by `{}`", argv.join(" ")),
            LoadKind::Http(h) => {
                let body = if h.body.is_empty() {
                    String::new()
                } else {
                    format!(", body of {} bytes", h.body.len())
                };
                let plural = if h.connections == 1 { "" } else { "s" };
                format!(
                    "{n} × {} {}, {} requests/s, {} connection{plural}{body}",
                    h.method, h.path, h.rate, h.connections
                )
            }
        };
        if self.name.is_empty() { words } else { format!("{}: {words}", self.name) }
    }

    /// The load command with its placeholders filled in; `None` when altaz generates the load.
    pub fn command(&self, host: &str, port: u16, requests: u64) -> Option<Vec<String>> {
        let LoadKind::Command(argv) = &self.kind else { return None };
        let port = port.to_string();
        let requests = requests.to_string();
        let fill = |a: &String| {
            a.replace("{host}", host).replace("{port}", &port).replace("{requests}", &requests)
        };
        Some(argv.iter().map(fill).collect())
    }
}
