//! What a recording traversed, looked up by function, file and binary.

use std::collections::{HashMap, HashSet};

use altaz_profile::{Context, Evidence, Layer, Phase, Profile, Unit};

/// Traversed code of one profile.
pub struct Code<'a> {
    kernels: HashMap<Layer, KernelCode<'a>>,
    /// Units by (layer, binary), user code only.
    binaries: HashMap<(Layer, &'a str), Vec<&'a Unit>>,
    /// Go symbols with a module path, ascending.
    go: Vec<(&'a str, &'a Unit)>,
}

/// Traversed code of one kernel layer.
#[derive(Default)]
pub struct KernelCode<'a> {
    by_function: HashMap<&'a str, Vec<&'a Unit>>,
    files: HashMap<&'a str, usize>,
    /// Directories of which something was traversed whose file is not known.
    estimates: HashSet<&'a str>,
    /// Names of modules with a row of any phase.
    modules: HashSet<&'a str>,
    /// Functions of the kernel proper with what is known of their source, by offset.
    by_offset: Vec<(u64, Option<&'a str>)>,
}

/// Name of a function without what the compiler appends to parts and clones of it.
pub fn base(symbol: &str) -> &str {
    match symbol.find('.') {
        Some(at) if at > 0 => &symbol[..at],
        _ => symbol,
    }
}

