//! Kernel functions from the text of `/proc/kallsyms`.
//!
//! The list has addresses, types, names and modules but no sizes, and the addresses hold for one boot only. Here it
//! becomes functions with sizes, with offsets that are the same in every boot, and the KASLR slide between the boot
//! that the list is from and one that executed certain blocks.

use crate::SymbolError;
use std::collections::HashMap;
use std::ops::Range;

/// Alignment of the kernel's random base on x86-64 (`CONFIG_PHYSICAL_ALIGN`): slides are multiples of it.
pub const SLIDE_STEP: u64 = 2 << 20;

/// The kernel image lies above this address, wherever it is placed (x86-64: `__START_KERNEL_map`).
const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;

/// Symbols further apart than this are not neighbours in one block of module code.
const MODULE_GAP: u64 = 256 << 10;
const PAGE: u64 = 4096;

/// A function (or other text symbol) of a running kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelFunction<'a> {
    /// Module, or `None` for the kernel proper.
    pub module: Option<&'a str>,
    /// Symbol. Not unique: identity is module and `offset_from_base`.
    pub name: &'a str,
    /// First byte, in the address space of the boot that the list is from.
    pub start: u64,
    /// Bytes up to the next symbol (includes padding).
    pub size: u64,
    /// From `_text`, or from the module's first page of code: the same in every boot of this kernel build.
    pub offset_from_base: u64,
    /// Code made at run time: BPF programs and trampolines, ftrace and kprobe trampolines.
    pub jit: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    start: u64,
    size: u64,
    module: u32,
    name: Range<usize>,
}

#[derive(Debug, Clone)]
struct Module {
    name: String,
    base: u64,
    jit: bool,
}

/// All text symbols of a kernel, sorted by address.
#[derive(Debug, Clone)]
pub struct Kallsyms {
    names: String,
    entries: Vec<Entry>,
    /// Index 0 is the kernel proper.
    modules: Vec<Module>,
    text: Range<u64>,
}

struct Raw<'a> {
    addr: u64,
    kind: u8,
    name: &'a str,
    module: u32,
}

impl Kallsyms {
    /// Parses the text of `/proc/kallsyms`.
    ///
    /// # Errors
    /// When a line is not a symbol, when there are none, or when the kernel hides the addresses.
    pub fn parse(text: &str) -> Result<Self, SymbolError> {
        let mut modules = vec![Module { name: String::new(), base: u64::MAX, jit: false }];
        let mut module_ids: HashMap<&str, u32> = HashMap::new();
        let mut raw = Vec::with_capacity(text.len() / 48);
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let bad =
                || SymbolError::KallsymsLine { line: i + 1, text: line.chars().take(60).collect() };
            let mut words = line.split_ascii_whitespace();
            let addr =
                words.next().and_then(|w| u64::from_str_radix(w, 16).ok()).ok_or_else(bad)?;
            let kind = words.next().filter(|w| w.len() == 1).ok_or_else(bad)?.as_bytes()[0];
            let name = words.next().ok_or_else(bad)?;
            let module = match words.next() {
                None => 0,
                Some(word) => {
                    let module = word.strip_prefix('[').and_then(|w| w.strip_suffix(']'));
                    let module = module.ok_or_else(bad)?;
                    *module_ids.entry(module).or_insert_with(|| {
                        let jit = module == "bpf" || module.starts_with("__builtin__");
                        modules.push(Module { name: module.to_string(), base: u64::MAX, jit });
                        (modules.len() - 1) as u32
                    })
                }
            };
            raw.push(Raw { addr, kind, name, module });
        }
        if raw.is_empty() {
            return Err(SymbolError::damaged("kallsyms", "it has no symbols"));
        }
        if raw.iter().all(|r| r.addr == 0) {
            return Err(SymbolError::KallsymsHidden { symbols: raw.len() });
        }
        Ok(Self::build(raw, modules))
    }

    fn build(mut raw: Vec<Raw<'_>>, mut modules: Vec<Module>) -> Self {
        let marker =
            |name: &str| raw.iter().find(|r| r.module == 0 && r.name == name).map(|r| r.addr);
        let base = marker("_text").or_else(|| marker("_stext"));
        let text_end = marker("_etext");
        // Per-CPU symbols are offsets from zero; they are no addresses.
        raw.retain(|r| r.addr != 0 && !r.kind.eq_ignore_ascii_case(&b'a'));
        raw.sort_by(|a, b| {
            let key = |r: &Raw<'_>| (r.addr, r.module, preference(r));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(b.name))
        });
        let lowest = raw.iter().filter(|r| r.module == 0 && is_text(r.kind)).map(|r| r.addr).min();
        let base = base.or(lowest).unwrap_or(0);
        let text_end = text_end.unwrap_or(u64::MAX);
        modules[0].base = base;
        // Where each symbol's neighbour is: the next higher address in the same module.
        let mut next_in_module: Vec<u64> = vec![u64::MAX; modules.len()];
        let mut next_any = u64::MAX;
        let mut entries: Vec<Entry> = Vec::new();
        let mut names = String::new();
        for (i, r) in raw.iter().enumerate().rev() {
            let own = &mut next_in_module[r.module as usize];
            let first_alias = i == 0 || (raw[i - 1].addr, raw[i - 1].module) != (r.addr, r.module);
            if is_text(r.kind) && first_alias {
                let mut end = (*own).min(next_any);
                let cap = if r.module == 0 && r.addr < text_end { text_end } else { u64::MAX };
                end = end.min(cap);
                if end.saturating_sub(r.addr) > MODULE_GAP {
                    // The last symbol of a block of code: its own page at least.
                    end = end.min(r.addr.saturating_add(1).next_multiple_of(PAGE).max(r.addr));
                }
                let name = names.len()..names.len() + r.name.len();
                names.push_str(r.name);
                let size = end.saturating_sub(r.addr);
                entries.push(Entry { start: r.addr, size, module: r.module, name });
                if r.module != 0 {
                    let base = &mut modules[r.module as usize].base;
                    *base = (*base).min(r.addr & !(PAGE - 1));
                }
            }
            if first_alias {
                next_in_module[r.module as usize] = r.addr;
                next_any = r.addr;
            }
        }
        entries.reverse();
        Self { names, entries, modules, text: base..text_end }
    }

    /// The function that an address belongs to.
    pub fn lookup(&self, addr: u64) -> Option<KernelFunction<'_>> {
        let i = self.entries.partition_point(|e| e.start <= addr).checked_sub(1)?;
        let entry = &self.entries[i];
        (addr - entry.start < entry.size).then(|| self.describe(entry))
    }

    fn describe(&self, entry: &Entry) -> KernelFunction<'_> {
        let module = &self.modules[entry.module as usize];
        KernelFunction {
            module: (entry.module != 0).then_some(module.name.as_str()),
            name: &self.names[entry.name.clone()],
            start: entry.start,
            size: entry.size,
            offset_from_base: entry.start.wrapping_sub(module.base),
            jit: module.jit,
        }
    }

    /// All text symbols in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = KernelFunction<'_>> {
        self.entries.iter().map(|e| self.describe(e))
    }

    /// How many text symbols there are (aliases counted once).
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Address of the kernel's first byte in this boot (`_text`).
    pub fn base(&self) -> u64 {
        self.text.start
    }

    /// `_text` to `_etext`; the end is `u64::MAX` when the list has no `_etext`.
    pub fn text_range(&self) -> Range<u64> {
        self.text.clone()
    }

    /// Names of the loaded modules, without those that stand for run-time code.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules[1..].iter().filter(|m| !m.jit).map(|m| m.name.as_str())
    }
}

