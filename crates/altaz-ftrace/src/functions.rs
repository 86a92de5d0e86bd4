//! The kernel's traceable functions: stable index, line number for filters, address, name, module.
//!
//! Pure over the texts of `available_filter_functions_addrs` (or `available_filter_functions` and
//! `/proc/kallsyms` on kernels before 6.5). Filters name a function by its **1-based line number** there, which
//! changes when modules come and go; everybody else gets a [`FunctionIndex`], which never changes: a reload keeps
//! known functions in place and appends new ones. Names are not identities (a Debian kernel has 200 names twice).

use std::collections::HashMap;

/// A function of this table; the same for as long as the table lives, also over reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionIndex(pub u32);

impl FunctionIndex {
    /// As an index into arrays as long as the table.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// A traceable function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function<'a> {
    /// Where its call site is: the function's beginning, or a few bytes behind (`endbr64`).
    pub address: u64,
    /// Its name.
    pub name: &'a str,
    /// The module it is in; `None` for the kernel proper.
    pub module: Option<&'a str>,
    /// 1-based line number for filters; `None` when its module was unloaded or it cannot be traced.
    pub line: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    name: u32,
    name_len: u16,
    /// Index into `modules`, plus one; 0 is the kernel.
    module: u16,
    /// 0: none.
    line: u32,
}

/// Traceable functions by index and by address.
#[derive(Debug, Clone, Default)]
pub struct FunctionTable {
    entries: Vec<Entry>,
    names: String,
    modules: Vec<String>,
    by_address: AddressMap,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Functions that are new, or back.
    pub added: Vec<FunctionIndex>,
    /// Functions that are gone.
    pub removed: Vec<FunctionIndex>,
}

/// The call site is at most this many bytes behind the symbol (`endbr64`, `bti c`, a stack frame's first moves).
const CALL_SITE: u64 = 16;

/// Lines that only hold the place of a function that was dropped at link time (weak and overridden).
const INVALID: &str = "__ftrace_invalid_address__";

impl FunctionTable {
    /// From the text of `available_filter_functions_addrs`: `ffffffff85002014 name [module]`.
    pub fn from_addrs(text: &str) -> Self {
        let mut table = Self::default();
        table.reload_addrs(text);
        table
    }

    /// From the text of `available_filter_functions` and of `/proc/kallsyms` (read with privilege).
    pub fn from_names(text: &str, kallsyms: &str) -> Self {
        let mut table = Self::default();
        table.reload_names(text, kallsyms);
        table
    }

    /// Takes the file's new text; known functions keep their index.
    pub fn reload_addrs(&mut self, text: &str) -> Reload {
        let parse = |line: &str| {
            let (address, rest) = line.split_once(' ')?;
            let (name, module) = split_module(rest);
            let address = u64::from_str_radix(address, 16).ok()?;
            Some((address, name.to_owned(), module.map(str::to_owned)))
        };
        self.update(text.lines().map(parse))
    }

    /// Takes the files' new texts; known functions keep their index.
    pub fn reload_names(&mut self, text: &str, kallsyms: &str) -> Reload {
        let mut addresses = Addresses::new(kallsyms);
        let lines: Vec<_> = text
            .lines()
            .map(|line| {
                let (name, module) = split_module(line);
                let address = addresses.next(name, module)?;
                Some((address, name.to_owned(), module.map(str::to_owned)))
            })
            .collect();
        self.update(lines.into_iter())
    }

