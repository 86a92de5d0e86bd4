//! The service as a process: its user, environment and program, from spec and image.
//!
//! Used by the bare process here and by the agent of a nested guest; container runtimes get the same
//! values through their bundle.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::DeployError;
use crate::exec::{self, Child, Spot, Stdio3};
use crate::model::{Service, ServiceSpec};

/// Search path that a service gets unless its spec sets another.
pub const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Looks up the service's user in the image at `root`.
///
/// # Errors
/// When the image has no such user.
pub fn user(root: &Path, service: &Service) -> Result<User, DeployError> {
    let read = |name: &str| match fs::read(root.join(name)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(DeployError::system(format!("read the image's {name}"))(e)),
    };
    let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
    resolve(&service.user, &passwd, &group)
        .ok_or_else(|| DeployError::Image(format!(
            "has no user `{}` in its /etc/passwd; write one of its users, or uid:gid, in service.user",
            service.user
        )))
}

/// The user `wanted` (a name, `uid` or `uid:gid`) by the texts of `/etc/passwd` and `/etc/group`.
pub fn resolve(wanted: &str, passwd: &str, group: &str) -> Option<User> {
    let fields = |line: &'_ str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = |matches: &dyn Fn(&[String]) -> bool| {
        passwd.lines().map(fields).find(|f| f.len() >= 7 && matches(f))
    };
    let (name, explicit_gid) = match wanted.split_once(':') {
        Some((u, g)) => (u, Some(g.parse::<u32>().ok()?)),
        None => (wanted, None),
    };
    let found = match name.parse::<u32>() {
        Ok(uid) => entry(&|f| f[2].parse() == Ok(uid)),
        Err(_) => entry(&|f| f[0] == name),
    };
    let Some(f) = found else {
        // A number needs no entry; root is root in an image without a user database.
        let uid = if name == "root" { 0 } else { name.parse().ok()? };
        let gid = explicit_gid.unwrap_or(uid);
        let home = if uid == 0 { "/root" } else { "/" };
        return Some(User { uid, gid, groups: vec![gid], home: home.into() });
    };
    let (uid, gid) = (f[2].parse().ok()?, explicit_gid.or(f[3].parse().ok())?);
    let member = |g: &Vec<String>| g.len() >= 4 && g[3].split(',').any(|m| m == f[0]);
    let mut groups = vec![gid];
    groups
        .extend(group.lines().map(fields).filter(member).filter_map(|g| g[2].parse::<u32>().ok()));
    groups.dedup();
    Some(User { uid, gid, groups, home: f[5].clone() })
}

/// The service's environment: `PATH` and `HOME` unless the spec sets them, then the spec's.
pub fn environment(service: &Service, home: &str) -> Vec<(String, String)> {
    let mut env = service.env.clone();
    env.entry("PATH".into()).or_insert_with(|| SERVICE_PATH.into());
    env.entry("HOME".into()).or_insert_with(|| home.into());
    env.into_iter().collect()
}

/// Where a service that is a plain process runs.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Its root.
    pub root: PathBuf,
    /// Network namespace, if not the caller's.
    pub netns: Option<PathBuf>,
    /// Cgroup, if not the caller's.
    pub cgroup: Option<PathBuf>,
    /// File for its output.
    pub log: PathBuf,
}

/// Starts the service as a process with `root` as its root directory.
///
/// # Errors
/// When the image lacks the user, the working directory or the program.
pub fn start(spec: &ServiceSpec, at: &Surroundings) -> Result<Child, DeployError> {
    let service = &spec.service;
    let user = user(&at.root, service)?;
    check_workdir(&at.root, &service.workdir)?;
    let stdio = Stdio3::logged(&at.log)
        .map_err(DeployError::system(format!("open the log {}", at.log.display())))?;
    let spot = Spot {
        cgroup: at.cgroup.clone(),
        netns: at.netns.clone(),
        hide: None,
        root: Some((at.root.clone(), PathBuf::from(&service.workdir))),
        ids: Some((user.uid, user.gid, user.groups)),
        handed: Vec::new(),
    };
    exec::spawn(&service.command, &environment(service, &user.home), &spot, stdio)
}

fn check_workdir(root: &Path, workdir: &str) -> Result<(), DeployError> {
    // Symbolic links are resolved by the kernel inside the root, so only their presence is checked.
    match fs::symlink_metadata(root.join(workdir.trim_start_matches('/'))) {
        Ok(m) if m.is_dir() || m.is_symlink() => Ok(()),
        Ok(_) => Err(DeployError::Image(format!("has a file at service.workdir {workdir}"))),
        Err(_) => Err(DeployError::Image(format!("has no directory {workdir} (service.workdir)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:104:106::/var/lib/postgresql:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nssl-cert:x:105:postgres,www\npostgres:x:106:\n";

    #[test]
    fn a_named_user_gets_its_groups_and_home() {
        let u = resolve("postgres", PASSWD, GROUP).unwrap();
        assert_eq!((u.uid, u.gid), (104, 106));
        assert_eq!(u.groups, [106, 105]);
        assert_eq!(u.home, "/var/lib/postgresql");
    }

    #[test]
    fn numbers_need_no_entry() {
        let u = resolve("1000:2000", PASSWD, GROUP).unwrap();
        assert_eq!((u.uid, u.gid, u.groups), (1000, 2000, vec![2000]));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert_eq!(resolve("nobody", PASSWD, GROUP), None);
        assert_eq!(resolve("0:root", PASSWD, GROUP), None);
    }

    #[test]
    fn root_exists_in_an_empty_image() {
        assert_eq!(resolve("root", "", "").unwrap().uid, 0);
    }
}
