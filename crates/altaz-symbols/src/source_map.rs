//! Kernel functions → source files, from the kernel image alone, without debug information.
//!
//! A distribution's kernel has no line tables, but it has `__bug_table`: for each `BUG()` and `WARN()` the address of
//! the instruction and the name of the source file (`CONFIG_DEBUG_BUGVERBOSE`, on in every distribution). These some
//! ten thousand anchors go far, because a kernel is linked object by object, directory by directory:
//!
//! - a function with an anchor in it is in that file; anchors that name a header come from inline functions and belong
//!   to the file whose anchors surround them in the table;
//! - a function between two anchors of one file, with no other anchor between, is in that file ([`Certainty::Exact`]);
//! - a function between anchors of two files is in their deepest common directory ([`Certainty::Estimated`]), or in the
//!   subdirectory where all known functions are that share its name's first word (`tcp_`, `ext4_`).
//!
//! Checked on Debian's 6.12 kernel by hiding the anchors of one function after the other: 3,328 of 3,335 files came out
//! right from the anchors around, all of 1,595 common directories, and 168 of 174 directories by first word.
//!
//! Where the anchors around a function are out of link order, a section (`.text.unlikely`, `.sched.text`) ends there
//! and nothing is said about it, unless its name does.

use crate::bytes::{c_str, i32_at, u16_at};
use crate::elf::Elf;
use crate::{Kallsyms, SymbolError};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How a source is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// From the link order, or from functions of the same name prefix.
    Estimated,
    /// From anchors of one file in or around the function.
    Exact,
}

/// Where a kernel function's source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Source file, such as `net/ipv4/tcp.c`, when it is known exactly.
    pub file: Option<Arc<str>>,
    /// Directory, such as `net/ipv4`.
    pub directory: Arc<str>,
    /// How the directory is known.
    pub certainty: Certainty,
}

impl Source {
    /// The file, or else the directory with `/` at the end.
    pub fn label(&self) -> String {
        match &self.file {
            Some(file) => file.to_string(),
            None => format!("{}/", self.directory),
        }
    }
}

/// A place in the code whose source file the image names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Anchor {
    /// Distance from the start of the kernel's text.
    offset: u64,
    file: Arc<str>,
    /// Position of the file in the link order.
    order: u32,
}

/// Sources of the functions of one kernel build.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    /// Start of each function as distance from the start of the text, with its source; sorted.
    functions: Vec<(u64, Source)>,
    anchors: usize,
}

const WHAT: &str = "__bug_table of the kernel image";

impl SourceMap {
    /// Reads the anchors of an unpacked kernel image (see [`decompress_kernel`](crate::decompress_kernel)) and applies
    /// them to the functions of `kallsyms`, which may be from any boot of the same build.
    ///
    /// # Errors
    /// When the image is no ELF file or has no `__bug_table` with file names.
    pub fn new(vmlinux: &[u8], kallsyms: &Kallsyms) -> Result<Self, SymbolError> {
        let elf = Elf::parse(vmlinux)?;
        let anchors = anchors(&elf)?;
        Ok(Self { functions: locate(&anchors, kallsyms), anchors: anchors.len() })
    }

    /// Source of the function that starts at this distance from the start of the text
    /// ([`KernelFunction::offset_from_base`](crate::KernelFunction) of the kernel proper).
    pub fn source(&self, offset_from_base: u64) -> Option<&Source> {
        let i = self.functions.binary_search_by_key(&offset_from_base, |f| f.0).ok()?;
        Some(&self.functions[i].1)
    }

    /// How many anchors the image has.
    pub fn anchors(&self) -> usize {
        self.anchors
    }

    /// How many functions have a source: by file, by directory only.
    pub fn known(&self) -> (usize, usize) {
        let by_file = self.functions.iter().filter(|f| f.1.file.is_some()).count();
        (by_file, self.functions.len() - by_file)
    }
}

