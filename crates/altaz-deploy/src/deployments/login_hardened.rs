//! `login-hardened`: the service under a Unix account, in a sandbox that the account's user makes by
//! itself with bubblewrap: the mitigations that a container has, open to a login too.
//!
//! Namespaces (user, mount, pid, ipc, uts, cgroup), no_new_privs, no capability at all, the seccomp
//! filter that container engines use by default, and a system that is read-only but for the files of
//! the account. The network namespace is the machine's, as for every user. Nobody with more rights
//! than the tenant takes part.

use std::fs;
use std::path::{Path, PathBuf};

use altaz_profile::model::{Layer, Owner};

use super::account::{self, TENANT_ID};
use super::need_program;
use super::started::{ServiceIs, Started};
use crate::exec::{self, FIRST_HANDED, Spot, Stdio3};
use crate::layers::{self, Sharing};
use crate::{
    DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable, launch,
    seccomp, seccomp_filter,
};

/// The deployment.
pub(super) struct LoginHardened;

impl Deployment for LoginHardened {
    fn name(&self) -> &'static str {
        "login-hardened"
    }

    fn summary(&self) -> &'static str {
        "a Unix user in a bubblewrap sandbox of its own making, with a container's mitigations"
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        let mut description = account::describe(self.name(), spec);
        // The sandbox's maker stays as a parent that waits.
        description.layers.insert(
            description.layers.len().saturating_sub(1),
            layers::layer(Layer::HostService, Owner::Provider, Sharing::PerTenant),
        );
        for rule in &mut description.rules {
            if rule.binary.as_deref() == Some("*") && rule.layer.is_none() {
                rule.layer = Some(Layer::HostService);
            }
        }
        description.boundaries = vec![layers::container_syscalls(Layer::App, Layer::HostKernel)];
        description.notes.push(
            "bubblewrap, run by the account itself: user, mount, pid, ipc, uts and \
             cgroup namespaces, no_new_privs, no capabilities, the default seccomp profile of \
             container engines (calls of the 32-bit ABI end the process), system read-only"
                .into(),
        );
        description
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        account::available(lab)?;
        need_program("bwrap", "bubblewrap")?;
        for file in ["kernel/unprivileged_userns_clone", "user/max_user_namespaces"] {
            let value = fs::read_to_string(Path::new("/proc/sys").join(file));
            if value.is_ok_and(|v| v.trim() == "0") {
                return Err(Unavailable::new(
                    "the lab's kernel forbids user namespaces to users other than root",
                    format!("set /proc/sys/{file} to another value than 0"),
                ));
            }
        }
        Ok(())
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let machine = account::prepare(lab, spec)?;
        let handed = write_filters(lab)?;
        let user = launch::user(&machine.root, &machine.spec.service)?;
        let line = command_line(&machine.spec, &user.home, &machine.root, &machine.given, &handed);
        let log = lab.run.join("service.log");
        let stdio = Stdio3::logged(&log)
            .map_err(DeployError::system(format!("open the log {}", log.display())))?;
        let spot = Spot {
            cgroup: Some(machine.cgroup.path().to_owned()),
            netns: Some(machine.namespace.path()),
            ids: Some((TENANT_ID, TENANT_ID, user.groups)),
            handed,
            ..Spot::default()
        };
        let child = exec::spawn(&line, &[], &spot, stdio)?;
        Ok(Box::new(Started {
            child,
            service: ServiceIs::ItsChild,
            log,
            beside: Vec::new(),
            neighbour: Some(machine.neighbour),
            shared_host: true,
            notes: Vec::new(),
            cgroup: machine.cgroup,
            mounts: machine.mounts,
            _namespace: machine.namespace,
        }))
    }
}

/// Writes the compiled filters where the sandbox's maker gets them as descriptors.
fn write_filters(lab: &LabEnv) -> Result<Vec<(i32, PathBuf)>, DeployError> {
    let programs = seccomp_filter::compile(&seccomp::default_profile())
        .map_err(|e| DeployError::Service(format!("cannot compile the default filter: {e}")))?;
    let mut handed = Vec::new();
    for (number, program) in (FIRST_HANDED..).zip(programs) {
        let path = lab.run.join(format!("seccomp-{number}.bpf"));
        fs::write(&path, program)
            .map_err(DeployError::system(format!("write {}", path.display())))?;
        handed.push((number, path));
    }
    Ok(handed)
}

/// The command line of the sandbox. Pure.
fn command_line(
    spec: &ServiceSpec,
    home: &str,
    root: &Path,
    given: &[PathBuf],
    filters: &[(i32, PathBuf)],
) -> Vec<String> {
    let mut line: Vec<String> = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc"]
        .into_iter()
        .chain(["--unshare-uts", "--unshare-cgroup", "--as-pid-1", "--die-with-parent"])
        .chain(["--new-session", "--cap-drop", "ALL", "--hostname", &spec.name])
        .map(str::to_owned)
        .collect();
    let mut add = |words: &[&str]| line.extend(words.iter().map(|w| (*w).to_owned()));
    add(&["--ro-bind", &root.display().to_string(), "/"]);
    add(&["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    for path in given {
        let inside = path.strip_prefix("/").unwrap_or(path);
        add(&["--bind", &root.join(inside).display().to_string(), &path.display().to_string()]);
    }
    add(&["--chdir", &spec.service.workdir, "--clearenv"]);
    for (name, value) in launch::environment(&spec.service, home) {
        add(&["--setenv", &name, &value]);
    }
    for (number, _) in filters {
        add(&["--add-seccomp-fd", &number.to_string()]);
    }
    add(&["--"]);
    line.extend(spec.service.command.iter().cloned());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_read_only_and_only_the_accounts_own_paths_are_not() {
        let text = "name = \"web\"\n[image]\nsuite = \"trixie\"\n[service]\n\
                    command = [\"/serve\", \"--x\"]\nport = 80\n[load]\nrequests = 1\n\
                    http = { path = \"/\", rate = 1 }\n";
        let spec = ServiceSpec::parse(text, Path::new("web.toml")).unwrap();
        let given = [PathBuf::from("/var/lib/db")];
        let line = command_line(
            &spec,
            "/home/tenant",
            "/run/image".as_ref(),
            &given,
            &[(200, "/f".into())],
        )
        .join(" ");
        for part in [
            "--ro-bind /run/image / ",
            "--bind /run/image/var/lib/db /var/lib/db",
            "--cap-drop ALL",
            "--setenv HOME /home/tenant",
            "--add-seccomp-fd 200 -- /serve --x",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(line.matches("--bind").count(), 1, "{line}");
    }
}
