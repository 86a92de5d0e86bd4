//! Reads a service spec: TOML → [`ServiceSpec`], every problem with its line and column.
//!
//! All problems of a file are reported at once. Unknown keys are refused, with a suggestion. The only
//! file system access is the check that the paths which the spec names exist.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use altaz_profile::model::Layer;
use toml::Spanned;
use toml::de::DeTable;

use crate::model::{
    Copy, HttpLoad, Image, LayerGlobs, Load, LoadKind, PodProcess, Ready, ReadyCheck, Service,
    ServiceSpec,
};
use crate::toml_reader::{Fields, Reader, did_you_mean};

/// Why a spec was refused: every problem in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    /// Path of the spec as given.
    pub path: PathBuf,
    /// What is wrong, in the order of the file; never empty.
    pub problems: Vec<Problem>,
}

/// One thing wrong in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, from 1; 0 when the file could not be read at all.
    pub column: usize,
    /// The key with its tables (`image.packages`), empty for the whole file.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.path.display())?;
            if p.line > 0 {
                write!(f, ":{}:{}", p.line, p.column)?;
            }
            write!(f, ": ")?;
            if !p.key.is_empty() {
                write!(f, "{}: ", p.key)?;
            }
            write!(f, "{}", p.message)?;
        }
        Ok(())
    }
}

const TOP: &[&str] = &["name", "image", "service", "process", "ready", "load", "layers"];
const PROCESS: &[&str] = &["name", "image", "command", "workdir", "user", "stop_timeout_s", "env"];
/// Containers of a pod, the service's own apart: each has a disk of its own in the lab.
const MOST_PROCESSES: usize = 8;
const IMAGE: &[&str] = &["suite", "packages", "copy", "setup", "size", "oci"];
const RECIPE_ONLY: &[&str] = &["suite", "packages", "copy", "setup"];
const SERVICE: &[&str] = &["command", "workdir", "user", "port", "stop_timeout_s", "env"];
const READY: &[&str] = &["http", "tcp", "port", "timeout_s"];
const LOAD: &[&str] = &["name", "requests", "http", "command"];
const HTTP: &[&str] = &["method", "path", "rate", "connections", "body", "content_type"];
const COPY: &[&str] = &["from", "to"];

impl ServiceSpec {
    /// Reads and checks a spec file.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or says something that makes no sense.
    pub fn load(path: &Path) -> Result<Self, SpecError> {
        let text = std::fs::read_to_string(path).map_err(|e| SpecError {
            path: path.to_owned(),
            problems: vec![Problem {
                line: 0,
                column: 0,
                key: String::new(),
                message: format!("cannot read this service spec: {e}"),
            }],
        })?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a spec. Relative paths in it are relative to the directory of
    /// `path`.
    ///
    /// # Errors
    /// Every problem, with line and column.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SpecError> {
        let mut r = Reader::new(text);
        let dir = path.parent().unwrap_or(Path::new(""));
        let spec = match DeTable::parse(text) {
            Ok(table) => read(&mut r, table.get_ref(), dir),
            Err(e) => {
                r.at(e.span().unwrap_or(0..0), "", format!("not valid TOML: {}", e.message()));
                None
            }
        };
        let problems = r.into_problems();
        match spec {
            Some(spec) if problems.is_empty() => Ok(spec),
            _ => Err(SpecError { path: path.to_owned(), problems }),
        }
    }
}

fn read(r: &mut Reader<'_>, top: &DeTable<'_>, dir: &Path) -> Option<ServiceSpec> {
    let top = r.fields(top, "", 0..0, TOP);
    let name = top.str(r, "name", true).map(|n| check_name(r, n)).unwrap_or_default();
    let image = top.table(r, "image", true, IMAGE).and_then(|t| read_image(r, &t, dir));
    let service = top
        .table(r, "service", true, SERVICE)
        .and_then(|t| read_service(r, &t, Asked::FromOutside));
    let processes = read_processes(r, &top, dir);
    let port = service.as_ref().map_or(0, |s| s.port);
    let ready = match top.table(r, "ready", false, READY) {
        Some(t) => read_ready(r, &t, port),
        None => Some(Ready { check: ReadyCheck::Tcp, port, timeout_s: 180 }),
    };
    let (load, more_loads) = match read_loads(r, &top) {
        Some(loads) => (Some(loads.0), loads.1),
        None => (None, Vec::new()),
    };
    let layers = read_layers(r, &top);
    Some(ServiceSpec {
        name,
        image: image?,
        service: service?,
        processes,
        ready: ready?,
        load: load?,
        more_loads,
        layers,
    })
}

