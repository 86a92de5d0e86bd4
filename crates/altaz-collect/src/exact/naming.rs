//! Which function of which binary a block is, and in which layer.
//!
//! User code is named by content: the page that the block was translated from is looked up among the
//! executable pages of the images' ELF files. Page content is the same wherever a file is mapped, so
//! no address space has to be known; where several files hold the same page, the one that the
//! recording otherwise uses most is taken. A page that no file holds may be a patched one (gVisor
//! rewrites system call sites), or hold a copied stub: it is compared with the files in use.
//!
//! Kernel code is named by address, through the symbol table of the machine that ran it. A kernel's
//! text is mapped once, so the address that the translator saw is the address that runs.
//!
//! What no table explains stays in the profile as bytes without a name.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use altaz_profile::Layer;
use altaz_profile::rules::{CodePlace, LayerRules, Machine, Origin, Privilege};
use altaz_symbols::blocks::BlockSearch;
use altaz_symbols::{Binary, FileId, Function, ImageFile, Kallsyms, PageIndex, PageRef};
use altaz_wire::{Block, PAGE, PageHash};

use super::recording::Recording;

/// Name under which the vDSO's code appears: its own soname.
pub const VDSO: &str = "linux-vdso.so.1";

/// Name of the core kernel as a binary.
pub const KERNEL: &str = "kernel";

/// Reads a file of an image.
pub type ReadFile<'a> = Box<dyn Fn(&ImageFile) -> io::Result<Vec<u8>> + 'a>;

/// An image whose files can be recognised.
pub struct CodeImage<'a> {
    /// Which image.
    pub origin: Origin,
    /// Its executable pages.
    pub index: &'a PageIndex,
    /// Reads a file of it.
    pub read: ReadFile<'a>,
}

/// Finds a kernel function's source file.
pub type SourceOf = Arc<dyn Fn(Option<&str>, u64) -> Option<Arc<str>> + Send + Sync>;

/// A kernel whose code can be named.
pub struct KernelCode {
    /// Its symbols.
    pub kallsyms: Kallsyms,
    /// Its build-id in lower-case hex.
    pub build_id: Option<Arc<str>>,
    /// Source file of a function by its module (none: the core kernel) and its distance from the
    /// start of the text; a directory ends in `/`.
    pub source: Option<SourceOf>,
}

/// Address spaces that execute one binary in different roles.
#[derive(Debug, Clone)]
pub struct RoleRule {
    /// Path of the binary in its image.
    pub binary: String,
    /// (role, prefixes of names of functions that only this role executes).
    pub roles: Vec<(String, Vec<String>)>,
    /// Role of address spaces without a mark.
    pub default_role: String,
}

/// Everything that names are found with.
pub struct Sources<'a> {
    /// Images.
    pub images: Vec<CodeImage<'a>>,
    /// The machine's own kernel.
    pub kernel: KernelCode,
    /// Its nested guest's kernel.
    pub guest_kernel: Option<KernelCode>,
    /// A guest's kernel that is a program of the machine: its path, and its own symbols.
    pub kernel_program: Option<(String, Kallsyms)>,
    /// Layers.
    pub rules: LayerRules,
    /// Shared binaries.
    pub roles: Vec<RoleRule>,
    /// The image that user code of the machine itself is looked for in first: the lab's own for
    /// deployments whose service runs in a guest.
    pub host_prefers: Origin,
}

/// Number of a [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

/// A function in a layer: what becomes a unit.
#[derive(Debug, Clone)]
pub struct Target {
    /// Layer.
    pub layer: Layer,
    /// Binary.
    pub binary: Arc<str>,
    /// Its build-id.
    pub build_id: Option<Arc<str>>,
    /// Name of the function.
    pub symbol: Arc<str>,
    /// Its start: file offset, or distance from the start of the kernel's or module's text.
    pub offset: u64,
    /// Its size with its out-of-line parts, bytes.
    pub size: u64,
    /// Source file; a directory ends in `/`.
    pub file: Option<Arc<str>>,
    /// Source line.
    pub line: Option<u32>,
}

/// A part of a block that lies in one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The function.
    pub target: TargetId,
    /// First byte, in the coordinates of [`Target::offset`].
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
}