/// Module name and source directory of a module file: `…/kernel/drivers/net/virtio_net.ko.xz` is (`virtio_net`,
/// `drivers/net`).
pub fn module_source(path: &str) -> Option<(String, &str)> {
    let (directory, file) = path.rsplit_once('/')?;
    let stem = &file[..file.find(".ko")?];
    let from = directory.find("/kernel/").map(|i| i + "/kernel/".len());
    let from = from.or_else(|| directory.starts_with("kernel/").then_some("kernel/".len()))?;
    Some((stem.replace('-', "_"), &directory[from..]))
}

/// Layouts of `struct bug_entry` with 32-bit relative pointers: entry size and position of the file pointer. The longer
/// one (Linux 6.18) has the message's format string before the file.
const LAYOUTS: [(usize, usize); 2] = [(12, 4), (16, 8)];

fn anchors(elf: &Elf<'_>) -> Result<Vec<Anchor>, SymbolError> {
    let (section, table) = elf.section("__bug_table").ok_or_else(|| {
        SymbolError::damaged(
            WHAT,
            "there is no such section (CONFIG_GENERIC_BUG is off, or this is no kernel)",
        )
    })?;
    let text = elf.section(".text").map_or(0, |(s, _)| s.addr);
    let mut best: Vec<(u64, &str)> = Vec::new();
    for (size, file_at) in LAYOUTS {
        let entries = table.chunks_exact(size).enumerate().filter_map(|(i, entry)| {
            let at = section.addr.wrapping_add((i * size) as u64);
            let bug = at.wrapping_add_signed(i64::from(i32_at(entry, 0)?));
            let name_at = at
                .wrapping_add(file_at as u64)
                .wrapping_add_signed(i64::from(i32_at(entry, file_at)?));
            u16_at(entry, file_at + 4)?; // the line; not needed
            let name = c_str(elf.at_vaddr(name_at)?, 0, 256)?;
            let name = name.trim_start_matches("./").trim_start_matches("../");
            (bug >= text && is_source(name)).then(|| (bug - text, name))
        });
        let entries: Vec<_> = entries.collect();
        if entries.len() > best.len() {
            best = entries;
        }
    }
    if best.is_empty() {
        let detail = "no entry names a source file (CONFIG_DEBUG_BUGVERBOSE is off)";
        return Err(SymbolError::damaged(WHAT, detail));
    }
    Ok(resolve_headers(&best))
}

fn is_source(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+,".contains(&b);
    let known = [".c", ".h", ".S", ".rs"].iter().any(|e| name.ends_with(e));
    known && name.contains('/') && name.bytes().all(plain)
}

/// Gives anchors in headers to the file around them, drops those between two files. In the order of addresses.
fn resolve_headers(table: &[(u64, &str)]) -> Vec<Anchor> {
    let mut names: HashMap<&str, (Arc<str>, u32)> = HashMap::new();
    let mut next_file: Option<&str> = None;
    let following: Vec<Option<&str>> = table
        .iter()
        .rev()
        .map(|&(_, name)| {
            next_file = if name.ends_with(".h") { next_file } else { Some(name) };
            next_file
        })
        .collect();
    let mut before: Option<&str> = None;
    let mut out = Vec::with_capacity(table.len());
    for (i, &(offset, name)) in table.iter().enumerate() {
        if !name.ends_with(".h") {
            before = Some(name);
        }
        let after = following[table.len() - 1 - i];
        let Some(file) = before.filter(|_| before == after) else { continue };
        let order = names.len() as u32;
        let (file, order) = names.entry(file).or_insert_with(|| (Arc::from(file), order)).clone();
        out.push(Anchor { offset, file, order });
    }
    out.sort_by_key(|a| a.offset);
    out
}

fn directory(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |d| d.0)
}

/// Deepest directory that two directories have in common.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let shared = a.split('/').zip(b.split('/')).take_while(|(x, y)| x == y);
    let len: usize = shared.map(|(x, _)| x.len() + 1).sum();
    &a[..len.saturating_sub(1)]
}

