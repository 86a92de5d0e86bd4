//! Root file systems from the distribution's archive, and disks from root file systems.
//!
//! Every tool runs in a mount and process namespace of its own that ends with altaz, so that a
//! killed build leaves no mount and no process. Without root, in a user namespace too.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use nix::libc;

use super::BuildOptions;
use crate::child::Tool;
use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;

/// What goes into a root file system.
pub(super) struct RootRecipe<'a> {
    pub(super) what: &'a str,
    pub(super) suite: &'a str,
    pub(super) mirror: &'a str,
    pub(super) packages: &'a [String],
    pub(super) exclude: &'a [String],
    /// (from, to): copied as `to`, an absolute path in the root.
    pub(super) copy: &'a [(PathBuf, String)],
    pub(super) setup: &'a [String],
}

const NETWORK_HINT: &str = "images are built from the distribution's package archive: is the \
     network up, is the mirror reachable, is http_proxy set where one is needed, do the package \
     names exist in that suite?";

/// Arguments for `unshare` under which a tool sees only what it should and dies with altaz.
fn namespaces() -> Vec<OsString> {
    let mut args = vec!["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"];
    // SAFETY: geteuid has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        args.extend(["--map-auto", "--map-root-user"]);
    }
    args.push("--");
    args.into_iter().map(OsString::from).collect()
}

fn check_present(program: &str, package: &'static str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // mke2fs is in a directory that ordinary users do not search.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    if dirs.into_iter().any(|dir| dir.join(program).exists()) {
        return Ok(());
    }
    Err(LabError::ToolMissing { tool: program.into(), package, needed_to: "build images" })
}

fn run_isolated(
    program: &str,
    what: &str,
    hint: &'static str,
    args: &[OsString],
    tmp: &Path,
    options: &mut BuildOptions<'_>,
) -> Result<()> {
    let tool = Tool {
        program: "unshare",
        name: program,
        package: "util-linux",
        what,
        needed_to: "build images",
        hint,
    };
    let mut all = namespaces();
    all.push(program.into());
    all.extend(args.iter().cloned());
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    // The distribution's own initrd would never be booted.
    let env: [(&str, &OsStr); 3] =
        [("TMPDIR", tmp.as_os_str()), ("INITRD", "No".as_ref()), ("PATH", path.as_ref())];
    let progress = &mut *options.progress;
    tool.run(all, &env, &options.interrupt, &mut |line| progress.line(line))
}

/// Builds `root.tar` in `dir`.
pub(super) fn root_tar(
    recipe: &RootRecipe<'_>,
    dir: &Path,
    options: &mut BuildOptions<'_>,
) -> Result<()> {
    check_present("mmdebstrap", "mmdebstrap")?;
    options.progress.step(&format!("{}: packages of {}", recipe.what, recipe.suite));
    // SAFETY: geteuid has no arguments and cannot fail.
    let mode = if unsafe { libc::geteuid() } == 0 { "root" } else { "unshare" };
    let mut args: Vec<OsString> = vec![
        format!("--mode={mode}").into(),
        "--variant=minbase".into(),
        "--format=tar".into(),
        "--aptopt=APT::Install-Recommends \"false\"".into(),
        "--aptopt=Acquire::Languages \"none\"".into(),
        "--aptopt=Acquire::Retries \"2\"".into(),
        "--dpkgopt=force-unsafe-io".into(),
    ];
    // mmdebstrap refuses an empty list.
    if !recipe.packages.is_empty() {
        args.push(format!("--include={}", recipe.packages.join(",")).into());
    }
    for glob in recipe.exclude {
        args.push(format!("--dpkgopt=path-exclude={glob}").into());
    }
    for (from, to) in recipe.copy {
        args.push(copy_hook(from, to)?);
    }
    for line in recipe.setup {
        let inside = format!("chroot \"$1\" /bin/sh -ec {}", quoted(line));
        args.push(format!("--customize-hook={inside}").into());
    }
    args.push(recipe.suite.into());
    args.push(dir.join("root.tar").into());
    args.push(recipe.mirror.into());
    let tmp = dir.join("tmp");
    fs::create_dir(&tmp).map_err(LabError::file("create", &tmp))?;
    run_isolated("mmdebstrap", recipe.what, NETWORK_HINT, &args, &tmp, options)?;
    remove_tree(&tmp)
}