/// What a block is.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// Code of these functions.
    Code(&'a [Piece]),
    /// Code generated at run time.
    Jit(Layer),
    /// Unknown code.
    Unnamed(Layer),
    /// Nobody's layer: altaz's own agent.
    LeftOut,
}

#[derive(Debug, Clone)]
enum Verdict {
    Code(Vec<Piece>),
    Jit(Layer),
    Unnamed(Layer),
    LeftOut,
}

/// A file of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileKey {
    image: usize,
    file: u32,
}

struct LoadedFile {
    path: Arc<str>,
    bytes: Vec<u8>,
    build_id: Option<Arc<str>>,
    binary: Option<Binary>,
    /// Size of the out-of-line parts by their function's offset.
    parts: HashMap<u64, u64>,
}

/// Key of a target: where its function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Spot {
    User(Layer, FileKey, u64),
    Kernel(Layer, bool, u64),
}

/// Names of a recording's blocks.
pub struct Names<'a> {
    sources: Sources<'a>,
    blocks: Vec<Block>,
    /// Where each page comes from.
    pages: HashMap<(PageHash, Machine), Option<(FileKey, u64)>>,
    files: HashMap<FileKey, LoadedFile>,
    /// Blocks that are copies of a piece of a file at another place.
    copies: HashMap<u32, (FileKey, u64)>,
    slot_roles: HashMap<(FileKey, u16), usize>,
    targets: Vec<Target>,
    by_spot: HashMap<Spot, TargetId>,
    verdicts: HashMap<(u32, Option<u16>), Verdict>,
}

impl<'a> Names<'a> {
    /// Looks up where every page of the recording comes from.
    ///
    /// # Errors
    /// When a file of an image cannot be read.
    pub fn new(recording: &Recording, sources: Sources<'a>) -> io::Result<Self> {
        let mut names = Self {
            blocks: recording.blocks.clone(),
            pages: HashMap::new(),
            files: HashMap::new(),
            copies: HashMap::new(),
            slot_roles: HashMap::new(),
            targets: Vec::new(),
            by_spot: HashMap::new(),
            verdicts: HashMap::new(),
            sources,
        };
        let used = used_blocks(recording);
        names.find_pages(&used);
        let needed: HashSet<FileKey> =
            names.pages.values().flatten().map(|(file, _)| *file).collect();
        for file in needed {
            let loaded = names.load(file)?;
            names.files.insert(file, loaded);
        }
        names.find_changed_pages(recording, &used);
        names.find_roles(recording);
        Ok(names)
    }

    /// The function with this number.
    pub fn target(&self, id: TargetId) -> &Target {
        &self.targets[id.0 as usize]
    }

