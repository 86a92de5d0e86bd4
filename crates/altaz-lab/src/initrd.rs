//! The lab's and the nested guest's first root: the agent and the kernel modules it needs.

use std::collections::HashSet;

use crate::cpio::CpioWriter;
use crate::error::{LabError, Result};
use crate::image::LabImage;
use crate::places;

/// Modules without which the lab does not find its disks and network card.
const LAB: &[&str] = &["virtio_blk", "virtio_net"];
/// The same for the guest nested in the lab (virtio over MMIO or PCI).
const GUEST: &[&str] = &["virtio_mmio", "virtio_blk", "virtio_net"];

/// What a guest that runs containers needs besides: loaded by it alone.
const NESTED: &[&str] = &["overlay", "bridge", "veth"];

/// Which machine an initrd is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitrdFor {
    /// The lab VM.
    Lab,
    /// The guest nested in it.
    Guest,
}

/// Builds an initrd from the agent's bytes and the image's modules.
///
/// # Errors
/// When the image cannot be read or has not the modules.
pub fn build(image: &LabImage, agent: &[u8], machine: InitrdFor) -> Result<Vec<u8>> {
    let sets: &[(&str, &[&str])] = match machine {
        InitrdFor::Lab => &[("modules", LAB)],
        InitrdFor::Guest => &[("modules", GUEST), (places::NESTED_MODULES, NESTED)],
    };
    let tar = image.tar()?;
    let modules_dir = format!("/usr/lib/modules/{}", image.kernel_release());
    let bad = |message: String| LabError::Image { path: image.dir().to_owned(), message };
    let dep = tar.read(&format!("{modules_dir}/modules.dep"))?;
    let builtin = tar.read(&format!("{modules_dir}/modules.builtin"))?;
    let dep = String::from_utf8_lossy(&dep).into_owned();
    let builtin = String::from_utf8_lossy(&builtin).into_owned();

    let mut cpio = CpioWriter::new();
    for dir in ["dev", "proc", "sys"] {
        cpio.directory(dir, 0o755);
    }
    cpio.char_device("dev/console", 0o600, (5, 1));
    cpio.file("init", 0o755, agent);
    for (dir, wanted) in sets {
        let order = load_order(&dep, &builtin, wanted)
            .map_err(|missing| bad(format!("has no kernel module {missing}")))?;
        let dir = dir.trim_start_matches('/');
        cpio.directory(dir, 0o755);
        let mut names = String::new();
        for path in &order {
            let name = path.rsplit('/').next().unwrap_or(path);
            let module = tar.read(&format!("{modules_dir}/{path}"))?;
            cpio.file(&format!("{dir}/{name}"), 0o644, &module);
            names.push_str(name);
            names.push('\n');
        }
        cpio.file(&format!("{dir}/release"), 0o644, image.kernel_release().as_bytes());
        cpio.file(&format!("{dir}/order"), 0o644, names.as_bytes());
    }
    Ok(cpio.finish())
}

/// Module names compare with `-` and `_` alike; the file's extensions do not count.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Paths of the wanted modules and what they need, needed ones first.
fn load_order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>, String> {
    let built_in: HashSet<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        if built_in.contains(*name) {
            continue;
        }
        let line = dep
            .lines()
            .find(|l| module_name(l.split(':').next().unwrap_or_default()) == *name)
            .ok_or_else(|| (*name).to_owned())?;
        let (path, needs) = line.split_once(':').ok_or_else(|| (*name).to_owned())?;
        // modules.dep lists every indirect need, deepest last.
        for path in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|p| p == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/virtio_net.ko.xz: kernel/a/net_failover.ko.xz kernel/b/failover.ko.xz\n\
                       kernel/a/virtio-blk.ko.xz:\n\
                       kernel/a/net_failover.ko.xz: kernel/b/failover.ko.xz\n";

    #[test]
    fn modules_come_after_what_they_need() {
        let order =
            load_order(DEP, "kernel/x/virtio.ko\n", &["virtio_net", "virtio_blk", "virtio"])
                .unwrap();
        assert_eq!(
            order,
            [
                "kernel/b/failover.ko.xz",
                "kernel/a/net_failover.ko.xz",
                "kernel/a/virtio_net.ko.xz",
                "kernel/a/virtio-blk.ko.xz"
            ]
        );
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        assert_eq!(load_order(DEP, "", &["nvme"]), Err("nvme".into()));
    }
}