    /// One item per line, `None` where the line names nothing that can be traced.
    fn update(
        &mut self,
        lines: impl Iterator<Item = Option<(u64, String, Option<String>)>>,
    ) -> Reload {
        let mut reload = Reload::default();
        let before: Vec<u32> =
            self.entries.iter_mut().map(|e| std::mem::take(&mut e.line)).collect();
        for (number, line) in (1u32..).zip(lines) {
            let Some((address, name, module)) = line else { continue };
            if name.starts_with(INVALID) || address == 0 {
                continue;
            }
            let known = self.by_address.get(address).filter(|&index| {
                self.get(index).is_some_and(|f| f.name == name && f.module == module.as_deref())
            });
            if let Some(index) = known {
                if let Some(entry) = self.entries.get_mut(index.as_usize()) {
                    entry.line = number;
                }
                // Its module was gone for a while.
                if before.get(index.as_usize()) == Some(&0) {
                    reload.added.push(index);
                }
            } else if let Some(index) = self.push(address, &name, module.as_deref(), number) {
                reload.added.push(index);
            }
        }
        for (index, (entry, &before)) in (0u32..).zip(self.entries.iter().zip(&before)) {
            if before != 0 && entry.line == 0 {
                reload.removed.push(FunctionIndex(index));
            }
        }
        reload
    }

    fn push(
        &mut self,
        address: u64,
        name: &str,
        module: Option<&str>,
        line: u32,
    ) -> Option<FunctionIndex> {
        let index = FunctionIndex(u32::try_from(self.entries.len()).ok()?);
        let module = match module {
            None => 0,
            Some(module) => {
                // Lines of one module follow each other.
                let at = match self.modules.iter().rposition(|m| m == module) {
                    Some(at) => at,
                    None => {
                        self.modules.push(module.to_owned());
                        self.modules.len() - 1
                    }
                };
                u16::try_from(at + 1).ok()?
            }
        };
        let at = u32::try_from(self.names.len()).ok()?;
        self.names.push_str(name);
        let name_len = u16::try_from(name.len()).ok()?;
        self.entries.push(Entry { address, name: at, name_len, module, line });
        self.by_address.insert(address, index);
        Some(index)
    }

    /// How many functions were ever in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No function can be traced.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The function with this index.
    pub fn get(&self, index: FunctionIndex) -> Option<Function<'_>> {
        let entry = self.entries.get(index.as_usize())?;
        let name = self.names.get(entry.name as usize..)?.get(..usize::from(entry.name_len))?;
        let module = match entry.module {
            0 => None,
            n => self.modules.get(usize::from(n) - 1).map(String::as_str),
        };
        let line = (entry.line != 0).then_some(entry.line);
        Some(Function { address: entry.address, name, module, line })
    }

    /// All functions with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (FunctionIndex, Function<'_>)> {
        (0..self.entries.len() as u32)
            .map(FunctionIndex)
            .filter_map(|index| Some((index, self.get(index)?)))
    }

    /// The function whose call site is at this address: an event's `ip`. Fast: it is asked once for each event.
    #[inline]
    pub fn find(&self, ip: u64) -> Option<FunctionIndex> {
        self.by_address.get(ip)
    }

    /// As [`Self::find`], for a table whose addresses are symbols (from kallsyms) and not call sites: looks a few
    /// bytes back, and remembers what it finds.
    pub fn find_near(&mut self, ip: u64) -> Option<FunctionIndex> {
        let found = (1..=CALL_SITE).find_map(|back| self.by_address.get(ip.wrapping_sub(back)))?;
        self.by_address.insert(ip, found);
        Some(found)
    }

    /// The first function with this name.
    pub fn by_name(&self, name: &str) -> Option<FunctionIndex> {
        self.iter().find(|(_, f)| f.name == name && f.line.is_some()).map(|(index, _)| index)
    }
}

/// `name [module]`; newer kernels may add more in brackets or braces behind.
fn split_module(line: &str) -> (&str, Option<&str>) {
    let mut parts = line.split_whitespace();
    let name = parts.next().unwrap_or_default();
    let module = parts.find_map(|p| p.strip_prefix('[')?.strip_suffix(']'));
    (name, module)
}

/// Addresses of names from kallsyms. Duplicates are handed out in order of address, which is the order of the
/// lines of `available_filter_functions` within the kernel and within each module.
struct Addresses<'a> {
    by_name: HashMap<(&'a str, Option<&'a str>), Vec<u64>>,
    used: HashMap<(String, Option<String>), usize>,
}