/// Directory of a source file.
pub fn directory(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn is_below(directory: &str, above: &str) -> bool {
    directory.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl<'a> Code<'a> {
    /// Sorts a profile's rows. What only the idle machine executed is left out; what the service's
    /// time contained in interrupts or the background is kept, since it was traversed all the same.
    pub fn of(profile: &'a Profile) -> Self {
        let mut code = Self { kernels: HashMap::new(), binaries: HashMap::new(), go: Vec::new() };
        for unit in &profile.units {
            let module = unit.binary.strip_prefix('[').and_then(|m| m.strip_suffix(']'));
            if let Some(module) = module {
                code.kernels.entry(unit.layer).or_default().modules.insert(module);
            }
            if unit.phase == Phase::Idle || unit.evidence != Evidence::Exercised {
                continue;
            }
            match unit.layer {
                Layer::HostKernel | Layer::GuestKernel => {
                    code.kernels.entry(unit.layer).or_default().add(unit);
                }
                _ => {
                    if unit.symbol.contains('/') {
                        code.go.push((&unit.symbol, unit));
                    }
                    code.binaries.entry((unit.layer, &unit.binary)).or_default().push(unit);
                }
            }
        }
        for kernel in code.kernels.values_mut() {
            kernel.by_offset.sort_unstable();
            kernel.by_offset.dedup();
        }
        code.go.sort_unstable_by_key(|(symbol, unit)| (*symbol, unit.offset));
        code
    }

    /// A kernel layer's code.
    pub fn kernel(&self, layer: Layer) -> Option<&KernelCode<'a>> {
        self.kernels.get(&layer)
    }

    /// All user binaries with the layers that they are in.
    pub fn binaries(&self) -> impl Iterator<Item = (&(Layer, &'a str), &Vec<&'a Unit>)> {
        self.binaries.iter()
    }

    /// Units of Go functions below a module's or package's path.
    pub fn go_below<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'a Unit> + 's {
        let from = self.go.partition_point(|(symbol, _)| *symbol < path);
        let rest = self.go.get(from..).unwrap_or_default();
        rest.iter()
            .take_while(move |(symbol, _)| symbol.starts_with(path))
            .filter(move |(symbol, _)| symbol[path.len()..].starts_with(['/', '.']))
            .map(|(_, unit)| *unit)
    }
}

impl<'a> KernelCode<'a> {
    fn add(&mut self, unit: &'a Unit) {
        if !unit.binary.starts_with('[') {
            self.by_offset.push((unit.offset, unit.file.as_deref()));
        }
        if !unit.symbol.is_empty() {
            self.by_function.entry(base(&unit.symbol)).or_default().push(unit);
        }
        if let Some(file) = unit.file.as_deref() {
            match file.strip_suffix('/') {
                Some(directory) => {
                    self.estimates.insert(directory);
                }
                None => *self.files.entry(file).or_default() += 1,
            }
        }
    }

    /// Traversed rows of a function in one of these files. A name alone is not enough: static names
    /// repeat. Where the recording estimates the directory only, that must agree, or else where the
    /// function lies: an object's functions are linked beside each other.
    pub fn function(&self, name: &str, files: &[&str]) -> Vec<&'a Unit> {
        let rows = self.by_function.get(base(name)).map(Vec::as_slice).unwrap_or_default();
        let estimated = |unit: &Unit| unit.file.as_deref().is_none_or(|f| f.ends_with('/'));
        rows.iter()
            .copied()
            .filter(|unit| {
                agrees(unit.file.as_deref(), files)
                    || (estimated(unit) && self.lies_among(unit, files))
            })
            .collect()
    }

    /// Whether the traversed functions before and behind this one are known to be of the directories
    /// of these files.
    fn lies_among(&self, unit: &Unit, files: &[&str]) -> bool {
        if unit.binary.starts_with('[') {
            return false;
        }
        let at = self.by_offset.partition_point(|(offset, _)| *offset < unit.offset);
        let (before, rest) = self.by_offset.split_at(at);
        let behind = rest.iter().find(|(offset, _)| *offset > unit.offset);
        let of = |known: Option<&(u64, Option<&str>)>| {
            let own = known.and_then(|(_, file)| *file).map(directory);
            own.is_some_and(|own| files.iter().any(|f| directory(f) == own))
        };
        of(before.last()) && of(behind)
    }

    /// Functions traversed in a source file, where that is known exactly.
    pub fn in_file(&self, file: &str) -> usize {
        self.files.get(file).copied().unwrap_or(0)
    }

    /// Whether something was traversed in exactly this file's directory.
    pub fn in_directory_of(&self, file: &str) -> bool {
        self.estimates.contains(directory(file))
    }

    /// Whether a module was seen at all, in whatever phase: then it was loaded.
    pub fn saw_module(&self, name: &str) -> bool {
        self.modules.contains(name)
    }

    /// Whether something was traversed that may be in this file: its directory is known, its file
    /// is not.
    pub fn may_be_in(&self, file: &str) -> bool {
        let own = directory(file);
        self.estimates.contains(own) || self.estimates.iter().any(|e| is_below(own, e))
    }
}

/// Whether what is known of a function's source allows it to be in one of these files.
fn agrees(known: Option<&str>, files: &[&str]) -> bool {
    let Some(known) = known else { return true };
    if files.is_empty() {
        return true;
    }
    match known.strip_suffix('/') {
        Some(estimate) => files.iter().any(|f| {
            let own = directory(f);
            is_below(own, estimate) || is_below(estimate, own)
        }),
        None => files.contains(&known),
    }
}

/// A traversed function in words.
pub fn describe(unit: &Unit) -> String {
    let place = unit.file.as_deref().unwrap_or(&unit.binary);
    let how = match (unit.phase, unit.context) {
        (Phase::Start, _) => ", while starting",
        (Phase::Stop, _) => ", while stopping",
        (_, Context::Background) => ", at a rate that the idle machine explains",
        (_, Context::Softirq | Context::Hardirq) => ", in interrupts",
        _ => "",
    };
    format!("{} ({place}) in {}{how}", unit.symbol, unit.layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};

    #[test]
    fn a_name_in_another_file_is_another_function() {
        let mut p = profile();
        let mut named = |symbol: &str, file: Option<&str>, offset| {
            let mut u = unit(Layer::HostKernel, "kernel", offset, &[1]);
            (u.symbol, u.file) = (symbol.into(), file.map(Into::into));
            p.units.push(u);
        };
        named("init_once", Some("fs/inode.c"), 1);
        named("init_once", Some("net/"), 2);
        named("add_grec.isra.0", Some("net/ipv6/"), 3);
        named("odd", None, 4);
        // Estimated to be elsewhere, and linked between two of net/xfrm.
        named("xfrm_dev_event", Some("net/xfrm/"), 5);
        named("validate_xmit_xfrm", Some("net/core/"), 6);
        named("xfrm_dev_backlog", Some("net/xfrm/xfrm_device.c"), 7);
        named("validate_other", Some("net/core/"), 8);
        let code = Code::of(&p);
        let k = code.kernel(Layer::HostKernel).unwrap();
        let offsets = |name: &str, file: &str| -> Vec<u64> {
            k.function(name, &[file]).iter().map(|u| u.offset).collect()
        };
        assert_eq!(offsets("init_once", "net/socket.c"), [2]);
        assert_eq!(offsets("init_once", "fs/inode.c"), [1]);
        assert_eq!(offsets("add_grec", "net/ipv6/mcast.c"), [3]);
        assert_eq!(offsets("add_grec", "net/ipv4/igmp.c"), [0; 0]);
        assert_eq!(offsets("odd", "net/x.c"), [4]);
        assert_eq!(offsets("validate_xmit_xfrm", "net/xfrm/xfrm_device.c"), [6]);
        assert_eq!(offsets("validate_other", "net/xfrm/xfrm_device.c"), [0; 0]);
        assert_eq!((k.in_file("fs/inode.c"), k.in_file("fs/file.c")), (1, 0));
        assert!(k.may_be_in("net/ipv6/mcast.c") && !k.may_be_in("mm/mmap.c"));
    }

    #[test]
    fn go_functions_are_found_by_whole_path_elements() {
        let mut p = profile();
        for (i, symbol) in ["example.org/m/a.F", "example.org/m.G", "example.org/mm.H", "main.main"]
            .iter()
            .enumerate()
        {
            let mut u = unit(Layer::App, "/a", i as u64, &[1]);
            u.symbol = (*symbol).into();
            p.units.push(u);
        }
        let code = Code::of(&p);
        let names: Vec<&str> = code.go_below("example.org/m").map(|u| &*u.symbol).collect();
        assert_eq!(names, ["example.org/m.G", "example.org/m/a.F"]);
    }
}
