//! What the traversed code consists of: components with their class, language and size.

use std::collections::BTreeMap;

use altaz_profile::{Layer, Profile, Unit};

use super::priors::{Class, Language, Priors};
use crate::components::component_of;
use crate::select::{Seen, Selection};
use crate::sums::Sums;

/// Some code of one layer of which the model knows one density.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Name of the component.
    pub name: String,
    /// Index of its class in the priors; `None` where the priors have none for it.
    pub class: Option<usize>,
    /// Language.
    pub language: Language,
    /// Functions.
    pub functions: u64,
    /// Their whole size in bytes.
    pub bytes: u64,
    /// Executed bytes of them.
    pub covered: Option<u64>,
    /// Density against what the priors say (what-if).
    pub factor: f64,
    /// Rewritten: in which language and how many years ago (what-if).
    pub rewritten: Option<(Language, f64)>,
    /// The old code of a rewrite is left alone and ages, instead of being maintained.
    pub frozen: bool,
}

impl Item {
    /// Code of this size that the priors' class or else its language describes.
    pub fn new(name: &str, class: Option<usize>, language: Language, sums: Sums) -> Self {
        Self {
            name: name.into(),
            class,
            language,
            functions: sums.functions,
            bytes: sums.bytes,
            covered: sums.covered,
            factor: 1.0,
            rewritten: None,
            frozen: false,
        }
    }
}