fn check_name(r: &mut Reader<'_>, name: Spanned<String>) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let n = name.get_ref();
    if n.is_empty() || n.len() > 40 || !n.chars().all(ok) || n.starts_with('-') {
        r.at(
            name.span(),
            "name",
            "must be 1 to 40 letters, digits, `-` or `_`: it becomes part of file names".into(),
        );
    }
    name.into_inner()
}

fn read_image(r: &mut Reader<'_>, t: &Fields<'_>, dir: &Path) -> Option<Image> {
    let size = t.str(r, "size", false).and_then(|s| match parse_size(s.get_ref()) {
        Ok(n) => Some(n),
        Err(why) => {
            r.at(s.span(), "image.size", why);
            None
        }
    });
    if let Some(oci) = t.str(r, "oci", false) {
        for key in RECIPE_ONLY {
            if let Some(span) = t.span_of(key) {
                r.at(
                    span,
                    &format!("image.{key}"),
                    "an image has exactly one source: remove this key or `oci`".into(),
                );
            }
        }
        return Some(Image::Oci { path: existing(r, &oci, "image.oci", dir, true)?, size });
    }
    let Some(suite) = t.str(r, "suite", false) else {
        r.at(
            t.span(),
            "image",
            "needs exactly one source: `suite` (with `packages`, `copy`, `setup`), \
             or `oci` (an OCI archive)"
                .into(),
        );
        return None;
    };
    let word = |s: &str| {
        !s.is_empty()
            && !s.starts_with('-')
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:=~".contains(c))
    };
    if !word(suite.get_ref()) {
        r.at(suite.span(), "image.suite", "must be the name of a suite, such as `trixie`".into());
    }
    let packages = t.strings(r, "packages");
    for p in packages.iter().filter(|p| !word(p.get_ref())) {
        r.at(p.span(), "image.packages", format!("`{}` is not a package name", p.get_ref()));
    }
    let copy = t
        .tables(r, "copy", COPY)
        .into_iter()
        .filter_map(|c| {
            let from = c.str(r, "from", true);
            let to = c.str(r, "to", true);
            let from = existing(r, &from?, "image.copy.from", dir, false)?;
            let to = absolute(r, &to?, "image.copy.to")?;
            Some(Copy { from, to })
        })
        .collect();
    let plain = |v: Vec<Spanned<String>>| v.into_iter().map(Spanned::into_inner).collect();
    let setup = plain(t.strings(r, "setup"));
    Some(Image::Recipe { suite: suite.into_inner(), packages: plain(packages), copy, setup, size })
}

/// The further processes of a pod.
fn read_processes(r: &mut Reader<'_>, top: &Fields<'_>, dir: &Path) -> Vec<PodProcess> {
    let mut processes: Vec<PodProcess> = Vec::new();
    for t in top.tables(r, "process", PROCESS) {
        let name = t.str(r, "name", true);
        if let Some(n) = &name
            && processes.iter().any(|p| p.name == *n.get_ref())
        {
            r.at(n.span(), "process.name", format!("two processes are called `{}`", n.get_ref()));
        }
        let name = name.map(|n| check_name(r, n));
        let image = t.table(r, "image", true, IMAGE).and_then(|i| read_image(r, &i, dir));
        let service = read_service(r, &t, Asked::FromInside);
        if let (Some(name), Some(image), Some(service)) = (name, image, service) {
            processes.push(PodProcess { name, image, service });
        }
    }
    if processes.len() > MOST_PROCESSES {
        let span = top.span_of("process").unwrap_or(top.span());
        let problem =
            format!("a pod has at most {MOST_PROCESSES} processes beside the service's own");
        r.at(span, "process", problem);
    }
    processes
}

/// Who asks a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The load, at its port.
    FromOutside,
    /// The other processes of its pod.
    FromInside,
}

fn read_service(r: &mut Reader<'_>, t: &Fields<'_>, asked: Asked) -> Option<Service> {
    let command = command(r, t, "service.command", true);
    let workdir = match t.str(r, "workdir", false) {
        Some(w) => absolute(r, &w, "service.workdir").unwrap_or_default(),
        None => "/".into(),
    };
    let user = t.str(r, "user", false).map_or_else(
        || "root".into(),
        |u| {
            if u.get_ref().is_empty() {
                r.at(u.span(), "service.user", "must not be empty; leave it out for root".into());
            }
            u.into_inner()
        },
    );
    let port = match asked {
        Asked::FromOutside => t.integer(r, "port", true, 1..=65535),
        Asked::FromInside => Some(0),
    };
    let stop_timeout_s = t.integer(r, "stop_timeout_s", false, 1..=600).unwrap_or(20);
    let mut env = BTreeMap::new();
    if let Some(table) = t.open_table(r, "env") {
        for key in table.keys() {
            if key.is_empty() || key.contains(['=', '\0']) {
                let span = table.span_of(&key).unwrap_or(table.span());
                r.at(span, "service.env", format!("`{key}` cannot name an environment variable"));
            }
            if let Some(v) = table.str(r, &key, true) {
                env.insert(key, v.into_inner());
            }
        }
    }
    Some(Service {
        command: command?,
        workdir,
        user,
        port: port? as u16,
        stop_timeout_s: stop_timeout_s as u32,
        env,
    })
}