fn locate(anchors: &[Anchor], kallsyms: &Kallsyms) -> Vec<(u64, Source)> {
    let core: Vec<_> = kallsyms.iter().filter(|f| f.module.is_none()).collect();
    let mut interned: HashSet<Arc<str>> = HashSet::new();
    let mut intern = |s: &str| match interned.get(s) {
        Some(found) => found.clone(),
        None => {
            let new: Arc<str> = Arc::from(s);
            interned.insert(new.clone());
            new
        }
    };
    let mut out: Vec<(u64, Source)> = Vec::with_capacity(core.len());
    let mut open: Vec<(u64, &str, Arc<str>)> = Vec::new();
    let mut unique: HashMap<&str, Option<usize>> = HashMap::new();
    let mut words = Words::default();
    let mut next = 0;
    for f in &core {
        let (start, end) = (f.offset_from_base, f.offset_from_base.saturating_add(f.size));
        next += anchors[next..].partition_point(|a| a.offset < start);
        let after = anchors.get(next);
        let before = next.checked_sub(1).map(|i| &anchors[i]);
        let inside = after.filter(|a| a.offset < end);
        let around = before.zip(after).filter(|(b, a)| b.file == a.file).map(|p| p.0);
        if let Some(anchor) = inside.or(around) {
            let directory = intern(directory(&anchor.file));
            words.learn(f.name, &directory);
            let file = Some(anchor.file.clone());
            remember(&mut unique, f.name, out.len());
            out.push((start, Source { file, directory, certainty: Certainty::Exact }));
            continue;
        }
        let shared = before.zip(after).map_or("", |(b, a)| {
            let (x, y) = (directory(&b.file), directory(&a.file));
            // Files included by others make small disorder inside a directory; elsewhere it is a section's end.
            if b.order < a.order || x == y { common(x, y) } else { "" }
        });
        let shared = intern(shared);
        if shared.contains('/')
            && before.zip(after).is_some_and(|(b, a)| directory(&b.file) == directory(&a.file))
        {
            words.learn(f.name, &shared);
        }
        open.push((start, f.name, shared));
    }
    // Cold parts last: the function that they belong to is known by then.
    open.sort_by_key(|o| crate::functions::cold_stem(o.1).is_some());
    let list = listed_names();
    for (start, name, shared) in open {
        let whole = crate::functions::cold_stem(name).and_then(|stem| unique.get(stem).copied()?);
        if let Some(whole) = whole {
            let source = out[whole].1.clone();
            out.push((start, source));
            continue;
        }
        let guess = words.guess(name, &shared).or_else(|| {
            let listed = list.iter().find(|(prefix, _)| name.starts_with(prefix));
            listed.filter(|_| shared.is_empty()).map(|l| intern(l.1))
        });
        let directory = guess.unwrap_or(shared);
        if !directory.is_empty() {
            remember(&mut unique, name, out.len());
            out.push((start, Source { file: None, directory, certainty: Certainty::Estimated }));
        }
    }
    out.sort_by_key(|f| f.0);
    out
}

/// Notes where a name's source is; a name that occurs twice has none.
fn remember<'a>(unique: &mut HashMap<&'a str, Option<usize>>, name: &'a str, position: usize) {
    unique.entry(name).and_modify(|p| *p = None).or_insert(Some(position));
}

/// Beginnings of names and their directories, from `kernel_names.txt`.
fn listed_names() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("kernel_names.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.split_once(' ')).map(|(prefix, d)| (prefix, d.trim())).collect()
}

/// In which directories functions are whose name begins with a certain word.
#[derive(Default)]
struct Words(HashMap<String, HashMap<Arc<str>, u32>>);

/// Fewer known functions say nothing about a word.
const WORD_SUPPORT: u32 = 4;

impl Words {
    fn learn(&mut self, name: &str, directory: &Arc<str>) {
        if let Some(word) = first_word(name) {
            *self.0.entry(word.to_string()).or_default().entry(directory.clone()).or_default() += 1;
        }
    }