fn is_text(kind: u8) -> bool {
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

/// Smaller is better among symbols at one address: functions before section marks, global before weak before local,
/// no leading underscore, shorter name.
fn preference(r: &Raw<'_>) -> (bool, u8, bool, usize) {
    let rank = match r.kind {
        b'T' => 0,
        b'W' | b'w' => 1,
        b't' => 2,
        _ => 3,
    };
    (is_mark(r.name) || !is_text(r.kind), rank, r.name.starts_with('_'), r.name.len())
}

fn is_mark(name: &str) -> bool {
    matches!(
        name,
        "_text" | "_stext" | "_etext" | "_sinittext" | "_einittext" | "startup_64" | "_start"
    ) || name.starts_with("__start_")
        || name.starts_with("__stop_")
        || name.ends_with("_text_start")
        || name.ends_with("_text_end")
        || name.ends_with("text_section_start")
}

/// `read` of `__x64_sys_read`, also for the 32-bit entry points (`__ia32_sys_`, `__ia32_compat_sys_`) and arm64's.
pub fn syscall_name(symbol: &str) -> Option<&str> {
    let prefixes = [
        "__x64_sys_",
        "__x64_compat_sys_",
        "__ia32_sys_",
        "__ia32_compat_sys_",
        "__arm64_sys_",
        "__arm64_compat_sys_",
    ];
    prefixes.iter().find_map(|p| symbol.strip_prefix(p)).filter(|n| !n.is_empty())
}

/// Where a kernel was loaded, as distance from the boot its kallsyms are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlideVote {
    /// Add to an address of the list to get the address in the voting boot.
    pub slide: i64,
    /// Block starts that are symbols under this slide.
    pub hits: usize,
    /// Block starts that are symbols under the next best slide: a sound vote has several times as many hits.
    pub runner_up: usize,
}

