//! What the exact instrument needs: QEMU with plugins, altaz's own parts, tools that build the lab,
//! a private network, disk and memory. No feature of this machine's kernel beyond tun and
//! namespaces.

use altaz_profile::model::{InstrumentKind, Layer};

use super::{
    Capability, Check, InstrumentReport, KernelFacts, LabParts, MIN_QEMU, Machine, State,
    measured_layers,
};

pub(super) fn examine(m: &Machine<'_>, parts: &LabParts, facts: &KernelFacts) -> InstrumentReport {
    let mut checks = vec![
        architecture(std::env::consts::ARCH),
        qemu(m, parts),
        own_part("plugin", &parts.plugin, "cargo build --release -p altaz-plugin", "plugin"),
        own_part("agent", &parts.agent, "make build", "agent"),
        program(m, "mke2fs", "e2fsprogs"),
        program(m, "mmdebstrap", "mmdebstrap"),
        network(m, facts),
        disk(parts),
        memory(facts, parts),
    ];
    if parts.lab_built {
        let built = format!("built, in {}", parts.cache.display());
        checks.push(Check::yes("lab-image", built));
    } else {
        checks.push(Check::unproven(
            "lab-image",
            "not built yet; building needs the distribution's archive and takes a few minutes",
            "altaz lab build (compare does it by itself)",
        ));
    }
    let state = if checks.iter().any(|c| c.state == State::No) { State::No } else { State::Yes };
    let needs: Vec<String> = checks.iter().map(|c| c.name.clone()).collect();
    let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
    let layers = measured_layers()
        .map(|layer| match layer {
            Layer::VmmHelper => Capability::never(
                layer.as_str(),
                "no deployment of this version starts one (virtiofsd, vhost-user)",
            ),
            Layer::LanguageRuntime => Capability::from_checks(layer.as_str(), &checks, &needs)
                .with_note("native code of the runtime; interpreted functions are not told apart"),
            _ => Capability::from_checks(layer.as_str(), &checks, &needs),
        })
        .collect();
    let boundaries = ["syscall", "vm-exit"]
        .iter()
        .map(|name| Capability::from_checks(name, &checks, &needs))
        .collect();
    InstrumentReport {
        instrument: InstrumentKind::Exact,
        state,
        note: None,
        checks,
        layers,
        boundaries,
    }
}

fn architecture(arch: &str) -> Check {
    if arch == "x86_64" {
        Check::yes("architecture", arch)
    } else {
        Check::no(
            "architecture",
            format!("{arch}: the lab is an x86_64 machine built from x86_64 packages"),
            "run altaz on an x86_64 machine",
        )
    }
}

fn qemu(m: &Machine<'_>, parts: &LabParts) -> Check {
    let install = "apt install qemu-system-x86 (on Debian 12 from bookworm-backports), or name \
                   one with --qemu";
    let Some(path) = m.find_program(&parts.qemu) else {
        return Check::no("qemu", format!("{} not found", parts.qemu), install);
    };
    let shown = path.display();
    let text = match (m.run)(&path, &["--version"]) {
        Ok(text) => text,
        Err(e) => return Check::no("qemu", format!("{shown} --version: {e}"), install),
    };
    let Some(version) = parse_version(&text) else {
        let line = text.lines().next().unwrap_or_default();
        return Check::no("qemu", format!("{shown} says no version: {line:?}"), install);
    };
    let (major, minor, _) = version;
    let number = format!("{}.{}.{}", version.0, version.1, version.2);
    if (major, minor) < MIN_QEMU {
        let (want_major, want_minor) = MIN_QEMU;
        return Check::no(
            "qemu",
            format!("{shown} is {number}; the plugin needs {want_major}.{want_minor} or newer"),
            install,
        );
    }
    match (m.run)(&path, &["-plugin", "help"]) {
        Ok(_) => Check::yes("qemu", format!("{number}, with plugins, {shown}")),
        Err(e) => Check::no(
            "qemu",
            format!("{shown} {number} was built without plugins ({e})"),
            "install the distribution's build, or configure QEMU with --enable-plugins",
        ),
    }
}

/// The version in `QEMU emulator version 10.0.2 (Debian …)`.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let rest = text.split_once("version ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let mut numbers = rest.get(..end)?.split('.').map(|n| n.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

fn own_part(name: &str, path: &std::path::Path, build: &str, flag: &str) -> Check {
    let shown = path.display();
    if path.is_file() {
        Check::yes(name, shown.to_string())
    } else {
        Check::no(
            name,
            format!("{shown} is not there"),
            format!("build it ({build}), or name it with --{flag}"),
        )
    }
}

fn program(m: &Machine<'_>, name: &str, package: &str) -> Check {
    match m.find_program(name) {
        Some(path) => Check::yes(name, path.display().to_string()),
        None => Check::no(name, format!("{name} not found"), format!("apt install {package}")),
    }
}

/// The lab's outside network: a tap device in a network namespace of altaz's own.
fn network(m: &Machine<'_>, facts: &KernelFacts) -> Check {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    let name = "network";
    let tun = m.dev.join("net/tun");
    if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open(&tun) {
        return Check::no(
            name,
            format!("{}: {e}", tun.display()),
            "modprobe tun; in a container, start it with --device /dev/net/tun",
        );
    }
    if facts.has_capability(CAP_SYS_ADMIN) && facts.has_capability(CAP_NET_ADMIN) {
        return Check::yes(name, "tap device in a private network namespace");
    }
    match &facts.userns_refused {
        None => Check::yes(name, "tap device in a network namespace of a user namespace"),
        Some(why) => Check::no(
            name,
            format!("without root a user namespace is needed, and {why}"),
            "run altaz as root, or allow unprivileged user namespaces with sysctl",
        ),
    }
}

fn disk(parts: &LabParts) -> Check {
    let shown = parts.cache.display();
    match parts.cache_free {
        Some(free) if free < parts.cache_needed && !parts.lab_built => Check::no(
            "disk",
            format!("{} free in {shown}, {} needed", gib(free), gib(parts.cache_needed)),
            "free some space, or name another directory with --cache-dir",
        ),
        Some(free) => Check::yes("disk", format!("{} free in {shown}", gib(free))),
        None => Check::unproven(
            "disk",
            format!("free space in {shown} cannot be asked"),
            "name a directory of yours with --cache-dir",
        ),
    }
}

fn memory(facts: &KernelFacts, parts: &LabParts) -> Check {
    match facts.memory_available {
        Some(free) if free < parts.memory_needed => Check::no(
            "memory",
            format!("{} available, {} needed", gib(free), gib(parts.memory_needed)),
            "stop other programs; the lab's machine is given this much",
        ),
        Some(free) => Check::yes("memory", format!("{} available", gib(free))),
        None => Check::unproven("memory", "not shown by the kernel", "mount procfs"),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_qemu_prints() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(parse_version(debian), Some((10, 0, 2)));
        assert_eq!(parse_version("QEMU emulator version 9.2"), Some((9, 2, 0)));
        assert_eq!(parse_version("QEMU emulator version 11.0.0-rc1"), Some((11, 0, 0)));
        assert_eq!(parse_version("sh: not found"), None);
        assert_eq!(parse_version("version ...."), None);
        assert_eq!(parse_version("version 99999999999999.1"), None);
    }

    #[test]
    fn another_architecture_is_refused() {
        assert_eq!(architecture("aarch64").state, State::No);
    }
}