/// The components of a recording's serve phase by layer.
pub(crate) fn items(selection: &Selection<'_>, priors: &Priors) -> BTreeMap<Layer, Vec<Item>> {
    let mut groups: BTreeMap<(Layer, std::borrow::Cow<'_, str>), (Sums, &Unit)> = BTreeMap::new();
    for Seen { unit, covered, .. } in &selection.serve {
        let (name, _) = component_of(unit);
        let group = groups.entry((unit.layer, name)).or_insert_with(|| (Sums::default(), unit));
        group.0.add(unit.size, *covered);
    }
    let mut layers: BTreeMap<Layer, Vec<Item>> = BTreeMap::new();
    for ((layer, name), (sums, unit)) in groups {
        let class = classify(unit, &name, priors);
        let language =
            class.and_then(|c| priors.classes.get(c)).map_or(Language::C, |c| c.language);
        layers.entry(layer).or_default().push(Item::new(&name, class, language, sums));
    }
    layers
}

/// Functions of the serve phase of which the same is true, for one profile.
pub(crate) fn of_profile(profile: &Profile, priors: &Priors) -> BTreeMap<Layer, Vec<Item>> {
    items(&crate::select::select(profile), priors)
}

/// Index of a component's class: the most specific that fits.
fn classify(unit: &Unit, component: &str, priors: &Priors) -> Option<usize> {
    let kernel = matches!(unit.layer, Layer::HostKernel | Layer::GuestKernel);
    priors
        .classes
        .iter()
        .enumerate()
        .filter_map(|(i, class)| {
            let fits = if kernel {
                fits_kernel(class, component)
            } else {
                fits_user(class, unit, component)
            };
            let by_layer = class.layers.contains(&unit.layer).then_some(0);
            Some((fits.or(by_layer)?, i))
        })
        // Of equally specific ones the first.
        .max_by_key(|&(specific, i)| (specific, std::cmp::Reverse(i)))
        .map(|(_, i)| i)
}

/// How specifically a class names a kernel's component; `None` when it does not.
fn fits_kernel(class: &Class, component: &str) -> Option<usize> {
    let module = component.strip_prefix('[').and_then(|c| c.strip_suffix(']'));
    let word = component.strip_suffix("_*");
    let length = |s: &String| s.trim_end_matches('*').len() + 1;
    match (module, word) {
        (Some(module), _) => class.modules.iter().filter(|m| matches(m, module)).map(length).max(),
        (None, Some(word)) => class.prefixes.iter().filter(|p| *p == word).map(length).max(),
        (None, None) => {
            let below = |dir: &&String| {
                component
                    .strip_prefix(dir.as_str())
                    .is_some_and(|r| r.is_empty() || r.starts_with('/'))
            };
            class.directories.iter().filter(below).map(length).max()
        }
    }
}

fn fits_user(class: &Class, unit: &Unit, component: &str) -> Option<usize> {
    let package =
        class.packages.iter().filter(|p| component.starts_with(p.as_str())).map(String::len);
    let binary = class.binaries.iter().filter(|b| matches(b, &unit.binary)).map(String::len);
    // In a layer of packages the binary says nothing about a package that is not its own.
    let by_package = unit.layer == Layer::SandboxKernel && component != &*unit.binary;
    if by_package { package.max() } else { binary.chain(package).max() }
}

/// Whether a name fits a pattern with `*` at its ends.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => pattern.len() < 2 || name.contains(pattern.trim_matches('*')),
        (Some(tail), None) => name.ends_with(tail),
        (None, Some(head)) => name.starts_with(head),
        (None, None) => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};

    fn class_of(u: &Unit) -> String {
        let priors = Priors::built_in().unwrap();
        let (name, _) = component_of(u);
        let at = classify(u, &name, &priors);
        at.map_or("none".into(), |i| priors.classes[i].name.clone())
    }

    #[test]
    fn a_kernel_component_is_of_its_deepest_directory_module_or_first_word() {
        let k = |binary: &str, symbol: &str, file: Option<&str>| {
            let mut u = unit(Layer::HostKernel, binary, 1, &[1]);
            (u.symbol, u.file) = (symbol.into(), file.map(Into::into));
            class_of(&u)
        };
        assert_eq!(k("kernel", "x", Some("net/ipv4/tcp.c")), "linux net/ipv4");
        assert_eq!(k("kernel", "x", Some("net/ipv4/netfilter/a.c")), "linux net/netfilter");
        assert_eq!(k("kernel", "x", Some("net/ipv6/tcp.c")), "linux net, the rest");
        assert_eq!(k("kernel", "x", Some("network/a.c")), "linux, other");
        assert_eq!(k("kernel", "x", Some("arch/x86/kvm/x86.c")), "linux kvm");
        assert_eq!(k("[virtio_net]", "x", None), "linux drivers/net");
        assert_eq!(k("[nf_tables]", "x", None), "linux net/netfilter");
        assert_eq!(k("[some_driver]", "x", None), "linux drivers, the rest");
        assert_eq!(k("kernel", "tcp_ack", None), "linux net/ipv4");
        assert_eq!(k("kernel", "schedule", None), "linux, other");
    }

    #[test]
    fn userland_is_of_its_binary_and_a_sentry_of_its_package() {
        let c = |layer, binary: &str, symbol: &str| {
            let mut u = unit(layer, binary, 1, &[1]);
            u.symbol = symbol.into();
            class_of(&u)
        };
        assert_eq!(c(Layer::Vmm, "/usr/bin/qemu-system-x86_64", "x"), "qemu");
        assert_eq!(c(Layer::App, "/usr/sbin/nginx", "x"), "userland");
        assert_eq!(c(Layer::HostService, "/usr/sbin/runc", "x"), "runc");
        let runsc = "/usr/bin/runsc";
        assert_eq!(c(Layer::SandboxKernel, runsc, "gvisor.dev/gvisor/pkg/sync.X"), "gvisor");
        assert_eq!(c(Layer::SandboxKernel, runsc, "runtime.mallocgc"), "go runtime and packages");
    }

    #[test]
    fn components_hold_all_functions_of_the_serve_phase() {
        let mut p = profile();
        p.units = (0..9).map(|i| unit(Layer::HostKernel, "kernel", i, &[1])).collect();
        p.units.push(unit(Layer::App, "/a", 1, &[2]));
        let items = of_profile(&p, &Priors::built_in().unwrap());
        assert_eq!(items[&Layer::HostKernel].iter().map(|i| i.functions).sum::<u64>(), 9);
        assert_eq!(items[&Layer::App][0].bytes, 100);
    }
}