fn read_ready(r: &mut Reader<'_>, t: &Fields<'_>, service_port: u16) -> Option<Ready> {
    let http = t.str(r, "http", false);
    let tcp = t.boolean(r, "tcp");
    let check = match (http, tcp.as_ref().map(|s| *s.get_ref())) {
        (Some(path), None | Some(false)) => ReadyCheck::Http(url_path(r, path, "ready.http")),
        (None, Some(true)) => ReadyCheck::Tcp,
        (Some(path), Some(true)) => {
            r.at(path.span(), "ready.http", "one check only: remove `http` or `tcp`".into());
            return None;
        }
        (None, _) => {
            r.at(
                t.span(),
                "ready",
                "needs a check: `http = \"/\"` (must answer 2xx) or `tcp = true`".into(),
            );
            return None;
        }
    };
    let port = t.integer(r, "port", false, 1..=65535).map_or(service_port, |p| p as u16);
    let timeout_s = t.integer(r, "timeout_s", false, 1..=3600).unwrap_or(180) as u32;
    Some(Ready { check, port, timeout_s })
}

/// One `[load]`, or several `[[load]]` with a name each.
fn read_loads(r: &mut Reader<'_>, top: &Fields<'_>) -> Option<(Load, Vec<Load>)> {
    let tables = if top.is_list("load") {
        top.tables(r, "load", LOAD)
    } else {
        top.table(r, "load", true, LOAD).into_iter().collect()
    };
    if tables.is_empty() && top.is_list("load") {
        let span = top.span_of("load").unwrap_or(top.span());
        r.at(span, "load", "must not be empty".into());
    }
    let several = tables.len() > 1;
    let mut names: Vec<String> = Vec::new();
    let mut loads = Vec::new();
    for t in &tables {
        let load = read_load(r, t, several);
        let name = load.as_ref().map(|l| l.name.clone()).unwrap_or_default();
        if !name.is_empty() && names.contains(&name) {
            let span = t.span_of("name").unwrap_or(t.span());
            r.at(span, "load.name", format!("two loads are called `{name}`"));
        }
        names.push(name);
        loads.push(load);
    }
    let mut loads = loads.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
    Some((loads.next()?, loads.collect()))
}

fn read_load(r: &mut Reader<'_>, t: &Fields<'_>, several: bool) -> Option<Load> {
    let name = match t.str(r, "name", several) {
        Some(name) => check_load_name(r, name),
        None => String::new(),
    };
    let requests = t.integer(r, "requests", true, 1..=100_000_000);
    let http = t.table(r, "http", false, HTTP);
    let kind = match (http, t.span_of("command")) {
        (Some(_), Some(span)) => {
            r.at(span, "load.command", "one load only: remove `http` or `command`".into());
            None
        }
        (Some(h), None) => read_http_load(r, &h).map(LoadKind::Http),
        (None, Some(_)) => command(r, t, "load.command", true).map(LoadKind::Command),
        (None, None) => {
            if t.span_of("http").is_none() {
                r.at(
                    t.span(),
                    "load",
                    "needs a load: `http = { path = \"/\", rate = 10.0 }`, or \
                     `command = [\"program\", \"{host}\", \"{port}\", \"{requests}\"]`"
                        .into(),
                );
            }
            None
        }
    };
    Some(Load { name, requests: requests? as u64, kind: kind? })
}

fn check_load_name(r: &mut Reader<'_>, name: Spanned<String>) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let n = name.get_ref();
    if n.is_empty() || n.len() > 40 || !n.chars().all(ok) {
        r.at(name.span(), "load.name", "must be 1 to 40 letters, digits, `-` or `_`".into());
    }
    name.into_inner()
}