    /// The directory at or below `within` that holds at least nine tenths of the functions there with this word.
    fn guess(&self, name: &str, within: &str) -> Option<Arc<str>> {
        let known = self.0.get(first_word(name)?)?;
        let below =
            |d: &str| within.is_empty() || d == within || d.starts_with(&format!("{within}/"));
        let candidates: Vec<_> = known.iter().filter(|(d, _)| below(d)).collect();
        let total: u32 = candidates.iter().map(|c| c.1).sum();
        let (directory, count) = candidates.into_iter().max_by_key(|c| (c.1, c.0))?;
        (total >= WORD_SUPPORT && count * 10 >= total * 9).then(|| directory.clone())
    }
}

/// `tcp` of `__tcp_push_pending`; not for words that are verbs of every subsystem.
fn first_word(name: &str) -> Option<&str> {
    let word = name.trim_start_matches('_').split(['_', '.']).next()?;
    let everywhere = matches!(
        word,
        "x64" | "ia32" | "do" | "get" | "set" | "put" | "sys" | "bpf" | "trace" | "perf"
    );
    (word.len() >= 3 && !everywhere).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_in_headers_belong_to_the_file_around_them_in_the_table() {
        let table = [
            (0x10, "fs/a/x.c"),
            (0x20, "include/linux/fs.h"),
            (0x30, "fs/a/x.c"),
            (0x40, "include/linux/fs.h"),
            (0x50, "fs/b/y.c"),
        ];
        let found = resolve_headers(&table);
        let found: Vec<_> = found.iter().map(|a| (a.offset, &*a.file, a.order)).collect();
        assert_eq!(
            found,
            [
                (0x10, "fs/a/x.c", 0),
                (0x20, "fs/a/x.c", 0),
                (0x30, "fs/a/x.c", 0),
                (0x50, "fs/b/y.c", 1)
            ]
        );
    }

    #[test]
    fn a_function_between_files_is_in_their_common_directory_and_at_a_sections_end_nowhere() {
        let kallsyms = Kallsyms::parse(
            "ffffffff81000000 T _text\nffffffff81000000 t first\nffffffff81000100 t between\n\
             ffffffff81000200 t second\nffffffff81000300 t at_the_end\nffffffff81000400 t other_section\n\
             ffffffff81000500 T _etext\n",
        );
        let anchor = |offset, file: &str, order| Anchor { offset, file: Arc::from(file), order };
        let anchors = [
            anchor(0x10, "fs/ext4/inode.c", 3),
            anchor(0x210, "fs/ext4/super.c", 4),
            anchor(0x410, "arch/x86/mm/init.c", 1),
        ];
        let located = locate(&anchors, &kallsyms.unwrap());
        let located: Vec<_> = located.iter().map(|(o, s)| (*o, s.label(), s.certainty)).collect();
        assert_eq!(
            located,
            [
                (0, "fs/ext4/inode.c".into(), Certainty::Exact),
                (0x100, "fs/ext4/".into(), Certainty::Estimated),
                (0x200, "fs/ext4/super.c".into(), Certainty::Exact),
                (0x400, "arch/x86/mm/init.c".into(), Certainty::Exact),
            ]
        );
    }

    #[test]
    fn a_module_file_says_where_its_source_is() {
        let path = "/usr/lib/modules/6.12/kernel/drivers/net/virtio-net.ko.xz";
        assert_eq!(module_source(path), Some(("virtio_net".into(), "drivers/net")));
        assert_eq!(module_source("/lib/modules/6.12/modules.dep"), None);
    }

    #[test]
    fn common_directories_end_at_whole_names() {
        assert_eq!(common("net/ipv4", "net/ipv6"), "net");
        assert_eq!(common("net/ipv4", "net/ipv4/netfilter"), "net/ipv4");
        assert_eq!(common("fs", "net"), "");
    }
}