    /// What a block is, when executed by the address space of this slot (for split blocks).
    pub fn of(&mut self, block: u32, slot: Option<u16>) -> Named<'_> {
        if !self.verdicts.contains_key(&(block, slot)) {
            let verdict = self.judge(block, slot);
            self.verdicts.insert((block, slot), verdict);
        }
        match &self.verdicts[&(block, slot)] {
            Verdict::Code(pieces) => Named::Code(pieces),
            Verdict::Jit(layer) => Named::Jit(*layer),
            Verdict::Unnamed(layer) => Named::Unnamed(*layer),
            Verdict::LeftOut => Named::LeftOut,
        }
    }

    /// In which order images are searched for user code of a machine.
    fn image_order(&self, machine: Machine) -> Vec<usize> {
        let first = match machine {
            Machine::Guest => Origin::Service,
            Machine::Host => self.sources.host_prefers,
        };
        let mut order: Vec<usize> = (0..self.sources.images.len()).collect();
        order.sort_by_key(|i| self.sources.images[*i].origin != first);
        order
    }

    fn find_pages(&mut self, used: &HashSet<u32>) {
        let mut wanted: HashSet<(PageHash, Machine)> = HashSet::new();
        for id in used {
            let block = &self.blocks[*id as usize];
            if block.page != 0 {
                wanted.insert((block.page, machine(block)));
            }
        }
        // Pages that only one file of the preferred image holds say which files are in use.
        let mut uses: HashMap<FileKey, u32> = HashMap::new();
        let mut ambiguous: Vec<((PageHash, Machine), usize, Vec<PageRef>)> = Vec::new();
        for key in wanted {
            let found = self.image_order(key.1).into_iter().find_map(|image| {
                let refs = self.sources.images[image].index.lookup(key.0);
                (!refs.is_empty()).then(|| (image, refs.to_vec()))
            });
            match found {
                None => {
                    self.pages.insert(key, None);
                }
                Some((image, refs)) if refs.len() == 1 => {
                    let file = FileKey { image, file: refs[0].file.0 };
                    *uses.entry(file).or_default() += 1;
                    self.pages.insert(key, Some((file, u64::from(refs[0].page) * PAGE as u64)));
                }
                Some((image, refs)) => ambiguous.push((key, image, refs)),
            }
        }
        for (key, image, refs) in ambiguous {
            let best = refs.iter().map(|r| (FileKey { image, file: r.file.0 }, r.page)).max_by_key(
                |(file, page)| {
                    (uses.get(file).copied().unwrap_or(0), u32::MAX - file.file, u32::MAX - page)
                },
            );
            self.pages.insert(key, best.map(|(file, page)| (file, u64::from(page) * PAGE as u64)));
        }
    }

    /// Pages that differ from a file's in a few places (patched call sites), and blocks that are
    /// copies of a file's bytes at another place (stubs). Only files in use are searched.
    fn find_changed_pages(&mut self, recording: &Recording, used: &HashSet<u32>) {
        let mut missing: Vec<(PageHash, Machine)> = self
            .pages
            .iter()
            .filter(|(key, found)| found.is_none() && recording.pages.contains_key(&key.0))
            .map(|(key, _)| *key)
            .collect();
        missing.sort_unstable();
        if missing.is_empty() {
            return;
        }
        let missing_set: HashSet<(PageHash, Machine)> = missing.iter().copied().collect();
        let loose: Vec<(u32, &[u8])> = used
            .iter()
            .map(|id| (*id, &self.blocks[*id as usize]))
            .filter(|(_, b)| b.page != 0 && missing_set.contains(&(b.page, machine(b))))
            .map(|(id, b)| {
                let end = (b.page_offset() + b.size as usize).min(PAGE);
                (id, &recording.pages[&b.page][b.page_offset()..end])
            })
            .collect();
        let mut found = Vec::new();
        let mut copies = HashMap::new();
        for (image, code) in self.sources.images.iter().enumerate() {
            let mut contents: Vec<(FileId, &[u8])> = self
                .files
                .iter()
                .filter(|(key, _)| key.image == image)
                .map(|(key, file)| (FileId(key.file), file.bytes.as_slice()))
                .collect();
            contents.sort_unstable_by_key(|(id, _)| *id);
            let search = BlockSearch::new(code.index, contents);
            for key in &missing {
                let Ok(page) = <&[u8; PAGE]>::try_from(&*recording.pages[&key.0]) else { continue };
                if let Some(best) = search.closest_page(page)
                    && best.matched_bytes * 2 >= PAGE
                    && best.runner_up * 4 <= best.matched_bytes * 3
                {
                    let file = FileKey { image, file: best.page.file.0 };
                    let preferred = self.image_order(key.1).first() == Some(&image);
                    found.push((preferred, *key, (file, u64::from(best.page.page) * PAGE as u64)));
                }
            }
            let places =
                search.find_copies(&loose.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>());
            for ((id, _), places) in loose.iter().zip(places) {
                if let [(file, offset)] = places.as_slice() {
                    copies.insert(*id, (FileKey { image, file: file.0 }, *offset));
                }
            }
        }
        found.sort_by_key(|(preferred, ..)| *preferred);
        for (_, key, place) in found {
            self.pages.insert(key, Some(place));
        }
        self.copies = copies;
    }

    fn load(&self, key: FileKey) -> io::Result<LoadedFile> {
        let image = &self.sources.images[key.image];
        let file = image
            .index
            .file(FileId(key.file))
            .ok_or_else(|| io::Error::other("the page index names a file that it does not have"))?;
        let bytes = (image.read)(file)?;
        // A file that the index took for an ELF file and that does not parse stays without functions.
        let mut binary = Binary::parse(&bytes).ok();
        if let (Some((path, symbols)), Some(binary)) = (&self.sources.kernel_program, &mut binary)
            && *path == file.path
        {
            binary.name_by(symbols);
        }
        let parts = binary.as_ref().map(part_sizes).unwrap_or_default();
        Ok(LoadedFile {
            path: file.path.as_str().into(),
            bytes,
            build_id: binary.as_ref().and_then(|b| b.build_id.as_deref()).map(Arc::from),
            binary,
            parts,
        })
    }

    /// Which role each address space has, by the marked functions that it executed.
    fn find_roles(&mut self, recording: &Recording) {
        let mut executed: HashSet<(u32, u16)> = HashSet::new();
        for window in &recording.windows {
            executed.extend(window.split.iter().map(|c| (c.block, c.slot)));
        }
        for (block, slot) in executed {
            let Some((file, offset)) = self.user_place(block) else { continue };
            let loaded = &self.files[&file];
            let Some(rule) = self.sources.roles.iter().find(|r| *r.binary == *loaded.path) else {
                continue;
            };
            let name = loaded.binary.as_ref().and_then(|b| b.functions.find_unit(offset));
            let Some(name) = name.map(|f| f.name.as_str()) else { continue };
            let role = rule
                .roles
                .iter()
                .position(|(_, prefixes)| prefixes.iter().any(|p| name.starts_with(p.as_str())));
            if let Some(role) = role {
                self.slot_roles.insert((file, slot), role);
            }
        }
    }

    fn role(&self, file: FileKey, slot: Option<u16>) -> &str {
        let Some(slot) = slot else { return "" };
        let loaded = &self.files[&file];
        let Some(rule) = self.sources.roles.iter().find(|r| *r.binary == *loaded.path) else {
            return "";
        };
        match self.slot_roles.get(&(file, slot)) {
            Some(role) => &rule.roles[*role].0,
            None => &rule.default_role,
        }
    }

    /// File and offset of a user block.
    fn user_place(&self, id: u32) -> Option<(FileKey, u64)> {
        let block = &self.blocks[id as usize];
        let in_page = self.pages.get(&(block.page, machine(block))).copied().flatten();
        in_page
            .map(|(file, page)| (file, page + block.page_offset() as u64))
            .or_else(|| self.copies.get(&id).copied())
    }

    fn judge(&mut self, id: u32, slot: Option<u16>) -> Verdict {
        let block = self.blocks[id as usize];
        if block.ring == 0 { self.judge_kernel(block) } else { self.judge_user(id, slot) }
    }

    fn judge_user(&mut self, id: u32, slot: Option<u16>) -> Verdict {
        let block = self.blocks[id as usize];
        let machine = machine(&block);
        let place = |origin, binary, role| CodePlace {
            machine,
            privilege: Privilege::User,
            origin,
            binary,
            role,
        };
        let Some((file, offset)) = self.user_place(id) else {
            return match self.sources.rules.layer_of(place(Origin::Unknown, "", "")) {
                Some(layer) => Verdict::Unnamed(layer),
                None => Verdict::LeftOut,
            };
        };
        let origin = self.sources.images[file.image].origin;
        let path = Arc::clone(&self.files[&file].path);
        let role = self.role(file, slot).to_owned();
        let Some(layer) = self.sources.rules.layer_of(place(origin, &path, &role)) else {
            return Verdict::LeftOut;
        };
        let mut pieces = Vec::new();
        let end = offset + u64::from(block.size);
        let mut at = offset;
        while at < end {
            let loaded = &self.files[&file];
            let functions = loaded.binary.as_ref().map(|b| &b.functions);
            let Some(index) = functions.and_then(|f| f.find_index(at)) else { break };
            let next = functions
                .and_then(|f| f.get(index + 1))
                .map_or(end, |f| f.offset.clamp(at + 1, end));
            let target = self.user_target(layer, file, at);
            let Some(target) = target else { break };
            pieces.push(Piece { target, from: at, to: next });
            at = next;
        }
        if pieces.is_empty() { Verdict::Unnamed(layer) } else { Verdict::Code(pieces) }
    }

    fn user_target(&mut self, layer: Layer, file: FileKey, offset: u64) -> Option<TargetId> {
        let loaded = self.files.get(&file)?;
        let function: &Function = loaded.binary.as_ref()?.functions.find_unit(offset)?;
        let spot = Spot::User(layer, file, function.offset);
        if let Some(id) = self.by_spot.get(&spot) {
            return Some(*id);
        }
        let file = BinaryFile {
            path: &loaded.path,
            build_id: loaded.build_id.as_ref(),
            parts: &loaded.parts,
        };
        let target = user_target(layer, file, function);
        Some(self.add_target(spot, target))
    }

    fn add_target(&mut self, spot: Spot, target: Target) -> TargetId {
        let id = TargetId(self.targets.len() as u32);
        self.targets.push(target);
        self.by_spot.insert(spot, id);
        id
    }

    fn judge_kernel(&mut self, block: Block) -> Verdict {
        let machine = machine(&block);
        let place = |binary| CodePlace {
            machine,
            privilege: Privilege::Kernel,
            origin: Origin::Unknown,
            binary,
            role: "",
        };
        let Some(layer) = self.sources.rules.layer_of(place(KERNEL)) else {
            return Verdict::LeftOut;
        };
        let guest = machine == Machine::Guest;
        let end = block.vaddr.saturating_add(u64::from(block.size));
        let mut pieces = Vec::new();
        let mut at = block.vaddr;
        while at < end {
            let code =
                if guest { self.sources.guest_kernel.as_ref() } else { Some(&self.sources.kernel) };
            let Some(code) = code else { break };
            let Some(found) = code.kallsyms.lookup(at) else {
                // Outside the kernel's own text and every module's: made at run time. Filters of
                // seccomp and sockets have no symbols even where BPF programs have.
                if pieces.is_empty() && !code.kallsyms.text_range().contains(&at) {
                    return Verdict::Jit(layer);
                }
                break;
            };
            if found.jit {
                return Verdict::Jit(layer);
            }
            let (start, size) = (found.start, found.size);
            let next = start.saturating_add(size).clamp(at + 1, end);
            let spot = Spot::Kernel(layer, guest, start);
            let target = match self.by_spot.get(&spot) {
                Some(id) => *id,
                None => {
                    let target = kernel_target(layer, code, &found);
                    self.add_target(spot, target)
                }
            };
            let base = self.targets[target.0 as usize].offset;
            pieces.push(Piece { target, from: base + (at - start), to: base + (next - start) });
            at = next;
        }
        if pieces.is_empty() { Verdict::Unnamed(layer) } else { Verdict::Code(pieces) }
    }
}