/// A shell word that stands for `text` itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The hook that copies a host path *as* a path of the root.
fn copy_hook(from: &Path, to: &str) -> Result<OsString> {
    let target = inside("\"$1\"", to).ok_or_else(|| LabError::Image {
        path: from.to_owned(),
        message: format!("cannot be copied to {to:?}, which is no absolute path without .."),
    })?;
    let from_text = from.to_str().ok_or_else(|| LabError::Image {
        path: from.to_owned(),
        message: "has a name that is not UTF-8".into(),
    })?;
    let hook = format!(
        "--customize-hook=mkdir -p \"$(dirname {target})\" && cp -rT --no-dereference \
         --preserve=mode,links {} {target}",
        quoted(from_text)
    );
    Ok(hook.into())
}

fn inside(root: &str, to: &str) -> Option<String> {
    let fine = to.starts_with('/') && !to.split('/').any(|part| part == "..") && to.len() > 1;
    fine.then(|| format!("{root}{}", quoted(to)))
}

/// Builds `root.ext4` from `root.tar`, both in `dir`. The file is sparse.
pub(super) fn disk(dir: &Path, size: u64, options: &mut BuildOptions<'_>) -> Result<()> {
    check_present("mke2fs", "e2fsprogs")?;
    options.progress.step("making the disk");
    let tree = dir.join("tree");
    fs::create_dir(&tree).map_err(LabError::file("create", &tree))?;
    const HINT: &str = "is the disk full? The cache is in $XDG_CACHE_HOME/altaz";
    // Both steps in one namespace, so that the owners are the same ones in both. What ext4 would
    // initialize later, in a thread of the kernel, is done now: it must not run while a service is
    // measured.
    let script = "set -e; tar -C \"$1/tree\" --numeric-owner --xattrs '--xattrs-include=*' \
                  --anchored --exclude='./dev/*' --exclude='dev/*' -xpf \"$1/root.tar\"; \
                  cd \"$1/tree\"; mkdir -p dev proc sys run; [ -d tmp ] || mkdir -m 1777 tmp; cd /; \
                  mke2fs -q -t ext4 -L altaz -m 0 -E lazy_itable_init=0,lazy_journal_init=0 \
                  -d \"$1/tree\" \"$1/root.ext4\" \"$2\"; rm -rf \"$1/tree\"";
    let kib = format!("{}k", size / 1024);
    let args: Vec<OsString> = vec!["-c".into(), script.into(), "sh".into(), dir.into(), kib.into()];
    run_isolated("sh", "making the disk with tar and mke2fs", HINT, &args, dir, options)
}

/// Removes a directory tree, also one whose files belong to other users of a user namespace.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    let Err(first) = fs::remove_dir_all(path) else { return Ok(()) };
    let tool = Tool {
        program: "unshare",
        name: "rm",
        package: "util-linux",
        what: "removing an unfinished image",
        needed_to: "remove images",
        hint: "remove the directory by hand",
    };
    let mut args = namespaces();
    args.extend(["rm".into(), "-rf".into(), path.into()]);
    let again = tool.run(args, &[], &Interrupt::new(), &mut |_| {});
    if again.is_ok() && !path.exists() {
        return Ok(());
    }
    Err(LabError::file("remove", path)(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_stand_for_themselves() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn copies_stay_inside_the_root() {
        assert!(copy_hook(Path::new("/x"), "/srv/web").is_ok());
        for to in ["srv", "/", "/../etc", "/a/../../b"] {
            assert!(copy_hook(Path::new("/x"), to).is_err(), "{to}");
        }
    }
}