impl<'a> Addresses<'a> {
    fn new(kallsyms: &'a str) -> Self {
        let mut by_name: HashMap<_, Vec<u64>> = HashMap::new();
        for line in kallsyms.lines() {
            let mut parts = line.split_whitespace();
            let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let module = parts.next().and_then(|m| m.strip_prefix('[')?.strip_suffix(']'));
            if let Ok(address) = u64::from_str_radix(address, 16) {
                by_name.entry((name, module)).or_default().push(address);
            }
        }
        for addresses in by_name.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        Self { by_name, used: HashMap::new() }
    }

    fn next(&mut self, name: &str, module: Option<&str>) -> Option<u64> {
        let addresses = self.by_name.get(&(name, module))?;
        if let [only] = addresses.as_slice() {
            return Some(*only);
        }
        let used = self.used.entry((name.to_owned(), module.map(str::to_owned))).or_default();
        *used += 1;
        addresses.get(*used - 1).copied()
    }
}

/// Addresses to indexes: open addressing, a multiplication for a hash, half full at most. A call of the standard
/// map costs three times as much, and this one is made for every event.
#[derive(Debug, Clone, Default)]
struct AddressMap {
    /// Address (0: free) and index.
    slots: Vec<(u64, u32)>,
    used: usize,
}

impl AddressMap {
    #[inline]
    fn slot(&self, address: u64) -> usize {
        let bits = self.slots.len().trailing_zeros();
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits.max(1))) as usize
    }

    #[inline]
    fn get(&self, address: u64) -> Option<FunctionIndex> {
        if address == 0 || self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.slot(address) & mask;
        loop {
            match *self.slots.get(at)? {
                (found, index) if found == address => return Some(FunctionIndex(index)),
                (0, _) => return None,
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// A later insertion of the same address wins.
    fn insert(&mut self, address: u64, index: FunctionIndex) {
        if address == 0 {
            return;
        }
        if (self.used + 1) * 2 > self.slots.len() {
            let larger = vec![(0, 0); (self.slots.len() * 2).max(1024)];
            let old = std::mem::replace(&mut self.slots, larger);
            self.used = 0;
            for (address, index) in old.into_iter().filter(|&(address, _)| address != 0) {
                self.insert(address, FunctionIndex(index));
            }
        }
        let mask = self.slots.len() - 1;
        let mut at = self.slot(address) & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.0 == 0 || slot.0 == address {
                self.used += usize::from(slot.0 == 0);
                *slot = (address, index.0);
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRS: &str = "ffffffff81000014 first\nffffffff81000024 twice\n\
        0000000000000000 __ftrace_invalid_address___12\nffffffff81000044 twice\n\
        ffffffffc0001004 probe [virtio_net]\nffffffffc0002004 probe [kvm]\n";

    fn found(table: &FunctionTable, address: u64) -> Option<(&str, Option<&str>, Option<u32>)> {
        let f = table.get(table.find(address)?)?;
        Some((f.name, f.module, f.line))
    }

    #[test]
    fn lines_are_counted_from_one_and_invalid_ones_hold_their_place() {
        let table = FunctionTable::from_addrs(ADDRS);
        assert_eq!(table.len(), 5);
        assert_eq!(found(&table, 0xffff_ffff_8100_0014), Some(("first", None, Some(1))));
        assert_eq!(found(&table, 0xffff_ffff_8100_0044), Some(("twice", None, Some(4))));
        assert_eq!(found(&table, 0xffff_ffff_c000_2004), Some(("probe", Some("kvm"), Some(6))));
        assert_eq!(table.find(0), None);
        assert_eq!(table.find(0xffff_ffff_8100_0015), None);
    }

    #[test]
    fn a_module_that_is_loaded_moves_lines_but_not_indexes() {
        let mut table = FunctionTable::from_addrs(ADDRS);
        let kvm = table.find(0xffff_ffff_c000_2004).unwrap();
        let text = ADDRS.replace(
            "ffffffffc0001004 probe [virtio_net]",
            "ffffffffc0005004 open [tun]\nffffffffc0005104 close [tun]",
        );
        let reload = table.reload_addrs(&text);
        assert_eq!(table.get(kvm).unwrap().line, Some(7));
        assert_eq!(reload.added.len(), 2);
        assert_eq!(table.get(reload.added[1]).unwrap().name, "close");
        assert_eq!(reload.removed, [table.find(0xffff_ffff_c000_1004).unwrap()]);
        assert_eq!(table.get(reload.removed[0]).unwrap().line, None);
        assert_eq!(table.reload_addrs(&text), Reload::default());
        let back = table.reload_addrs(ADDRS);
        assert_eq!((back.added, back.removed.len()), (reload.removed, 2));
        assert_eq!(table.reload_addrs(&text).added.len(), 2);
        // The memory of an unloaded module is used again.
        let reload = table.reload_addrs(&text.replace("open [tun]", "other [tap]"));
        assert_eq!((reload.added.len(), reload.removed.len()), (1, 1));
        assert_eq!(found(&table, 0xffff_ffff_c000_5004), Some(("other", Some("tap"), Some(5))));
    }

    #[test]
    fn without_addresses_kallsyms_gives_them_and_duplicates_go_by_order() {
        let names = "first\ntwice\ngone\ntwice\nprobe [virtio_net]\nprobe [kvm]\n";
        let kallsyms = "ffffffff81000040 t twice\nffffffff81000010 T first\nffffffff81000020 t twice\n\
            ffffffff81000030 D data\nffffffffc0002000 t probe\t[kvm]\nffffffffc0001000 t probe\t[virtio_net]\n";
        let mut table = FunctionTable::from_names(names, kallsyms);
        assert_eq!(table.len(), 5);
        assert_eq!(found(&table, 0xffff_ffff_8100_0020), Some(("twice", None, Some(2))));
        assert_eq!(found(&table, 0xffff_ffff_8100_0040), Some(("twice", None, Some(4))));
        assert_eq!(found(&table, 0xffff_ffff_c000_2000), Some(("probe", Some("kvm"), Some(6))));
        // Events carry the call site.
        assert_eq!(table.find(0xffff_ffff_8100_0044), None);
        let near = table.find_near(0xffff_ffff_8100_0044);
        assert_eq!(near, table.find(0xffff_ffff_8100_0040));
        assert_eq!(table.find(0xffff_ffff_8100_0044), near);
        assert_eq!(table.find_near(0xffff_ffff_8100_1044), None);
    }

    proptest! {
        #[test]
        fn the_address_map_agrees_with_the_standard_one(
            pairs in prop::collection::vec((0u64..4000, any::<u32>()), 0..3000),
            asked in prop::collection::vec(0u64..5000, 0..100),
        ) {
            let scale = |a: u64| if a == 0 { 0 } else { 0xffff_ffff_8100_0000 + a * 16 };
            let mut map = AddressMap::default();
            let mut model = HashMap::new();
            for &(address, index) in &pairs {
                map.insert(scale(address), FunctionIndex(index));
                if address != 0 {
                    model.insert(scale(address), FunctionIndex(index));
                }
            }
            for address in asked.into_iter().map(scale).chain(model.keys().copied()) {
                prop_assert_eq!(map.get(address), model.get(&address).copied());
            }
        }

        #[test]
        fn any_text_is_a_table(text in "\\PC*", names in "([a-c]{0,2}[ \n\\[\\]t0-9]{0,3})*") {
            let table = FunctionTable::from_addrs(&text);
            prop_assert!(table.iter().count() == table.len());
            FunctionTable::from_names(&text, &names);
            FunctionTable::from_names(&names, &text);
            FunctionTable::from_addrs(&names);
        }
    }
}
