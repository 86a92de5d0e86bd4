//! The parts that a layer's functions fall into.
//!
//! Kernels by source directory, or by module; where a kernel gives no source files (distribution
//! kernels without debug information), its core by the first word of the function's name, which is
//! the kernel's own name-space convention (`tcp_*`, `ext4_*`). The user-space kernel of a sandbox by
//! package. Everything else by binary.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use altaz_profile::results::Component;
use altaz_profile::{Layer, Unit};

use crate::select::Seen;
use crate::sums::Sums;

/// Core kernel functions whose name's first word is shared with no other function.
pub(crate) const OTHER_NAMES: &str = "kernel (other names)";
/// Functions without a name.
const NO_NAME: &str = "(no name)";

/// Components of these functions of one layer, largest first, at most `limit`; and how many there
/// are in all.
pub fn components(seen: &[&Seen<'_>], limit: usize) -> (Vec<Component>, u64) {
    let mut groups: HashMap<Cow<'_, str>, Group> = HashMap::new();
    for s in seen {
        let (name, by_prefix) = component_of(s.unit);
        let group = groups.entry(name).or_default();
        group.sums.add(s.unit.size, s.covered);
        group.by_prefix = by_prefix;
    }
    fold_single_prefixes(&mut groups);

    let total: u64 = groups.values().map(|g| g.sums.functions).sum();
    let mut all: Vec<Component> = groups
        .into_iter()
        .map(|(name, Group { sums, .. })| Component {
            name: name.into_owned(),
            functions: sums.functions,
            bytes: sums.bytes,
            covered_bytes: sums.covered,
            share: sums.functions as f64 / total as f64,
        })
        .collect();
    all.sort_unstable_by(|a, b| b.functions.cmp(&a.functions).then_with(|| a.name.cmp(&b.name)));
    let count = all.len() as u64;
    all.truncate(limit);
    (all, count)
}

/// Names of all components of these functions of one layer, largest first, and for each function
/// the index of its component.
pub(crate) fn grouped(seen: &[&Seen<'_>]) -> (Vec<Arc<str>>, Vec<u32>) {
    let (all, _) = components(seen, usize::MAX);
    let names: Vec<Arc<str>> = all.into_iter().map(|c| c.name.into()).collect();
    let index: HashMap<&str, u32> = names.iter().map(|n| &**n).zip(0..).collect();
    // A prefix of one function was folded into the other names.
    let other = index.get(OTHER_NAMES).copied().unwrap_or_default();
    let of = seen.iter().map(|s| {
        let (name, _) = component_of(s.unit);
        index.get(&*name).copied().unwrap_or(other)
    });
    let of = of.collect();
    (names, of)
}

#[derive(Default)]
struct Group {
    sums: Sums,
    by_prefix: bool,
}

fn fold_single_prefixes(groups: &mut HashMap<Cow<'_, str>, Group>) {
    let mut folded = Sums::default();
    groups.retain(|_, g| {
        let single = g.by_prefix && g.sums.functions == 1;
        if single {
            folded.merge(g.sums);
        }
        !single
    });
    if folded.functions > 0 {
        groups.entry(OTHER_NAMES.into()).or_default().sums.merge(folded);
    }
}

/// The component of a function, and whether it is only a guess from the name's first word.
pub(crate) fn component_of(unit: &Unit) -> (Cow<'_, str>, bool) {
    match unit.layer {
        Layer::HostKernel | Layer::GuestKernel => {
            if unit.binary.starts_with('[') {
                return ((&*unit.binary).into(), false);
            }
            if let Some(dir) = unit.file.as_deref().and_then(source_dir) {
                return (dir.into(), false);
            }
            match kernel_word(&unit.symbol) {
                Some(word) => (format!("{word}_*").into(), true),
                None if unit.symbol.is_empty() => (NO_NAME.into(), false),
                None => (OTHER_NAMES.into(), false),
            }
        }
        Layer::SandboxKernel => (go_package(&unit.symbol).unwrap_or(&unit.binary).into(), false),
        _ if unit.binary.is_empty() => (NO_NAME.into(), false),
        _ => ((&*unit.binary).into(), false),
    }
}

/// Directory of a source file inside the kernel's tree.
fn source_dir(file: &str) -> Option<&str> {
    let file = match file.find("/linux-") {
        Some(at) => file[at + 1..].split_once('/').map_or(file, |(_, rest)| rest),
        None => file.trim_start_matches("./"),
    };
    file.rsplit_once('/').map(|(dir, _)| dir).filter(|dir| !dir.is_empty())
}

/// First word of a kernel function's name; system call entries under one word.
fn kernel_word(symbol: &str) -> Option<&str> {
    const ENTRIES: [&str; 6] =
        ["__x64_sys_", "__ia32_sys_", "__se_sys_", "__do_sys_", "__arm64_sys_", "ksys_"];
    if ENTRIES.iter().any(|e| symbol.starts_with(e)) {
        return Some("sys");
    }
    let (word, _) = symbol.trim_start_matches('_').split_once('_')?;
    (!word.is_empty()).then_some(word)
}

/// Package of a Go function (`gvisor.dev/gvisor/pkg/tcpip/stack`).
fn go_package(symbol: &str) -> Option<&str> {
    // Type arguments may hold slashes and dots of their own.
    let plain = symbol.split(['[', '(']).next()?;
    let after_slash = plain.rfind('/').map_or(0, |at| at + 1);
    let dot = plain[after_slash..].find('.')?;
    Some(&plain[..after_slash + dot]).filter(|package| !package.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unit;

    fn named(layer: Layer, binary: &str, symbol: &str, offset: u64) -> Unit {
        let mut u = unit(layer, binary, offset, &[1]);
        u.symbol = symbol.into();
        u
    }

    fn names(units: &[Unit]) -> Vec<(String, u64)> {
        let seen: Vec<Seen<'_>> = units
            .iter()
            .map(|unit| Seen { unit, covered: unit.covered, windows: vec![0], contexts: vec![] })
            .collect();
        let refs: Vec<&Seen<'_>> = seen.iter().collect();
        components(&refs, 100).0.into_iter().map(|c| (c.name, c.functions)).collect()
    }

    #[test]
    fn a_kernel_without_source_files_falls_into_name_prefixes() {
        let k = |symbol, offset| named(Layer::HostKernel, "kernel", symbol, offset);
        let units = [
            k("tcp_sendmsg", 1),
            k("__tcp_push_pending_frames", 2),
            k("tcp_ack", 3),
            k("__x64_sys_read", 4),
            k("ksys_write", 5),
            k("schedule", 6),
            k("lonely_function", 7),
            k("", 8),
            named(Layer::HostKernel, "[tun]", "tun_get_user", 9),
        ];
        assert_eq!(
            names(&units),
            [
                ("tcp_*".to_owned(), 3),
                ("kernel (other names)".to_owned(), 2),
                ("sys_*".to_owned(), 2),
                ("(no name)".to_owned(), 1),
                ("[tun]".to_owned(), 1),
            ]
        );
    }

    #[test]
    fn a_kernel_with_source_files_falls_into_directories() {
        let mut a = named(Layer::GuestKernel, "kernel", "tcp_ack", 1);
        a.file = Some("net/ipv4/tcp_input.c".into());
        let mut b = named(Layer::GuestKernel, "kernel", "tcp_v4_rcv", 2);
        b.file = Some("/build/reproducible/linux-6.12.9/net/ipv4/tcp_ipv4.c".into());
        assert_eq!(names(&[a, b]), [("net/ipv4".to_owned(), 2)]);
    }

    #[test]
    fn userland_falls_into_binaries_and_a_sentry_into_packages() {
        let tcp = "gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*endpoint).Write";
        let generic = "gvisor.dev/gvisor/pkg/sync.(*Map[go.shape.int,a/b.C]).Load";
        let units = [
            named(Layer::App, "/usr/sbin/nginx", "main", 1),
            named(Layer::SandboxKernel, "/usr/bin/runsc", tcp, 2),
            named(Layer::SandboxKernel, "/usr/bin/runsc", generic, 3),
            named(Layer::SandboxKernel, "/usr/bin/runsc", "runtime.mallocgc", 4),
            named(Layer::SandboxKernel, "/usr/bin/runsc", "memmove", 5),
        ];
        assert_eq!(
            names(&units).into_iter().map(|(n, _)| n).collect::<Vec<_>>(),
            [
                "/usr/bin/runsc",
                "/usr/sbin/nginx",
                "gvisor.dev/gvisor/pkg/sync",
                "gvisor.dev/gvisor/pkg/tcpip/transport/tcp",
                "runtime"
            ]
        );
    }

    #[test]
    fn a_limit_keeps_the_largest_and_the_count_says_how_many_there_are() {
        let mut units = vec![named(Layer::App, "/a", "x", 1), named(Layer::App, "/a", "y", 2)];
        units.push(named(Layer::App, "/b", "z", 3));
        let seen: Vec<Seen<'_>> = units
            .iter()
            .map(|unit| Seen { unit, covered: None, windows: vec![], contexts: vec![] })
            .collect();
        let refs: Vec<&Seen<'_>> = seen.iter().collect();
        let (shown, total) = components(&refs, 1);
        assert_eq!((shown.len(), total), (1, 2));
        assert_eq!(shown[0].name, "/a");
        assert!((shown[0].share - 2.0 / 3.0).abs() < 1e-12);
    }
}