/// Sizes of the out-of-line parts of a binary's functions, by their function's offset.
pub(crate) fn part_sizes(binary: &Binary) -> HashMap<u64, u64> {
    let mut parts = HashMap::new();
    for f in &binary.functions {
        if let Some(parent) = f.parent {
            *parts.entry(parent).or_default() += f.size;
        }
    }
    parts
}

/// What is known of a user binary besides its functions.
#[derive(Clone, Copy)]
pub(crate) struct BinaryFile<'a> {
    /// Path in its image.
    pub(crate) path: &'a Arc<str>,
    /// Build-id.
    pub(crate) build_id: Option<&'a Arc<str>>,
    /// From [`part_sizes`].
    pub(crate) parts: &'a HashMap<u64, u64>,
}

/// The unit that a function of a user binary is.
pub(crate) fn user_target(layer: Layer, file: BinaryFile<'_>, function: &Function) -> Target {
    Target {
        layer,
        binary: Arc::clone(file.path),
        build_id: file.build_id.cloned(),
        symbol: function.name.as_str().into(),
        offset: function.offset,
        size: function.size + file.parts.get(&function.offset).copied().unwrap_or(0),
        file: function.file.clone(),
        line: function.line,
    }
}

/// The unit that a kernel function is.
pub(crate) fn kernel_target(
    layer: Layer,
    code: &KernelCode,
    found: &altaz_symbols::KernelFunction<'_>,
) -> Target {
    let source = code.source.as_ref().and_then(|s| s(found.module, found.offset_from_base));
    Target {
        layer,
        binary: match found.module {
            Some(module) => format!("[{module}]").into(),
            None => KERNEL.into(),
        },
        build_id: code.build_id.clone().filter(|_| found.module.is_none()),
        symbol: found.name.into(),
        offset: found.offset_from_base,
        size: found.size,
        file: source,
        line: None,
    }
}

fn machine(block: &Block) -> Machine {
    if block.guest == 0 { Machine::Host } else { Machine::Guest }
}

/// Blocks that ran in a window of the profile.
fn used_blocks(recording: &Recording) -> HashSet<u32> {
    let mut used = HashSet::new();
    for (_, window) in recording.profile_windows() {
        used.extend(window.counts.iter().map(|c| c.block));
        used.extend(window.split.iter().map(|c| c.block));
    }
    used
}