/// Finds the slide between a list of another boot and the block starts that a kernel executed. Only the kernel proper
/// votes: modules are placed anew in every boot.
///
/// `None` when no block start is a symbol under any slide.
pub fn vote_slide(
    other_boot: &Kallsyms,
    block_starts: impl IntoIterator<Item = u64>,
) -> Option<SlideVote> {
    let mut by_low_bits: HashMap<u64, Vec<u64>> = HashMap::new();
    let core = other_boot.entries.iter().filter(|e| e.module == 0 && e.start >= KERNEL_IMAGE);
    for e in core.filter(|e| other_boot.text.contains(&e.start)) {
        by_low_bits.entry(e.start % SLIDE_STEP).or_default().push(e.start);
    }
    let mut seen = std::collections::HashSet::new();
    let mut votes: HashMap<i64, usize> = HashMap::new();
    for block in block_starts {
        if block < KERNEL_IMAGE || !seen.insert(block) {
            continue;
        }
        for &symbol in by_low_bits.get(&(block % SLIDE_STEP)).map_or(&[][..], Vec::as_slice) {
            *votes.entry(block.wrapping_sub(symbol).cast_signed()).or_default() += 1;
        }
    }
    let mut ranked: Vec<(usize, i64)> =
        votes.into_iter().map(|(slide, hits)| (hits, slide)).collect();
    // most hits first; among equals the smallest move
    ranked.sort_by_key(|&(hits, slide)| (std::cmp::Reverse(hits), slide.unsigned_abs(), slide));
    let &(hits, slide) = ranked.first()?;
    Some(SlideVote { slide, hits, runner_up: ranked.get(1).map_or(0, |r| r.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_debug_store
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000040 T secondary_startup_64
ffffffff81200000 t do_one_thing
ffffffff81200080 t __do_other
ffffffff81200080 T other
ffffffff81200080 W weak_other
ffffffff81200100 T __x64_sys_read
ffffffff81e00000 T _etext
ffffffff82000000 R __start_rodata
ffffffffc0401000 t virtio_probe\t[virtio_net]
ffffffffc0401100 T virtio_exported\t[virtio_net]
ffffffffc0405000 d virtio_table\t[virtio_net]
ffffffffc0501010 t other_start\t[other_mod]
ffffffffc06a0100 t bpf_prog_6deef7357e7b4530\t[bpf]
ffffffffc06a1000 t ftrace_trampoline\t[__builtin__ftrace]
";

    #[test]
    fn functions_get_sizes_up_to_the_next_symbol_and_offsets_from_the_base() {
        let k = Kallsyms::parse(LIST).unwrap();
        let f = k.lookup(0xffff_ffff_8120_0044).unwrap();
        assert_eq!(
            (f.name, f.size, f.offset_from_base, f.module),
            ("do_one_thing", 0x80, 0x20_0000, None)
        );
        assert_eq!(k.lookup(0xffff_ffff_8120_0090).unwrap().name, "other");
        assert_eq!(k.lookup(0xffff_ffff_8200_0000), None);
        assert_eq!(k.base(), 0xffff_ffff_8100_0000);
    }

    #[test]
    fn modules_have_their_own_base_and_run_time_code_is_flagged() {
        let k = Kallsyms::parse(LIST).unwrap();
        let f = k.lookup(0xffff_ffff_c040_1105).unwrap();
        assert_eq!((f.module, f.offset_from_base, f.size), (Some("virtio_net"), 0x100, 0x3f00));
        let last = k.lookup(0xffff_ffff_c050_1020).unwrap();
        assert_eq!((last.offset_from_base, last.size), (0x10, 0xff0));
        assert!(k.lookup(0xffff_ffff_c06a_0120).unwrap().jit);
        assert!(k.lookup(0xffff_ffff_c06a_1000).unwrap().jit);
        assert_eq!(k.modules().collect::<Vec<_>>(), ["virtio_net", "other_mod"]);
    }

    #[test]
    fn hidden_addresses_are_an_error_that_says_what_to_do() {
        let error =
            Kallsyms::parse("0000000000000000 T _text\n0000000000000000 t f\n").unwrap_err();
        assert_eq!(error, SymbolError::KallsymsHidden { symbols: 2 });
        assert!(error.to_string().contains("kptr_restrict"));
    }

    #[test]
    fn a_line_that_is_no_symbol_is_named_by_its_number() {
        let error = Kallsyms::parse("ffffffff81000000 T _text\nhello\n").unwrap_err();
        assert!(matches!(error, SymbolError::KallsymsLine { line: 2, .. }), "{error}");
    }

    #[test]
    fn the_slide_of_another_boot_is_found_by_vote() {
        let k = Kallsyms::parse(LIST).unwrap();
        let slide = 37 * SLIDE_STEP;
        let mut blocks: Vec<u64> =
            k.iter().filter(|f| f.module.is_none()).map(|f| f.start + slide).collect();
        blocks.extend([0xffff_ffff_8fff_1234, 0x5555_0000, 0xffff_ffff_a000_0010]);
        let vote = vote_slide(&k, blocks).unwrap();
        assert_eq!(vote.slide, slide as i64);
        assert!(vote.hits > vote.runner_up, "{vote:?}");
    }

    #[test]
    fn system_calls_are_known_by_their_entry_points() {
        assert_eq!(syscall_name("__x64_sys_read"), Some("read"));
        assert_eq!(syscall_name("__ia32_compat_sys_openat"), Some("openat"));
        assert_eq!(syscall_name("ksys_read"), None);
    }
}