fn read_http_load(r: &mut Reader<'_>, h: &Fields<'_>) -> Option<HttpLoad> {
    let method = match h.str(r, "method", false) {
        None => "GET".to_owned(),
        Some(m) => {
            if m.get_ref().is_empty() || !m.get_ref().chars().all(|c| c.is_ascii_uppercase()) {
                r.at(
                    m.span(),
                    "load.http.method",
                    "must be an HTTP method in capitals, such as `GET` or `POST`".into(),
                );
            }
            m.into_inner()
        }
    };
    let path = h.str(r, "path", true).map(|p| url_path(r, p, "load.http.path"));
    let rate = h.number(r, "rate", true);
    if let Some(v) = &rate {
        let rate = *v.get_ref();
        if !(rate > 0.0 && rate <= 1_000_000.0) {
            r.at(
                v.span(),
                "load.http.rate",
                "must be above 0 and at most 1000000 requests per second".into(),
            );
        }
    }
    let connections = h.integer(r, "connections", false, 1..=10_000).unwrap_or(1) as u32;
    let body = h.str(r, "body", false).map(Spanned::into_inner).unwrap_or_default();
    let content_type = h.str(r, "content_type", false).and_then(|c| {
        if c.get_ref().chars().any(char::is_control) {
            r.at(c.span(), "load.http.content_type", "must be one line".into());
        }
        Some(c.into_inner()).filter(|c| !c.is_empty())
    });
    Some(HttpLoad {
        method,
        path: path?,
        rate: rate?.into_inner(),
        connections,
        body,
        content_type,
    })
}

fn read_layers(r: &mut Reader<'_>, top: &Fields<'_>) -> Vec<LayerGlobs> {
    let Some(t) = top.open_table(r, "layers") else { return Vec::new() };
    let names: Vec<&str> = Layer::ALL.iter().map(|l| l.as_str()).collect();
    let mut out = Vec::new();
    for key in t.keys() {
        let globs = t.strings(r, &key);
        let Some(layer) = Layer::parse(&key) else {
            let hint = did_you_mean(&key, &names);
            let span = t.span_of(&key).unwrap_or(t.span());
            r.at(span, &format!("layers.{key}"), format!("no layer has this name{hint}"));
            continue;
        };
        for g in &globs {
            if let Err(e) = globset::Glob::new(g.get_ref()) {
                r.at(g.span(), &format!("layers.{key}"), format!("not a valid glob: {e}"));
            }
        }
        out.push(LayerGlobs { layer, globs: globs.into_iter().map(Spanned::into_inner).collect() });
    }
    out
}

fn command(r: &mut Reader<'_>, t: &Fields<'_>, key: &str, required: bool) -> Option<Vec<String>> {
    let span = match t.span_of("command") {
        Some(span) => span,
        None => {
            if required {
                r.at(t.span(), key, "is missing: a list, program first".into());
            }
            return None;
        }
    };
    let before = r.problem_count();
    let words: Vec<String> = t.strings(r, "command").into_iter().map(Spanned::into_inner).collect();
    if r.problem_count() > before {
        return None;
    }
    if words.first().is_none_or(String::is_empty) {
        r.at(span, key, "must not be empty: a list, program first".into());
        return None;
    }
    if words.iter().any(|w| w.contains('\0')) {
        r.at(span, key, "must not contain NUL characters".into());
        return None;
    }
    Some(words)
}

fn url_path(r: &mut Reader<'_>, p: Spanned<String>, key: &str) -> String {
    let s = p.get_ref();
    if !s.starts_with('/') || s.chars().any(|c| c.is_control() || c == ' ') {
        r.at(p.span(), key, "must be a path that begins with `/`, without spaces".into());
    }
    p.into_inner()
}

fn absolute(r: &mut Reader<'_>, p: &Spanned<String>, key: &str) -> Option<String> {
    let s = p.get_ref();
    let dots = Path::new(s).components().any(|c| c == std::path::Component::ParentDir);
    if s.starts_with('/') && !dots && !s.contains('\0') {
        return Some(s.clone());
    }
    r.at(p.span(), key, "must be an absolute path in the image, without `..`".into());
    None
}

fn existing(
    r: &mut Reader<'_>,
    p: &Spanned<String>,
    key: &str,
    dir: &Path,
    must_be_file: bool,
) -> Option<PathBuf> {
    let path = dir.join(p.get_ref());
    let shown = path.display();
    let problem = match std::fs::metadata(&path) {
        Err(e) => format!("{shown}: {e}; paths are relative to the spec file"),
        Ok(m) if must_be_file && m.is_dir() => {
            format!("{shown} is a directory; an archive is wanted (`skopeo copy … oci-archive:`)")
        }
        Ok(_) => return Some(std::path::absolute(&path).unwrap_or(path)),
    };
    r.at(p.span(), key, problem);
    None
}

fn parse_size(s: &str) -> Result<u64, String> {
    let bad = || "must be a number with K, M or G, such as `900M` or `2G`".to_owned();
    let (digits, shift) = match s.char_indices().next_back() {
        Some((i, 'K')) => (&s[..i], 10),
        Some((i, 'M')) => (&s[..i], 20),
        Some((i, 'G')) => (&s[..i], 30),
        _ => (s, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let n = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(bad)?;
    if !((64 << 20)..=(1 << 40)).contains(&n) {
        return Err("must lie between 64M and 1024G".into());
    }
    Ok(n)
}
